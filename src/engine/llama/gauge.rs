//! What a placement would take: llama.cpp loads the header alone and plans every buffer without allocating one.

use std::{ffi::c_char, path::Path};

use llama_cpp_sys_2 as sys;

use super::{
    Buffer, LoadError, backend, guard,
    params::{self, ModelParams},
};
use crate::{
    config::{EngineConfig, Load},
    engine::{fit::Settings, gguf::Header, task::Task},
};

/// The memory that a placement takes, and where its attention runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gauged {
    pub(crate) buffers: Vec<Buffer>,
    /// What the context of the prediction layers takes.
    pub(crate) heads: Vec<Buffer>,
    /// Whether attention runs in fused kernels.
    pub(crate) flash_attention: bool,
    /// Flash attention runs on the first device, but its cache lies on the second.
    pub(crate) astray: Option<(String, String)>,
    /// States that each sequence keeps beside its latest; 0 also where the model has none that could be kept.
    pub(crate) kept_states: u32,
}

/// Gauges a placement; takes about as long as reading the header. [`super::init`] comes first, and
/// [`crate::engine::gguf::check`], because llama.cpp aborts on some headers.
pub(crate) fn gauge(
    path: &Path,
    header: &Header,
    config: &EngineConfig,
    context: u32,
    settings: &Settings,
) -> Result<Gauged, LoadError> {
    let name = backend::c_path(path)?;
    let mut model_params = ModelParams::new(Load::None, settings)?;
    model_params.raw.no_alloc = true;
    let overrides = without_vocabulary(header);
    if let Some(overrides) = &overrides {
        model_params.raw.kv_overrides = overrides.as_ptr();
    }
    let context_params = params::context(config, context, settings)?;
    let heads_params = settings
        .mtp
        .then(|| params::heads(config, context, settings))
        .transpose()?;
    backend::take_errors();
    // SAFETY: `model_params` and `overrides` own all that is pointed to and live through the call.
    let model =
        unsafe { guard::load(&name, model_params.raw) }.map_err(|fault| LoadError::File {
            path: path.to_owned(),
            why: backend::reason(fault),
        })?;
    let model = Owned(model);
    // SAFETY: the model outlives the context, which is declared after it.
    let context = unsafe { guard::context(model.0, context_params) }
        .map_err(|fault| LoadError::Context(backend::reason(fault)))?;
    let context = OwnedContext(context);
    // SAFETY: the context is valid and ours alone.
    unsafe {
        let mut buffers = guard::buffers(context.0);
        if let (Ok(buffers), Task::Encode(_)) = (&mut buffers, settings.task) {
            let width = u64::try_from(sys::llama_model_n_embd_out(model.0)).unwrap_or(0);
            buffers.push(params::encoder_outputs(config, header.vocabulary, width));
        }
        // One token of each sequence and a whole step may take different kernels.
        let (tokens, sequences) = (context_params.n_ubatch, context_params.n_seq_max);
        let attention = guard::attention(context.0, sequences, sequences)
            .and_then(|one| Ok((one, guard::attention(context.0, tokens, sequences)?)));
        let inside = |fault| LoadError::Context(backend::reason(fault));
        let (one, many) = attention.map_err(inside)?;
        let mut heads = Vec::new();
        if let Some(params) = heads_params {
            let context = guard::context(model.0, params).map_err(inside)?;
            let context = OwnedContext(context);
            heads = guard::buffers(context.0).map_err(inside)?;
            for buffer in &mut heads {
                buffer.weights = 0; // the model's own
            }
        }
        Ok(Gauged {
            buffers: buffers.map_err(inside)?,
            heads,
            flash_attention: many.fused,
            astray: one.astray.or(many.astray),
            kept_states: sys::llama_n_rs_seq(context.0),
        })
    }
}

/// Has llama.cpp take the size of the vocabulary for granted: reading a quarter of a million tokens takes several times
/// as long as all the rest. `None`: the size is not known.
fn without_vocabulary(header: &Header) -> Option<[sys::llama_model_kv_override; 3]> {
    let size = i64::try_from(header.vocabulary)
        .ok()
        .filter(|size| *size > 0)?;
    // SAFETY: plain data, for which all zeros are valid; the last entry stays so and ends the list.
    let mut overrides: [sys::llama_model_kv_override; 3] = unsafe { std::mem::zeroed() };
    overrides[0].tag = sys::LLAMA_KV_OVERRIDE_TYPE_STR;
    write(&mut overrides[0].key, "tokenizer.ggml.model")?;
    let mut text = [0; 128];
    write(&mut text, "no_vocab")?;
    overrides[0].__bindgen_anon_1.val_str = text;
    overrides[1].tag = sys::LLAMA_KV_OVERRIDE_TYPE_INT;
    write(
        &mut overrides[1].key,
        &format!("{}.vocab_size", header.architecture),
    )?;
    overrides[1].__bindgen_anon_1.val_i64 = size;
    Some(overrides)
}

/// Copies a text that leaves room for its end. `None`: it does not.
fn write(into: &mut [c_char; 128], text: &str) -> Option<()> {
    let room = into.get_mut(..text.len()).filter(|room| room.len() < 128)?;
    for (place, byte) in room.iter_mut().zip(text.bytes()) {
        *place = byte.cast_signed();
    }
    Some(())
}

struct Owned(*mut sys::llama_model);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: ours, and its context is gone.
        unsafe { sys::llama_model_free(self.0) };
    }
}

struct OwnedContext(*mut sys::llama_context);

impl Drop for OwnedContext {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { sys::llama_free(self.0) };
    }
}

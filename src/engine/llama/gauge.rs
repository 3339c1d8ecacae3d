//! What a placement would take: llama.cpp loads the header alone and plans every buffer without allocating one.

use std::path::Path;

use llama_cpp_sys_2 as sys;

use super::{
    Buffer, LoadError, backend,
    guard::{self, Fault},
    params::{self, ModelParams},
};
use crate::{
    config::{EngineConfig, Load},
    engine::fit::Settings,
};

/// The memory that a placement takes, and where its attention runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gauged {
    pub(crate) buffers: Vec<Buffer>,
    /// Whether attention runs in fused kernels.
    pub(crate) flash_attention: bool,
    /// Flash attention runs on the first device, but its cache lies on the second.
    pub(crate) astray: Option<(String, String)>,
}

/// Gauges a placement; takes about as long as reading the header. [`super::init`] comes first, and
/// [`crate::engine::gguf::check`], because llama.cpp aborts on some headers.
pub(crate) fn gauge(
    path: &Path,
    config: &EngineConfig,
    context: u32,
    settings: &Settings,
) -> Result<Gauged, LoadError> {
    let name = backend::c_path(path)?;
    let mut model_params = ModelParams::new(Load::None, settings)?;
    model_params.raw.no_alloc = true;
    let context_params = params::context(config, context, settings)?;
    backend::take_errors();
    // SAFETY: `model_params` owns all that it points to and lives through the call.
    let model =
        unsafe { guard::load(&name, model_params.raw) }.map_err(|fault| LoadError::File {
            path: path.to_owned(),
            why: reason(fault),
        })?;
    let model = Owned(model);
    // SAFETY: the model outlives the context, which is declared after it.
    let context = unsafe { guard::context(model.0, context_params) }
        .map_err(|fault| LoadError::Context(reason(fault)))?;
    let context = OwnedContext(context);
    // SAFETY: the context is valid and ours alone.
    unsafe {
        let buffers = guard::buffers(context.0);
        // One token of each sequence and a whole step may take different kernels.
        let (tokens, sequences) = (context_params.n_ubatch, context_params.n_seq_max);
        let attention = guard::attention(context.0, sequences, sequences)
            .and_then(|one| Ok((one, guard::attention(context.0, tokens, sequences)?)));
        let inside = |fault| LoadError::Context(reason(fault));
        let (one, many) = attention.map_err(inside)?;
        Ok(Gauged {
            buffers: buffers.map_err(inside)?,
            flash_attention: many.fused,
            astray: one.astray.or(many.astray),
        })
    }
}

fn reason(fault: Fault) -> String {
    match fault {
        Fault::Caught(why) => why,
        Fault::Code(_) => match backend::take_errors() {
            why if why.is_empty() => "llama.cpp refused it without a reason".into(),
            why => why,
        },
    }
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

//! llama.cpp's parameters, made from configuration and placement in one place: what is measured is what is loaded.

use std::{ffi::CString, ptr};

use llama_cpp_sys_2 as sys;

use super::{Buffer, LoadError, devices};
use crate::{
    config::{EngineConfig, FlashAttention, KvType, Load, Split},
    engine::{
        fit::Settings,
        lookup,
        task::{Encoding, Pooling, Task},
        threads,
    },
};

/// llama.cpp keeps each sequence's cells in multiples of this.
const CELLS: u32 = 256;

/// Parameters of a model, with all that they point to.
pub(super) struct ModelParams {
    pub(super) raw: sys::llama_model_params,
    _devices: Vec<sys::ggml_backend_dev_t>,
    _patterns: Vec<CString>,
    _overrides: Vec<sys::llama_model_tensor_buft_override>,
    _split: Vec<f32>,
}

impl ModelParams {
    /// Fails on a device that is not there.
    pub(super) fn new(load: Load, settings: &Settings) -> Result<Self, LoadError> {
        let known = |name: &str| {
            devices::handle(name)
                .ok_or_else(|| LoadError::Backend(format!("no device is called {name}")))
        };
        let mut devices = settings
            .devices
            .iter()
            .map(|name| known(name))
            .collect::<Result<Vec<_>, _>>()?;
        devices.push(ptr::null_mut()); // ends the list
        let mut patterns = Vec::new();
        let mut overrides = Vec::new();
        for one in &settings.overrides {
            let pattern = CString::new(one.tensors.as_str())
                .map_err(|_| LoadError::Backend("a tensor override has a NUL byte".into()))?;
            let buft = if one.device == "CPU" {
                // SAFETY: returns a static.
                unsafe { sys::ggml_backend_cpu_buffer_type() }
            } else {
                // SAFETY: the handle is valid.
                unsafe { sys::ggml_backend_dev_buffer_type(known(&one.device)?) }
            };
            overrides.push(sys::llama_model_tensor_buft_override {
                pattern: pattern.as_ptr(),
                buft,
            });
            patterns.push(pattern);
        }
        overrides.push(sys::llama_model_tensor_buft_override {
            pattern: ptr::null(),
            buft: ptr::null_mut(),
        });
        let mut split = settings.tensor_split.clone();
        // SAFETY: returns a constant.
        split.resize(unsafe { sys::llama_max_devices() }, 0.0);

        // SAFETY: returns a plain struct.
        let mut raw = unsafe { sys::llama_model_default_params() };
        raw.devices = devices.as_mut_ptr();
        raw.tensor_buft_overrides = overrides.as_ptr();
        raw.tensor_split = split.as_ptr();
        raw.n_gpu_layers = i32::try_from(settings.gpu_layers).unwrap_or(i32::MAX);
        raw.main_gpu = i32::try_from(settings.main_gpu).unwrap_or(0);
        raw.split_mode = match settings.split {
            Split::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
            Split::Row => sys::LLAMA_SPLIT_MODE_ROW,
            Split::None => sys::LLAMA_SPLIT_MODE_NONE,
        };
        raw.load_mode = match load {
            Load::Auto | Load::Mmap => sys::LLAMA_LOAD_MODE_MMAP,
            Load::None => sys::LLAMA_LOAD_MODE_NONE,
            Load::Mlock => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            Load::Direct => sys::LLAMA_LOAD_MODE_DIRECT_IO,
        };
        raw.use_extra_bufts = settings.repack;
        raw.load_mtp = settings.mtp;
        Ok(Self {
            raw,
            _devices: devices,
            _patterns: patterns,
            _overrides: overrides,
            _split: split,
        })
    }
}

/// Parameters of a context of `context` tokens for each sequence.
pub(super) fn context(
    config: &EngineConfig,
    context: u32,
    settings: &Settings,
) -> Result<sys::llama_context_params, LoadError> {
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    match settings.task {
        Task::Generate => generating(&mut params, config, context)?,
        Task::Encode(encoding) => encoding_params(&mut params, config, context, encoding),
    }
    let decode = threads::decoding(config);
    params.n_threads = thread_count(decode);
    params.n_threads_batch = thread_count(config.threads_batch.unwrap_or(decode));
    params.type_k = ggml_type(config.kv.k);
    params.type_v = ggml_type(config.kv.v);
    params.flash_attn_type = match config.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.offload_kqv = settings.offload_kqv;
    params.op_offload = settings.op_offload;
    Ok(params)
}

/// Parameters of the context of a model's prediction layers, beside one of [`context`].
pub(super) fn heads(
    config: &EngineConfig,
    context: u32,
    settings: &Settings,
) -> Result<sys::llama_context_params, LoadError> {
    let mut params = self::context(config, context, settings)?;
    params.ctx_type = sys::LLAMA_CONTEXT_TYPE_MTP;
    // One token of each sequence after the other is guessed, and attention can be cut anywhere.
    params.n_outputs_max = config.parallel;
    params.n_rs_seq = 0;
    Ok(params)
}

fn generating(
    params: &mut sys::llama_context_params,
    config: &EngineConfig,
    context: u32,
) -> Result<(), LoadError> {
    params.n_ctx = cells(context).checked_mul(config.parallel).ok_or_else(|| {
        LoadError::Context("engine.context × engine.parallel is more than 4294967295 tokens".into())
    })?;
    params.n_batch = config.batch.max(config.parallel);
    params.n_ubatch = config.ubatch.min(params.n_batch);
    params.n_seq_max = config.parallel;
    params.n_outputs_max = outputs(config);
    params.n_rs_seq = kept_states(config);
    // Each sequence has cells of its own: neighbours cost nothing and cannot fill the cache.
    params.kv_unified = false;
    Ok(())
}

/// Every token of a text is an output. One ubatch is the most that is handed over at once, because pooling and attention
/// to later tokens see no further.
fn encoding_params(
    params: &mut sys::llama_context_params,
    config: &EngineConfig,
    context: u32,
    encoding: Encoding,
) {
    params.embeddings = true;
    params.pooling_type = match encoding.pooling {
        Pooling::None => sys::LLAMA_POOLING_TYPE_NONE,
        Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
        Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
        Pooling::Last => sys::LLAMA_POOLING_TYPE_LAST,
        Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
    };
    // The texts of a step share the cells; the longest needs the most.
    params.n_ctx = cells(context.max(config.ubatch));
    params.n_batch = config.ubatch;
    params.n_ubatch = config.ubatch;
    params.n_seq_max = encoding.texts;
    params.n_outputs_max = config.ubatch;
    params.kv_unified = true;
}

fn cells(context: u32) -> u32 {
    context.div_ceil(CELLS).saturating_mul(CELLS)
}

/// The buffer that llama.cpp keeps for the outputs of a whole step and counts nowhere: a vector and, whether computed or
/// not, the logits of each token.
pub(super) fn encoder_outputs(config: &EngineConfig, vocab: u64, width: u64) -> Buffer {
    let bytes = u64::from(config.ubatch) * (vocab + width) * 4;
    Buffer {
        device: "CPU".into(),
        name: "outputs".into(),
        host: true,
        weights: 0,
        cache: 0,
        compute: bytes,
    }
}

/// Rows of a step that ask for logits: one of each sequence, and guesses. Room for more would be wasted: with a
/// vocabulary of 248,320 a ubatch of 512 would take 508 MB.
pub(super) fn outputs(config: &EngineConfig) -> u32 {
    let speculate = &config.speculate;
    let most = speculate.most(lookup::MOST);
    let drafts = if speculate.drafts() {
        most * config.parallel
    } else {
        0
    };
    let lookups = if speculate.ngram { most } else { 0 };
    (config.parallel + drafts.max(lookups)).min(config.batch.max(config.parallel))
}

/// States that are kept of each sequence beside its latest, so that guesses can be taken back; models that need none, and
/// those that cannot, do not heed it.
fn kept_states(config: &EngineConfig) -> u32 {
    const USUAL: u32 = 4;
    let speculate = &config.speculate;
    if !speculate.is_on() || config.reproducible {
        return 0;
    }
    // llama.cpp asserts that a ubatch holds these and two tokens more.
    speculate.most(USUAL).min(config.ubatch - 2)
}

/// llama.cpp crashes on absurd counts.
fn thread_count(threads: u32) -> i32 {
    i32::try_from(threads.clamp(1, 512)).unwrap_or(1)
}

fn ggml_type(kv: KvType) -> sys::ggml_type {
    match kv {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

//! `Model` over llama.cpp: thin owners of its raw objects. With chat's shim, the only unsafe code.
#![allow(unsafe_code, reason = "the one room that calls llama.cpp")]

use std::{path::Path, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    Grammar, Sampling, Token,
    model::{DecodeError, Model, Row, Sampled, Vocab},
};
use crate::config::EngineConfig;

/// A loaded model's weights and vocabulary; immutable, shared between threads.
pub struct Weights {
    model: *mut sys::llama_model,
}

// SAFETY: llama.cpp never writes to a loaded model; tokenising and reading metadata are const.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

/// Why a model file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: {why}")]
    File { path: String, why: String },
    #[error("the engine could not make a context: {0}")]
    Context(String),
    #[error("loading was cancelled")]
    Cancelled,
}

impl Weights {
    /// Checks the file's header, then loads it. `progress` gets 0.0–1.0 and returns whether to go on.
    pub fn load(
        _path: &Path,
        _config: &EngineConfig,
        _progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Arc<Self>, LoadError> {
        todo!()
    }

    /// Tokens of context that the model was trained with.
    pub fn trained_context(&self) -> u32 {
        todo!()
    }

    /// The raw model, for chat's shim. Valid while `self` lives.
    pub(crate) fn as_ptr(&self) -> *const sys::llama_model {
        self.model
    }
}

impl Vocab for Weights {
    fn size(&self) -> u32 {
        todo!()
    }
    fn tokenize(&self, _text: &str, _add_special: bool, _parse_special: bool) -> Vec<Token> {
        todo!()
    }
    fn piece(&self, _token: Token, _special: bool, _out: &mut Vec<u8>) {
        todo!()
    }
    fn is_eog(&self, _token: Token) -> bool {
        todo!()
    }
}

/// Prepares llama.cpp for this process: log routing into `tracing`, abort containment, CPU and GPU
/// backends from the folder beside the binary. Call once, before anything else here.
/// `fatal` is told when llama.cpp would have aborted the process from one of its own threads.
pub fn init(_fatal: fn(&str)) -> Result<(), LoadError> {
    todo!()
}

/// What the engine is made of, for `GET /version`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Build {
    pub llama_cpp: String,
    pub ggml: String,
    /// Checksum of the engine's source as pinned in Cargo.lock.
    pub source_sha256: String,
    /// Loaded backends, such as `CPU` and `CUDA`.
    pub backends: Vec<String>,
    pub devices: Vec<String>,
    /// CPU features in use, such as `AVX2`.
    pub cpu_features: Vec<String>,
}

/// Call after [`init`].
pub fn build() -> Build {
    todo!()
}

/// A context over the weights, on the thread that decodes.
pub struct Llama {
    _weights: Arc<Weights>,
}

impl Llama {
    /// Makes the context and runs a warm-up decode. Call on the engine thread.
    pub fn open(_weights: Arc<Weights>, _config: &EngineConfig) -> Result<Self, LoadError> {
        todo!()
    }
}

impl Model for Llama {
    type Sampler = ();
    fn vocab(&self) -> &dyn Vocab {
        todo!()
    }
    fn context(&self) -> u32 {
        todo!()
    }
    fn sequences(&self) -> u32 {
        todo!()
    }
    fn batch(&self) -> usize {
        todo!()
    }
    fn ubatch(&self) -> usize {
        todo!()
    }
    fn decode(&mut self, _rows: &[Row]) -> Result<(), DecodeError> {
        todo!()
    }
    fn truncate(&mut self, _sequence: u32, _from: u32) -> bool {
        todo!()
    }
    fn reset(&mut self) -> Result<(), DecodeError> {
        todo!()
    }
    fn sampler(&mut self, _s: &Sampling, _g: Option<&Grammar>) -> Result<(), String> {
        todo!()
    }
    fn observe(&mut self, _sampler: &mut (), _token: Token) {
        todo!()
    }
    fn sample(
        &mut self,
        _sampler: &mut (),
        _row: usize,
        _logprobs: Option<u8>,
    ) -> Result<Sampled, String> {
        todo!()
    }
}

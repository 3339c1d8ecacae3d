//! `Model` over llama.cpp: thin owners of its raw objects. With chat's shim, the only unsafe code.
#![allow(unsafe_code, reason = "the one room that calls llama.cpp")]

mod adapter;
mod backend;
mod batch;
mod chain;
mod choose;
mod context;
mod copies;
mod devices;
mod draft;
mod encoder;
mod gauge;
pub(crate) mod gguf;
mod guard;
mod heads;
mod params;
mod projector;
mod question;
mod rpc;
mod rule;
mod sampler;
mod scores;
mod weights;

pub(crate) use backend::has_gpu_plugin;
pub use backend::{Build, build, init};
pub use context::Llama;
pub(crate) use devices::{Gpu, gpus, names, search, worth_lending};
pub use draft::companion;
pub use encoder::Encoder;
pub(crate) use gauge::{Gauged, gauge};
pub use guard::Buffer;
pub(crate) use projector::gauge_projector;
pub use projector::{Projection, Projector};
pub(crate) use rpc::{Loan, join, lend, protocol};
pub use sampler::Sampler;
pub use weights::Weights;

/// Why a model could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {why}", path.display())]
    File {
        path: std::path::PathBuf,
        why: String,
    },
    /// A setting that the loaded model cannot follow.
    #[error("{field}: {why}")]
    Refused { field: &'static str, why: String },
    #[error("the engine could not make a context: {0}")]
    Context(String),
    /// Nothing was promised to anybody yet: with more memory left free it may work.
    #[error("the warm-up failed: {0}")]
    WarmUp(String),
    #[error("no engine backend: {0}")]
    Backend(String),
    #[error("loading was cancelled")]
    Cancelled,
}

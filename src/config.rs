//! What `config.ncl` says, checked by the embedded Nickel schema and read into plain types.

mod field;
mod listen;
mod load;
mod nickel;
mod reference;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use listen::{BadListen, Listen};
pub use load::{ConfigError, KnownModel, Source, load};
pub use nickel::nickel_string;
pub use reference::{Entry, markdown, reference};

/// The whole configuration. `config/schema.ncl` is the only home of names, defaults and ranges.
///
/// Serialized it is again a configuration, with nothing left to default.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: Listen,
    pub model: ModelConfig,
    pub engine: EngineConfig,
    pub limits: Limits,
    pub auth: AuthConfig,
    pub log: LogConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Key in `models.lock`.
    pub name: String,
    /// Other names a request may use; `"*"` accepts any.
    pub aliases: Vec<String>,
    /// Jinja file that replaces the model's own chat template; absolute or relative to the process.
    pub chat_template: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Tokens of context for each sequence.
    pub context: u32,
    /// Sequences decoded together.
    pub parallel: u32,
    pub kv: KvConfig,
    pub flash_attention: FlashAttention,
    /// `None` (`'auto`): the physical cores this process may use.
    #[serde(with = "field::auto")]
    pub threads: Option<u32>,
    /// `None` (`'auto`): as `threads`.
    #[serde(with = "field::auto")]
    pub threads_batch: Option<u32>,
    /// Most tokens of one `llama_decode`.
    pub batch: u32,
    /// Most tokens computed at once inside it.
    pub ubatch: u32,
    pub load: Load,
    pub gpu_layers: GpuLayers,
    /// Accept `context` above the model's trained context.
    pub beyond_trained_context: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KvConfig {
    pub k: KvType,
    pub v: KvType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    F32,
    F16,
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q4_0")]
    Q4_0,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    Auto,
    On,
    Off,
}

impl KvType {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// How weights come into memory: mapped, read, or mapped and locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    Mmap,
    None,
    Mlock,
}

/// How many of the model's layers live on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuLayers {
    /// As many as fit.
    Auto,
    All,
    #[serde(untagged)]
    Count(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests that may wait for a sequence before new ones get 429.
    pub queue: u32,
    /// Upper bound (and default) of `max_tokens`; `None` (`'context`): what is left of the context.
    #[serde(with = "field::context")]
    pub max_tokens: Option<u32>,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Longest wait for a free sequence before 429.
    #[serde(with = "field::seconds")]
    pub queue_wait: Duration,
    /// Longest life of one request once it runs.
    #[serde(with = "field::seconds")]
    pub request: Duration,
    /// Longest time to receive a request's header and body.
    #[serde(with = "field::seconds")]
    pub receive: Duration,
    /// Silence on a stream after which a comment line is sent.
    #[serde(with = "field::seconds")]
    pub keep_alive: Duration,
    /// How long running requests may go on after SIGTERM.
    #[serde(with = "field::seconds")]
    pub drain: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Files of API keys, one key a line; none: no key is asked for.
    pub key_files: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter such as `info` or `info,llm_server=debug`.
    pub level: String,
}

impl Config {
    /// The effective configuration as one line of JSON: fields in a fixed order, every default written out.
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with string keys")
    }
}

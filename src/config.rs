//! What `config.ncl` says, checked by the embedded Nickel schema and read into plain types.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The whole configuration. `config/schema.ncl` is the only home of names, defaults and ranges.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: Listen,
    pub model: ModelConfig,
    pub engine: EngineConfig,
    pub limits: Limits,
    pub auth: AuthConfig,
    pub log: LogConfig,
}

/// Where the HTTP API is offered: `host:port`, or `unix:/path`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Key in `models.lock`.
    pub name: String,
    /// Other names a request may use; `"*"` accepts any.
    pub aliases: Vec<String>,
    /// Jinja file that replaces the model's own chat template.
    pub chat_template: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Tokens of context for each sequence.
    pub context: u32,
    /// Sequences decoded together.
    pub parallel: u32,
    pub kv: KvConfig,
    pub flash_attention: FlashAttention,
    /// `None` ('auto): the physical cores this process may use.
    pub threads: Option<u32>,
    /// `None` ('auto): as `threads`.
    pub threads_batch: Option<u32>,
    /// Most tokens of one `llama_decode`.
    pub batch: u32,
    /// Most tokens computed at once inside it.
    pub ubatch: u32,
    pub load: Load,
    /// `None` ('auto): as many as fit; otherwise this many layers on the GPU.
    pub gpu_layers: Option<u32>,
    /// Accept `context` above the model's trained context.
    pub beyond_trained_context: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
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

/// How weights come into memory: mapped, read, or mapped and locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    Mmap,
    None,
    Mlock,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests that may wait for a sequence before new ones get 429.
    pub queue: u32,
    /// Upper bound (and default) of `max_tokens`; `None`: what is left of the context.
    pub max_tokens: Option<u32>,
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Longest wait for a free sequence before 429.
    #[serde(with = "seconds")]
    pub queue_wait: Duration,
    /// Longest life of one request once it runs.
    #[serde(with = "seconds")]
    pub request: Duration,
    /// Longest time to receive a request's header and body.
    #[serde(with = "seconds")]
    pub receive: Duration,
    /// Silence on a stream after which a comment line is sent.
    #[serde(with = "seconds")]
    pub keep_alive: Duration,
    /// How long running requests may go on after SIGTERM.
    #[serde(with = "seconds")]
    pub drain: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Files of API keys, one key a line; none: no key is asked for.
    pub key_files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter such as `info` or `info,llm_server=debug`.
    pub level: String,
}

/// Durations are plain seconds in the configuration.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|e| format!("{text}: {e}")),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        match listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

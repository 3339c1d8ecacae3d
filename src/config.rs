//! What `config.ncl` says, checked by the embedded Nickel schema and read into plain types.

mod engine;
mod field;
mod listen;
mod load;
mod nickel;
mod reference;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use engine::{
    CpuMoe, EngineConfig, FlashAttention, GpuLayers, KvConfig, KvType, Load, Mtp, Numa, Overflow,
    Override, Placement, Pooling, Schedule, Speculate, Split,
};
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
    pub cache: CacheConfig,
    pub limits: Limits,
    pub auth: AuthConfig,
    pub cors: CorsConfig,
    pub images: ImagesConfig,
    pub log: LogConfig,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Key in `models.lock`.
    pub name: String,
    /// Other names a request may use; `"*"` accepts any.
    pub aliases: Vec<String>,
    /// Jinja file that replaces the model's own chat template; absolute or relative to the process.
    pub chat_template: Option<PathBuf>,
    /// Key in `models.lock` of what turns images or sounds into the model's input; `None`: it takes none.
    pub projector: Option<String>,
    /// What requests may change the model's weights by.
    pub adapters: Vec<AdapterConfig>,
    pub kind: Kind,
    /// Parameters for requests that do not give them themselves.
    pub defaults: serde_json::Map<String, serde_json::Value>,
}

/// A LoRA adapter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Key in `models.lock`.
    pub name: String,
    /// For requests that do not say otherwise; 0: not at all.
    #[serde(default = "whole")]
    pub scale: f32,
    /// A name by which a request has this adapter alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

fn whole() -> f32 {
    1.0
}

/// What the model is served for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// As the file's header says.
    Auto,
    Chat,
    Embedding,
    Rerank,
}

/// What is kept of computed prompts, beside what the sequences themselves hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// MiB of host memory for states of sequences; `None` (`'auto`): a part of what is free.
    #[serde(with = "field::auto")]
    pub ram: Option<u32>,
    pub share: Share,
    /// MiB of host memory for images and sounds as the model takes them.
    pub images: u32,
    pub normalize: Normalize,
    /// Tokens between two checkpoints of a prompt, for models whose state cannot be cut.
    pub checkpoint_every: u32,
    /// MiB of disk for states that outlive the process; 0: none do.
    pub disk: u32,
    /// Where they lie; `None`: in the state directory.
    pub folder: Option<PathBuf>,
    /// Where clients save states; `None`: nowhere.
    pub slots: Option<PathBuf>,
}

/// Whether what differs between the requests of one conversation and means nothing is taken out of prompts, since no
/// cached one could be reused past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "bool", into = "bool")]
pub enum Normalize {
    On,
    Off,
}

impl From<bool> for Normalize {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl From<Normalize> for bool {
    fn from(normalize: Normalize) -> Self {
        normalize == Normalize::On
    }
}

/// Who may reuse whose prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Requests with the same API key.
    Key,
    /// Everybody: whoever can measure time can find out what others sent.
    All,
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
    /// Most bytes of kept answers of `/v1/responses`; 0: none is kept.
    pub responses_bytes: u64,
    /// Most images of one request.
    pub images: u32,
    /// Largest image, in bytes as it is sent.
    pub image_bytes: u64,
    /// Most pixels of an image.
    pub image_pixels: u64,
    /// Most sounds of one request.
    pub audio: u32,
    /// Largest sound, in bytes as it is sent.
    pub audio_bytes: u64,
    /// Longest sound.
    #[serde(with = "field::seconds")]
    pub audio_length: Duration,
    /// Longest wait for a free sequence before 429.
    #[serde(with = "field::seconds")]
    pub queue_wait: Duration,
    /// Longest life of one request once it runs.
    #[serde(with = "field::seconds")]
    pub request: Duration,
    /// Longest time to receive a request's header and body.
    #[serde(with = "field::seconds")]
    pub receive: Duration,
    /// Longest time that a client may leave bytes unread.
    #[serde(with = "field::seconds")]
    pub send: Duration,
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
    /// Files of API keys, one key a line, each file an owner's.
    pub key_files: Vec<PathBuf>,
    pub keys: Vec<KeyConfig>,
}

/// An owner of API keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    pub name: String,
    /// One key a line.
    pub file: PathBuf,
    /// Paths that may be used, `*` at the end for any rest; empty: all.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Part of the turns and of the queue's places, beside the other keys'.
    #[serde(default = "one")]
    pub share: u32,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    pub origins: Origins,
}

/// Web pages that may use the API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Origins {
    /// Those from here.
    Listed(Vec<String>),
    Every(Any),
}

/// `'any`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Any {
    Any,
}

/// Images that requests give by their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    pub fetch: RemoteImages,
    /// Names of hosts, `*.` before a domain for all within it; empty: any.
    pub hosts: Vec<String>,
    /// Longest time to fetch one, redirects included.
    #[serde(with = "field::seconds")]
    pub timeout: Duration,
}

/// How images are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteImages {
    Never,
    Https,
    /// Without TLS as well.
    Http,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A `tracing` filter such as `info` or `info,llm_server=debug`.
    pub level: String,
    /// Where answered requests are appended for `llm-server replay`.
    pub requests: Option<PathBuf>,
}

impl Config {
    /// The effective configuration as one line of JSON: fields in a fixed order, every default written out.
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with string keys")
    }
}

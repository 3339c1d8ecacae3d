//! The `engine` section: sizes, number formats, threads, and where the weights shall lie.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::field;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the file"
)]
pub struct EngineConfig {
    /// Tokens of context for each sequence.
    pub context: u32,
    pub overflow: Overflow,
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
    /// CPUs that the compute threads may run on, such as `0-7,16`.
    pub cpu_mask: Option<String>,
    pub numa: Numa,
    /// How long compute threads spin before they sleep, 0–100; `None` (`'auto`): long where a GPU waits for them.
    #[serde(with = "field::auto")]
    pub poll: Option<u32>,
    pub load: Load,
    /// Rearrange weights for the CPU's matrix kernels while loading.
    pub repack: bool,
    /// KV cache and attention on the GPU that holds the layer.
    pub offload_kqv: bool,
    /// Large batches over weights in host memory are computed on the GPU.
    pub op_offload: bool,
    pub placement: Placement,
    /// Workers that lend their devices, as `host:port`.
    pub rpc: Vec<String>,
    pub schedule: Schedule,
    pub speculate: Speculate,
    pub pooling: Pooling,
    /// The same request gets the same bits, whatever runs beside it or is cached.
    pub reproducible: bool,
    /// Accept `context` above the model's trained context.
    pub beyond_trained_context: bool,
}

/// What becomes of a request whose context is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It is refused, or ends.
    #[default]
    Error,
    /// A part of it is forgotten, and it goes on.
    Shift,
}

/// How sequences share the engine's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Longest gap in milliseconds between two tokens of a stream that a prompt beside it may cause; `None` (`'auto`):
    /// as it suits the machine.
    #[serde(with = "field::auto")]
    pub max_gap: Option<u32>,
}

/// How tokens are guessed before they are computed; the answer stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Speculate {
    /// From what followed the same tokens earlier in the sequence.
    pub ngram: bool,
    /// By a smaller model, named as in `models.lock`.
    pub draft: Option<String>,
    /// Where that lies: `CPU`, or a GPU by the engine's name; `None` (`'auto`): on a GPU if there is room.
    #[serde(with = "field::device")]
    pub draft_device: Option<String>,
    /// Number formats of its KV cache.
    pub draft_kv: KvConfig,
    /// By the prediction layers of the model's own file.
    pub mtp: Mtp,
    /// Most tokens guessed at once for a sequence; `None` (`'auto`): as it suits the model.
    #[serde(with = "field::auto")]
    pub most: Option<u32>,
}

/// Whether a model's own prediction layers guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtp {
    Off,
    On,
    /// Where the file has them and no draft model is named.
    Auto,
}

impl Speculate {
    /// Most tokens guessed at once for a sequence; `automatic` where that was left open.
    pub fn most(&self, automatic: u32) -> u32 {
        self.most.unwrap_or(automatic)
    }

    /// Whether a model may guess.
    pub fn drafts(&self) -> bool {
        self.draft.is_some() || self.mtp != Mtp::Off
    }

    /// Whether anybody may guess.
    pub fn is_on(&self) -> bool {
        self.ngram || self.drafts()
    }
}

/// How the vectors of a text's tokens become the answer of a model that embeds or ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// As the file's header says.
    Auto,
    /// Not at all: a vector for each token.
    None,
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// Through the model's classifier: a score.
    Rank,
}

/// What shall lie where. Each field that is not `auto` is kept and checked, the rest is fitted.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub gpu_layers: GpuLayers,
    pub cpu_moe_layers: CpuMoe,
    pub tensor_overrides: Vec<Override>,
    /// GPUs by the engine's names (`CUDA0`); `None` (`'auto`): every one. Empty: none.
    #[serde(with = "field::names")]
    pub devices: Option<Vec<String>>,
    pub split: Split,
    /// Share of each GPU; empty: as they fit.
    pub tensor_split: Vec<f32>,
    /// Position in `devices` of the one that does everything when `split` is `none`.
    pub main_gpu: u32,
    /// MiB left free on each GPU; `None` (`'auto`): what the engine needs beside its buffers.
    #[serde(with = "field::auto")]
    pub margin: Option<u32>,
    /// Tokens that the context may shrink to so that the model fits; `None` (`'context`): never.
    #[serde(with = "field::context")]
    pub min_context: Option<u32>,
}

/// How many of the model's layers live on GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuLayers {
    /// As many as fit.
    Auto,
    All,
    /// The last ones; the output counts as one.
    #[serde(untagged)]
    Count(u32),
}

/// How many layers, from the first, keep their experts on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuMoe {
    /// As few as possible.
    Auto,
    All,
    #[serde(untagged)]
    Count(u32),
}

/// Tensors whose name the expression matches lie on `device`, whatever else says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// A regular expression, searched for in the tensor's name.
    pub tensors: String,
    /// `CPU`, or a GPU by the engine's name.
    pub device: String,
}

/// How several GPUs share the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Whole layers.
    Layer,
    /// Each matrix by rows.
    Row,
    /// Not at all: one GPU does everything.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Numa {
    Off,
    Distribute,
    Isolate,
    Numactl,
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

impl Serialize for Mtp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => to.serialize_bool(false),
            Self::On => to.serialize_bool(true),
            Self::Auto => to.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for Mtp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelled {
            Switch(bool),
            Tag(String),
        }
        match Spelled::deserialize(from)? {
            Spelled::Switch(false) => Ok(Self::Off),
            Spelled::Switch(true) => Ok(Self::On),
            Spelled::Tag(tag) if tag == "auto" => Ok(Self::Auto),
            Spelled::Tag(other) => Err(D::Error::custom(format!(
                "expected true, false or \"auto\", got {other:?}"
            ))),
        }
    }
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

    /// Elements and bytes of one block of the format.
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q5_1 => (32, 24),
            Self::Q5_0 => (32, 22),
            Self::Q4_1 => (32, 20),
            Self::Q4_0 => (32, 18),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    Auto,
    On,
    Off,
}

/// How weights come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Mapped; what a GPU fetches from host memory is locked.
    Auto,
    Mmap,
    /// Read.
    None,
    /// Mapped and locked.
    Mlock,
    /// Read past the page cache.
    Direct,
}

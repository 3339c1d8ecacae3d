//! What lies where: the result of a fit, as data for tables, pictures, `/props` and the log. All sizes are bytes.

use serde::Serialize;

use crate::{
    config::{KvConfig, Load, Numa, Split},
    engine::{llama::Gpu, task::Task},
};

/// Where every weight, cache and buffer goes, and what that leaves free.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub model: Facts,
    /// Tokens of context for each sequence; less than configured when `min_context` let it shrink.
    pub context: u32,
    pub parallel: u32,
    pub kv: KvConfig,
    pub batch: u32,
    pub ubatch: u32,
    pub flash_attention: bool,
    pub threads: u32,
    pub threads_batch: u32,
    pub load: Load,
    /// GPUs in the engine's order, then the host's memory.
    pub devices: Vec<Device>,
    /// One for each layer of the model, then the output.
    pub layers: Vec<Layer>,
    pub settings: Settings,
    /// The model that guesses, with devices of its own account: what it takes is [`Device::draft`] of this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<Box<Plan>>,
}

/// What the header of the model's file says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// `general.name`, or the file's name.
    pub name: String,
    pub architecture: String,
    /// Of all tensors.
    pub weight_bytes: u64,
    pub layers: u32,
    /// 0: not a mixture of experts.
    pub experts: u32,
    pub experts_used: u32,
    /// Tokens; 0: the file does not say.
    pub trained_context: u32,
}

/// One device's memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// The engine's name, such as `CUDA0`; `host` for the machine's memory.
    pub name: String,
    pub description: String,
    pub total: u64,
    /// Before anything of this plan is there.
    pub free: u64,
    pub weights: Weights,
    /// Of all sequences.
    pub kv: Cache,
    /// Activations of the largest step.
    pub compute: u64,
    /// Vision or audio projector.
    pub projector: u64,
    /// LoRA adapters, which lie beside the weights that they change.
    pub adapters: u64,
    /// Draft model or prediction heads: weights, cache and buffers.
    pub draft: u64,
    /// To be left free: what the engine's kernels take beside the buffers above, and what the user asked for.
    pub margin: u64,
}

/// Weights of one device by what they are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Weights {
    pub attention: u64,
    /// Feed-forward parts that every token passes: dense ones, shared experts, routers, norms.
    pub dense: u64,
    pub experts: u64,
    pub embeddings: u64,
    pub output: u64,
}

/// Memory that grows with the context, and the states that do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub keys: u64,
    pub values: u64,
    /// Recurrent states and caches of a fixed window.
    pub state: u64,
}

/// What of one layer lies where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// `0`, `1`, …; `output` for the last.
    pub name: String,
    /// The device that computes the layer.
    pub device: String,
    pub place: Place,
    /// Tensors that lie elsewhere than on `device`.
    pub elsewhere: Vec<Elsewhere>,
    pub bytes: u64,
}

/// A layer at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// All on a GPU.
    Gpu,
    /// On a GPU, some expert tensors on the CPU.
    SomeExpertsOnCpu,
    /// On a GPU, all expert tensors on the CPU.
    ExpertsOnCpu,
    /// On a GPU, other tensors than its experts elsewhere.
    Mixed,
    Cpu,
}

/// A tensor away from its layer's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// Without the layer's prefix, such as `ffn_down_exps.weight`.
    pub tensor: String,
    pub device: String,
    pub bytes: u64,
}

/// What is handed to the engine: the placement with nothing left to fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of llama.cpp"
)]
pub struct Settings {
    pub task: Task,
    pub devices: Vec<String>,
    /// Layers on GPUs, the output counted as one.
    pub gpu_layers: u32,
    pub split: Split,
    /// Layers of each GPU, in the order of `devices`.
    pub tensor_split: Vec<f32>,
    pub main_gpu: u32,
    /// Tried in order; the first that matches a tensor's name counts.
    pub overrides: Vec<crate::config::Override>,
    pub offload_kqv: bool,
    pub op_offload: bool,
    pub repack: bool,
    pub numa: Numa,
    /// Whether the model's prediction layers are loaded, and guess.
    pub mtp: bool,
}

impl Plan {
    pub fn uses_gpu(&self) -> bool {
        self.settings.gpu_layers > 0 && !self.settings.devices.is_empty()
    }

    /// The GPU that the projector works on; `None`: the CPU.
    pub fn projector_gpu(&self) -> Option<&str> {
        let holds = |device: &&Device| device.is_gpu() && device.projector > 0;
        self.devices
            .iter()
            .find(holds)
            .map(|device| device.name.as_str())
    }

    /// What this plan, of a model that guesses for another one, takes of that one's devices: GPUs by name, the host last.
    pub(super) fn beside(&self, gpus: &[Gpu]) -> Vec<u64> {
        let names = gpus.iter().map(|gpu| gpu.name.as_str()).chain([HOST]);
        let used = |name: &str| {
            let own = self.devices.iter().filter(|device| device.name == name);
            own.map(Device::used).sum()
        };
        names.map(used).collect()
    }

    /// How many GPUs hold a part of the model.
    pub fn gpus(&self) -> usize {
        let used = |device: &&Device| device.is_gpu() && device.used() > 0;
        self.devices.iter().filter(used).count()
    }

    /// Whether mapped weights of layers are to be locked so that a GPU reads them directly.
    pub fn pins(&self) -> bool {
        let host = |device: &Device| {
            let Weights {
                experts,
                dense,
                attention,
                ..
            } = device.weights;
            !device.is_gpu() && experts + dense + attention > 0
        };
        self.uses_gpu()
            && self.load == Load::Mmap
            && self.settings.op_offload
            && self.devices.iter().any(host)
    }
}

impl Device {
    /// All that the plan puts here.
    pub fn used(&self) -> u64 {
        let beside = self.projector + self.adapters + self.draft;
        self.weights.total() + self.kv.total() + self.compute + beside
    }

    /// Free memory beyond the plan and its margin; negative: that much is missing.
    pub fn left(&self) -> i64 {
        signed(self.free) - signed(self.used()) - signed(self.margin)
    }

    pub fn is_gpu(&self) -> bool {
        self.name != HOST
    }
}

/// The name of the machine's own memory in a plan.
pub const HOST: &str = "host";

impl Weights {
    pub fn total(&self) -> u64 {
        self.attention + self.dense + self.experts + self.embeddings + self.output
    }
}

impl Cache {
    pub fn total(&self) -> u64 {
        self.keys + self.values + self.state
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

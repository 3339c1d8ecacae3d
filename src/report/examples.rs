//! Plans made by hand for the tests of everything that shows one.

use crate::{
    config::{KvConfig, KvType, Load, Numa, Override, Split},
    engine::{
        fit::{Cache, Device, Elsewhere, Facts, HOST, Layer, Place, Plan, Settings, Weights},
        task::Task,
    },
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// SmolLM2-135M on a machine with nothing but its memory.
pub(crate) fn laptop() -> Plan {
    let mut host = device(
        HOST,
        "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz",
        8 * GIB,
        5200 * MIB,
    );
    host.weights = Weights {
        attention: 20 * MIB,
        dense: 44 * MIB,
        experts: 0,
        embeddings: 29 * MIB,
        output: 0,
    };
    host.kv = cache(360 * MIB);
    host.compute = 98 * MIB;
    Plan {
        devices: vec![host],
        layers: layers(30, 2 * MIB, |_| (HOST, Place::Cpu)),
        ..plan("SmolLM2 135M Instruct", "llama", 93 * MIB, 30)
    }
}

/// Qwen3.5-35B-A3B on a card of 16 GB: experts of layers 0–23 on the CPU, and one tensor of layer 24.
pub(crate) fn experts_on_the_cpu() -> Plan {
    let mut gpu = device(
        "CUDA0",
        "NVIDIA GeForce RTX 4080 SUPER",
        16_376 * MIB,
        15_870 * MIB,
    );
    gpu.weights = Weights {
        attention: 1115 * MIB,
        dense: 402 * MIB,
        experts: 7560 * MIB,
        embeddings: 0,
        output: 398 * MIB,
    };
    gpu.kv = Cache {
        keys: 340 * MIB,
        values: 340 * MIB,
        state: 251 * MIB,
    };
    gpu.compute = 812 * MIB;
    gpu.margin = 700 * MIB;
    let mut host = device(
        HOST,
        "AMD Ryzen 9 7950X 16-Core Processor",
        62 * GIB,
        57 * GIB,
    );
    host.weights = Weights {
        experts: 11_988 * MIB,
        embeddings: 273 * MIB,
        ..Weights::default()
    };
    host.compute = 37 * MIB;
    let mut layers = layers(40, 531 * MIB, |at| match at {
        0..24 => ("CUDA0", Place::ExpertsOnCpu),
        24 => ("CUDA0", Place::SomeExpertsOnCpu),
        _ => ("CUDA0", Place::Gpu),
    });
    for layer in &mut layers[..24] {
        layer.elsewhere = [
            "ffn_gate_exps.weight",
            "ffn_up_exps.weight",
            "ffn_down_exps.weight",
        ]
        .map(|tensor| on_host(tensor, 164 * MIB))
        .to_vec();
    }
    layers[24].elsewhere = vec![on_host("ffn_down_exps.weight", 180 * MIB)];
    Plan {
        model: Facts {
            experts: 256,
            experts_used: 8,
            trained_context: 262_144,
            ..plan("Qwen3.5-35B-A3B", "qwen35moe", 21_736 * MIB, 40).model
        },
        context: 65_536,
        parallel: 1,
        kv: KvConfig {
            k: KvType::Q8_0,
            v: KvType::Q8_0,
        },
        threads: 14,
        threads_batch: 16,
        load: Load::None,
        devices: vec![gpu, host],
        layers,
        ..plan("", "", 0, 0)
    }
}

/// A dense model over two cards, of which the second is too small by 300 MiB.
pub(crate) fn two_gpus() -> Plan {
    let card = |name, free| {
        let mut gpu = device(name, "NVIDIA RTX A5000", 24_564 * MIB, free);
        gpu.weights.attention = 4200 * MIB;
        gpu.weights.dense = 15_900 * MIB;
        gpu.kv = cache(2560 * MIB);
        gpu.compute = 584 * MIB;
        gpu.margin = 640 * MIB;
        gpu
    };
    let mut host = device(HOST, "Intel(R) Xeon(R) w5-3435X", 128 * GIB, 121 * GIB);
    host.weights.embeddings = 563 * MIB;
    host.compute = 24 * MIB;
    let (mut first, mut second) = (card("CUDA0", 24_260 * MIB), card("CUDA1", 24_404 * MIB));
    first.projector = 12 * MIB;
    second.weights.output = 822 * MIB;
    second.free = second.used() + second.margin - 300 * MIB;
    let mut layers = layers(80, 502 * MIB, |at| match at {
        0..40 => ("CUDA0", Place::Gpu),
        _ => ("CUDA1", Place::Gpu),
    });
    layers[80].device = "CUDA1".to_owned();
    Plan {
        devices: vec![first, second, host],
        layers,
        ..plan("Llama 3.3 70B Instruct", "llama", 41_585 * MIB, 80)
    }
}

/// What tensor overrides can lead to, under a name that is not made for XML.
pub(crate) fn by_hand() -> Plan {
    let mut plan = experts_on_the_cpu();
    plan.model.name = "R&D <\"35B\">\u{7}".to_owned();
    plan.layers[3].place = Place::Mixed;
    plan.layers[3].elsewhere = vec![on_host("attn_k.weight", MIB), on_host("attn_k.bias", 1)];
    plan.layers[5].place = Place::Cpu;
    plan.layers[5].device = HOST.to_owned();
    plan.layers[5].elsewhere.clear();
    plan.layers[40].place = Place::Mixed;
    plan.layers[40].elsewhere = vec![on_host("output.weight", 398 * MIB)];
    plan
}

fn on_host(tensor: &str, bytes: u64) -> Elsewhere {
    Elsewhere {
        tensor: tensor.to_owned(),
        device: HOST.to_owned(),
        bytes,
    }
}

fn cache(total: u64) -> Cache {
    Cache {
        keys: total / 2,
        values: total / 2,
        state: 0,
    }
}

fn device(name: &str, description: &str, total: u64, free: u64) -> Device {
    Device {
        name: name.to_owned(),
        description: description.to_owned(),
        total,
        free,
        weights: Weights::default(),
        kv: Cache::default(),
        compute: 0,
        projector: 0,
        adapters: 0,
        draft: 0,
        margin: 0,
    }
}

/// `count` layers, then the output, which lies where the last of them does.
fn layers(count: u32, bytes: u64, place: impl Fn(u32) -> (&'static str, Place)) -> Vec<Layer> {
    let layer = |name: String, at| {
        let (device, place) = place(at);
        Layer {
            name,
            device: device.to_owned(),
            place,
            elsewhere: Vec::new(),
            bytes,
        }
    };
    (0..count)
        .map(|at| layer(at.to_string(), at))
        .chain([layer("output".to_owned(), count - 1)])
        .collect()
}

fn plan(name: &str, architecture: &str, weight_bytes: u64, layers: u32) -> Plan {
    Plan {
        model: Facts {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            weight_bytes,
            layers,
            experts: 0,
            experts_used: 0,
            trained_context: 8192,
        },
        context: 4096,
        parallel: 4,
        kv: KvConfig {
            k: KvType::F16,
            v: KvType::F16,
        },
        batch: 2048,
        ubatch: 512,
        flash_attention: true,
        threads: 4,
        threads_batch: 4,
        load: Load::Mmap,
        devices: Vec::new(),
        layers: Vec::new(),
        settings: Settings {
            task: Task::Generate,
            devices: Vec::new(),
            gpu_layers: 0,
            split: Split::Layer,
            tensor_split: Vec::new(),
            main_gpu: 0,
            overrides: vec![Override {
                tensors: r"blk\.0\.ffn_up_exps".to_owned(),
                device: "CPU".to_owned(),
            }],
            offload_kqv: true,
            op_offload: true,
            repack: true,
            numa: Numa::Off,
            mtp: false,
        },
        draft: None,
    }
}

//! A placement as it is told outside: JSON for `/props` and `plan --json`, and the log's lines at start.

mod places;
mod size;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

pub use places::sentences;
pub use size::size;

use crate::engine::{
    fit::{self, Plan},
    llama::Buffer,
};

/// The plan's fields, and for each device the sums `used` and `left` (negative: that much is missing). Bytes.
pub fn json(plan: &Plan) -> Value {
    #[derive(Serialize)]
    struct Sums<'a> {
        #[serde(flatten)]
        device: &'a fit::Device,
        used: u64,
        left: i64,
    }
    let devices: Vec<_> = plan
        .devices
        .iter()
        .map(|device| Sums {
            used: device.used(),
            left: device.left(),
            device,
        })
        .collect();
    let mut value = json!(plan);
    value["devices"] = json!(devices);
    value
}

/// The buffers that were really made.
#[derive(Debug, Clone, Default)]
pub struct Allocated {
    pub model: Vec<Buffer>,
    /// Of what guesses for the model.
    pub draft: Vec<Buffer>,
}

/// What model and context then took of each device, beside what was planned: `allocated` of each device in [`json`].
/// Mapped weights count as the whole range of the file that holds them.
pub fn json_allocated(plan: &Plan, allocated: &Allocated) -> Value {
    let mut value = json(plan);
    for (at, device) in plan.devices.iter().enumerate() {
        let (model, draft) = (
            taken(device, &allocated.model),
            taken(device, &allocated.draft),
        );
        value["devices"][at]["allocated"] = json!({
            "weights": model.weights,
            "cache": model.cache,
            "compute": model.compute,
            "draft": draft.total(),
        });
    }
    value
}

/// Logs what was planned and what was taken, a line a device.
pub fn log_allocated(plan: &Plan, allocated: &Allocated) {
    for device in &plan.devices {
        let taken = taken(device, &allocated.model);
        info!(
            device = device.name,
            weights_mib = mib(taken.weights),
            planned_weights_mib = mib(device.weights.total()),
            kv_mib = mib(taken.cache),
            planned_kv_mib = mib(device.kv.total()),
            compute_mib = mib(taken.compute),
            planned_compute_mib = mib(device.compute),
            draft_mib = mib(self::taken(device, &allocated.draft).total()),
            planned_draft_mib = mib(device.draft),
            "memory allocated"
        );
    }
}

/// Bytes that were really allocated on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    weights: u64,
    cache: u64,
    compute: u64,
}

impl Taken {
    fn total(self) -> u64 {
        self.weights + self.cache + self.compute
    }
}

fn taken(device: &fit::Device, buffers: &[Buffer]) -> Taken {
    buffers
        .iter()
        .filter(|buffer| {
            if device.is_gpu() {
                !buffer.host && buffer.device == device.name
            } else {
                buffer.host
            }
        })
        .fold(Taken::default(), |sum, buffer| Taken {
            weights: sum.weights + buffer.weights,
            cache: sum.cache + buffer.cache,
            compute: sum.compute + buffer.compute,
        })
}

/// Logs what lies where: a line a device, and one on the layers.
pub fn log(plan: &Plan) {
    for device in &plan.devices {
        info!(
            device = device.name,
            weights_mib = mib(device.weights.total()),
            kv_mib = mib(device.kv.total()),
            compute_mib = mib(device.compute),
            beside_mib = mib(device.projector + device.adapters + device.draft),
            margin_mib = mib(device.margin),
            // Rounded down, also below zero: what is missing is never told too small.
            left_mib = device.left().div_euclid(1 << 20),
            "memory planned"
        );
    }
    info!(
        context = plan.context,
        parallel = plan.parallel,
        threads = plan.threads,
        "{}",
        sentences(plan).join("; ")
    );
}

/// Rounded up: what is taken is never told too small.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
pub(crate) mod examples;

#[cfg(test)]
mod tests {
    use super::{examples, *};

    #[test]
    fn the_json_of_a_device_has_its_sums() {
        let plan = examples::experts_on_the_cpu();
        let json = json(&plan);
        for (device, told) in plan.devices.iter().zip(json["devices"].as_array().unwrap()) {
            assert_eq!(told["name"], device.name);
            assert_eq!(told["used"], device.used());
            assert_eq!(told["left"], device.left());
        }
        assert_eq!(json["layers"][24]["place"], "some_experts_on_cpu");
        assert_eq!(json["kv"]["k"], "q8_0");
    }

    #[test]
    fn the_log_has_a_line_a_device_and_one_on_the_layers() {
        let text = crate::log::captured(|| log(&examples::experts_on_the_cpu()));
        insta::assert_snapshot!(text, @r#"
        INFO llm_server::report: memory planned device="CUDA0" weights_mib=9475 kv_mib=931 compute_mib=812 beside_mib=0 margin_mib=700 left_mib=3952
        INFO llm_server::report: memory planned device="host" weights_mib=12261 kv_mib=0 compute_mib=37 beside_mib=0 margin_mib=0 left_mib=46070
        INFO llm_server::report: layers 0–39 and the output → CUDA0; experts of layers 0–23 → host (11.5 GiB); ffn_down_exps of layer 24 → host (180 MiB) context=65536 parallel=1 threads=14
        "#);
    }
}

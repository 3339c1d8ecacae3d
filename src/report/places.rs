//! Which layers and which of their tensors lie where, in sentences with ranges in place of lists.

use super::size;
use crate::engine::fit::{HOST, Layer, Place, Plan};

/// First where the layers are computed, such as `layers 0–39 and the output → CUDA0`, then what of them
/// lies elsewhere, such as `experts of layers 0–23 → host (11.3 GiB)`.
pub fn sentences(plan: &Plan) -> Vec<String> {
    let mut sentences = Vec::new();
    for device in &plan.devices {
        let layers: Vec<_> = plan
            .layers
            .iter()
            .filter(|layer| layer.device == device.name)
            .collect();
        if !layers.is_empty() {
            sentences.push(format!("{} → {}", these(&layers), device.name));
        }
    }
    sentences.extend(away(plan).iter().map(Away::sentence));
    sentences
}

/// Layers with the same tensors on the same device, which is not the layers' own.
struct Away<'a> {
    tensors: String,
    device: &'a str,
    layers: Vec<&'a Layer>,
    bytes: u64,
}

impl Away<'_> {
    fn sentence(&self) -> String {
        let Self {
            tensors, device, ..
        } = self;
        let bytes = size(self.bytes);
        // The output's own tensors say by their names that they are its.
        if self.layers.iter().all(|layer| number(layer).is_none()) {
            return format!("{tensors} → {device} ({bytes})");
        }
        format!("{tensors} of {} → {device} ({bytes})", these(&self.layers))
    }
}

fn away(plan: &Plan) -> Vec<Away<'_>> {
    let mut groups: Vec<Away<'_>> = Vec::new();
    for layer in &plan.layers {
        for device in plan.devices.iter().map(|device| device.name.as_str()) {
            let moved: Vec<_> = layer
                .elsewhere
                .iter()
                .filter(|tensor| tensor.device == device)
                .collect();
            if moved.is_empty() {
                continue;
            }
            let tensors = if layer.place == Place::ExpertsOnCpu && device == HOST {
                "experts".to_owned()
            } else {
                let names: Vec<_> = moved.iter().map(|tensor| short(&tensor.tensor)).collect();
                names.join(", ")
            };
            let bytes = moved.iter().map(|tensor| tensor.bytes).sum::<u64>();
            match groups
                .iter_mut()
                .find(|group| group.device == device && group.tensors == tensors)
            {
                Some(group) => {
                    group.layers.push(layer);
                    group.bytes += bytes;
                }
                None => groups.push(Away {
                    tensors,
                    device,
                    layers: vec![layer],
                    bytes,
                }),
            }
        }
    }
    groups
}

/// Nearly every tensor is a `.weight`.
fn short(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

/// `layer 3`, `layers 0–3, 7 and the output`, `the output`.
fn these(layers: &[&Layer]) -> String {
    let numbers: Vec<u32> = layers.iter().filter_map(|layer| number(layer)).collect();
    let mut parts = Vec::new();
    match numbers.as_slice() {
        [] => {}
        [one] => parts.push(format!("layer {one}")),
        several => parts.push(format!("layers {}", ranges(several))),
    }
    let others = layers.iter().filter(|layer| number(layer).is_none());
    parts.extend(others.map(|layer| format!("the {}", layer.name)));
    parts.join(" and ")
}

/// `None`: the output.
fn number(layer: &Layer) -> Option<u32> {
    layer.name.parse().ok()
}

/// `0–3, 7, 9–10` of rising numbers.
fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let texts: Vec<_> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}–{last}"),
            run => run.iter().map(u32::to_string).collect(),
        })
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn neighbours_become_ranges_and_the_rest_stays_alone() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0–2, 5, 7–8");
        assert_eq!(ranges(&[4]), "4");
    }

    #[test]
    fn layers_that_keep_the_same_tensors_elsewhere_share_a_sentence() {
        insta::assert_snapshot!(sentences(&examples::experts_on_the_cpu()).join("\n"), @"
        layers 0–39 and the output → CUDA0
        experts of layers 0–23 → host (11.5 GiB)
        ffn_down_exps of layer 24 → host (180 MiB)
        ");
        insta::assert_snapshot!(sentences(&examples::two_gpus()).join("\n"), @"
        layers 0–39 → CUDA0
        layers 40–79 and the output → CUDA1
        ");
        insta::assert_snapshot!(sentences(&examples::laptop()).join("\n"), @"layers 0–29 and the output → host");
        insta::assert_snapshot!(sentences(&examples::by_hand()).join("\n"), @"
        layers 0–4, 6–39 and the output → CUDA0
        layer 5 → host
        experts of layers 0–2, 4, 6–23 → host (10.6 GiB)
        attn_k, attn_k.bias of layer 3 → host (1.00 MiB)
        ffn_down_exps of layer 24 → host (180 MiB)
        output → host (398 MiB)
        ");
    }
}

//! Which tensor is for what, and on which device a placement puts it (pure).

use std::collections::BTreeMap;

use super::{Elsewhere, HOST, Layer, Place, Settings, Weights};
use crate::{
    config::{Mtp, Override},
    engine::{
        gguf::{Header, Tensor},
        task,
    },
};

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Attention,
    Dense,
    Experts,
    Embeddings,
    Output,
}

/// A tensor that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) class: Class,
    /// The block it belongs to.
    pub(super) layer: Option<u32>,
    /// The device that the user's overrides name: `CPU` or a GPU.
    pub(super) pinned: Option<String>,
}

/// Where a tensor lies: a GPU by its position in [`Settings::devices`], or the host.
pub(super) type At = Option<usize>;

/// The tensors that the engine will load; prediction layers only where they guess.
pub(super) fn parts(header: &Header, mtp: Mtp) -> Vec<Part> {
    let blocks = match mtp {
        Mtp::On => header.layers,
        Mtp::Off | Mtp::Auto => header.layers - header.prediction_layers,
    };
    let mut parts: Vec<_> = header
        .tensors
        .iter()
        .map(part)
        .filter(|part| part.layer.is_none_or(|layer| layer < blocks))
        .collect();
    // Tied embeddings: the engine makes a second copy of them for the output, if there is one.
    if !task::only_encodes(header)
        && !parts.iter().any(|part| part.name == "output.weight")
        && let Some(embeddings) = parts.iter().find(|part| part.name == "token_embd.weight")
    {
        let copy = Part {
            class: Class::Output,
            ..embeddings.clone()
        };
        parts.push(copy);
    }
    parts
}

fn part(tensor: &Tensor) -> Part {
    let name = tensor.name.as_str();
    let inside = name.strip_prefix("blk.").and_then(|rest| {
        let (layer, rest) = rest.split_once('.')?;
        Some((layer.parse::<u32>().ok()?, rest))
    });
    let class = match inside {
        Some((_, rest)) if is_expert(rest) => Class::Experts,
        Some((_, rest)) if rest.starts_with("attn") || rest.starts_with("ssm") => Class::Attention,
        Some(_) => Class::Dense,
        None if name.starts_with("output") || name.starts_with("cls") => Class::Output,
        None => Class::Embeddings,
    };
    Part {
        name: name.to_owned(),
        bytes: tensor.bytes,
        class,
        layer: inside.map(|(layer, _)| layer),
        pinned: None,
    }
}

/// Matrices of routed experts: `ffn_down_exps.weight`, not the norm before them, nor shared experts (`_shexp`).
fn is_expert(local: &str) -> bool {
    let group = local.split('.').next().unwrap_or_default();
    (group.ends_with("_exps") || group.ends_with("_chexps")) && !group.contains("norm")
}

impl Part {
    /// The name without its layer: `ffn_down_exps.weight`.
    pub(super) fn local_name(&self) -> &str {
        let rest = self.name.strip_prefix("blk.").unwrap_or(&self.name);
        match (self.layer, rest.split_once('.')) {
            (Some(_), Some((_, local))) => local,
            _ => &self.name,
        }
    }

    /// Whether this is the second copy of tied embeddings.
    pub(super) fn is_copy(&self) -> bool {
        self.class == Class::Output && self.name == "token_embd.weight"
    }

    /// What moves as one: `ffn_down_exps`, its biases and scales included.
    pub(super) fn group(&self) -> &str {
        let local = self.local_name();
        local.split_once('.').map_or(local, |(group, _)| group)
    }
}

/// The device of each layer and, last, of the output, as llama.cpp assigns them.
pub(super) fn layer_devices(blocks: u32, settings: &Settings) -> Vec<At> {
    let all = blocks + 1;
    let on_gpu = settings.gpu_layers.min(all);
    let gpus = settings.devices.len();
    let first = all - on_gpu;
    let shares: Vec<f32> = (0..gpus)
        .map(|at| settings.tensor_split.get(at).copied().unwrap_or(0.0))
        .collect();
    let sum: f32 = shares.iter().sum();
    (0..all)
        .map(|layer| {
            if gpus == 0 || layer < first {
                return None;
            }
            if settings.split == crate::config::Split::None {
                return Some(0);
            }
            #[expect(clippy::cast_precision_loss, reason = "layers are few")]
            let place = (layer - first) as f32 / on_gpu as f32;
            let mut upto = 0.0;
            let at = shares.iter().position(|share| {
                upto += share;
                upto / sum > place
            });
            Some(at.unwrap_or(gpus - 1))
        })
        .collect()
}

/// Where each part lies under `settings`, given the groups of experts that are moved to the host.
pub(super) fn places(parts: &[Part], blocks: u32, settings: &Settings, moved: &Moved) -> Vec<At> {
    let devices = layer_devices(blocks, settings);
    let output = devices.last().copied().flatten();
    parts
        .iter()
        .map(|part| match (&part.pinned, part.class, part.layer) {
            (Some(device), ..) => settings.devices.iter().position(|name| name == device),
            (None, Class::Embeddings, _) => None,
            (None, ..) if moved.has(part) => None,
            (None, _, Some(layer)) => devices.get(layer as usize).copied().flatten(),
            (None, _, None) => output,
        })
        .collect()
}

/// Groups of expert tensors that are kept in host memory although their layer is on a GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Moved(BTreeMap<u32, Vec<String>>);

impl Moved {
    pub(super) fn insert(&mut self, layer: u32, group: &str) {
        let groups = self.0.entry(layer).or_default();
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
            groups.sort_unstable();
        }
    }

    /// Whether the group that `part` belongs to is moved; where the user pinned `part` itself, that counts.
    pub(super) fn has(&self, part: &Part) -> bool {
        let groups = part.layer.and_then(|layer| self.0.get(&layer));
        part.class == Class::Experts
            && groups.is_some_and(|groups| groups.iter().any(|group| group == part.group()))
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// As overrides, few because llama.cpp holds every tensor against every one of them.
    pub(super) fn overrides(&self) -> Vec<Override> {
        let mut layers_of: BTreeMap<&[String], Vec<String>> = BTreeMap::new();
        for (layer, groups) in &self.0 {
            layers_of.entry(groups).or_default().push(layer.to_string());
        }
        layers_of
            .iter()
            .map(|(groups, layers)| Override {
                tensors: format!(r"^blk\.({})\.({})\.", layers.join("|"), groups.join("|")),
                device: "CPU".into(),
            })
            .collect()
    }
}

/// Bytes of all weights; tied embeddings count once.
pub(super) fn weight_bytes(parts: &[Part]) -> u64 {
    let own = parts.iter().filter(|part| !part.is_copy());
    own.map(|part| part.bytes).sum()
}

/// Weights of each GPU by class, the host's last.
pub(super) fn weights(parts: &[Part], places: &[At], gpus: usize) -> Vec<Weights> {
    let mut sums = vec![Weights::default(); gpus + 1];
    for (part, at) in parts.iter().zip(places) {
        let sum = &mut sums[at.unwrap_or(gpus)];
        *match part.class {
            Class::Attention => &mut sum.attention,
            Class::Dense => &mut sum.dense,
            Class::Experts => &mut sum.experts,
            Class::Embeddings => &mut sum.embeddings,
            Class::Output => &mut sum.output,
        } += part.bytes;
    }
    // The copy of tied embeddings takes nothing where the embeddings themselves lie.
    let place = |copy: bool| {
        let found = parts.iter().zip(places);
        found
            .filter(|(part, _)| part.name == "token_embd.weight" && part.is_copy() == copy)
            .map(|(part, at)| (at.unwrap_or(gpus), part.bytes))
            .next()
    };
    if let Some((at, bytes)) = place(true)
        && place(false).is_some_and(|(embeddings, _)| embeddings == at)
    {
        sums[at].output -= bytes;
    }
    sums
}

/// What of each layer lies where; the output last.
pub(super) fn layers(
    parts: &[Part],
    places: &[At],
    blocks: u32,
    settings: &Settings,
) -> Vec<Layer> {
    let name = |at: At| {
        at.map_or(HOST, |at| settings.devices[at].as_str())
            .to_owned()
    };
    layer_devices(blocks, settings)
        .into_iter()
        .enumerate()
        .map(|(at, device)| {
            let output = at == blocks as usize;
            let own: Vec<_> = parts
                .iter()
                .zip(places)
                .filter(|(part, _)| match part.layer {
                    Some(layer) => !output && layer as usize == at,
                    None => output && part.class == Class::Output,
                })
                .collect();
            let away: Vec<_> = own.iter().filter(|(_, place)| **place != device).collect();
            let experts = own.iter().filter(|(part, _)| part.class == Class::Experts);
            let place = match device {
                None => Place::Cpu,
                Some(_) if away.is_empty() => Place::Gpu,
                Some(_)
                    if away
                        .iter()
                        .any(|(part, place)| part.class != Class::Experts || place.is_some()) =>
                {
                    Place::Mixed
                }
                Some(_) if away.len() == experts.count() => Place::ExpertsOnCpu,
                Some(_) => Place::SomeExpertsOnCpu,
            };
            Layer {
                name: if output {
                    "output".into()
                } else {
                    at.to_string()
                },
                device: name(device),
                place,
                elsewhere: away
                    .iter()
                    .map(|(part, place)| Elsewhere {
                        tensor: part.local_name().to_owned(),
                        device: name(**place),
                        bytes: part.bytes,
                    })
                    .collect(),
                bytes: own.iter().map(|(part, _)| part.bytes).sum(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;

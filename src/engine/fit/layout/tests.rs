//! Layers, groups and overrides against llama.cpp's own rules.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{Numa, Split},
    engine::{
        fit::search::machine::{self, World},
        llama,
        task::Task,
    },
};

fn settings(gpus: usize, gpu_layers: u32, tensor_split: Vec<f32>) -> Settings {
    Settings {
        task: Task::Generate,
        devices: (0..gpus).map(|at| format!("CUDA{at}")).collect(),
        gpu_layers,
        split: Split::Layer,
        tensor_split,
        main_gpu: 0,
        overrides: Vec::new(),
        offload_kqv: true,
        op_offload: true,
        repack: true,
        numa: Numa::Off,
        mtp: false,
    }
}

fn one(name: &str) -> Part {
    part(&Tensor {
        name: name.into(),
        bytes: 1,
    })
}

#[test]
fn tensors_are_told_by_their_names() {
    for (name, class, group) in [
        ("blk.0.attn_q.weight", Class::Attention, "attn_q"),
        ("blk.0.ssm_out.weight", Class::Attention, "ssm_out"),
        (
            "blk.12.ffn_down_exps.weight",
            Class::Experts,
            "ffn_down_exps",
        ),
        ("blk.12.ffn_down_exps.bias", Class::Experts, "ffn_down_exps"),
        (
            "blk.12.ffn_down_exps.scale",
            Class::Experts,
            "ffn_down_exps",
        ),
        (
            "blk.1.ffn_gate_up_exps.weight",
            Class::Experts,
            "ffn_gate_up_exps",
        ),
        (
            "blk.1.ffn_up_chexps.weight",
            Class::Experts,
            "ffn_up_chexps",
        ),
        ("blk.1.ffn_up_shexp.weight", Class::Dense, "ffn_up_shexp"),
        ("blk.1.ffn_norm_exps.weight", Class::Dense, "ffn_norm_exps"),
        ("blk.1.ffn_gate_inp.weight", Class::Dense, "ffn_gate_inp"),
        ("blk.1.exp_probs_b.bias", Class::Dense, "exp_probs_b"),
        ("output.weight", Class::Output, "output"),
        ("output_norm.weight", Class::Output, "output_norm"),
        ("token_embd.weight", Class::Embeddings, "token_embd"),
        ("rope_freqs.weight", Class::Embeddings, "rope_freqs"),
    ] {
        let part = one(name);
        assert_eq!((part.class, part.group()), (class, group), "{name}");
    }
    assert_eq!(one("blk.12.ffn_up.weight").layer, Some(12));
    assert_eq!(one("blk.12.ffn_up.weight").local_name(), "ffn_up.weight");
    assert_eq!(one("output.weight").layer, None);
}

#[test]
fn prediction_heads_are_not_loaded() {
    let mut world = World::dense(4, &[]);
    world.header.prediction_layers = 1;
    let parts = parts(&world.header, Mtp::Off);
    assert!(
        parts
            .iter()
            .all(|part| part.layer.is_none_or(|layer| layer < 3))
    );
    assert_eq!(parts.len(), 2 + 3 * 3);
}

#[test]
fn tied_embeddings_take_memory_twice_only_where_the_output_lies_elsewhere() {
    let mut world = World::dense(2, &[1000]);
    world
        .header
        .tensors
        .retain(|tensor| tensor.name != "output.weight");
    let mut parts = parts(&world.header, Mtp::Off);
    let bytes = 40 << 20;
    let sum = |parts: &[Part], gpu_layers| {
        let settings = settings(1, gpu_layers, vec![1.0]);
        let places = places(parts, 2, &settings, &Moved::default());
        let weights = weights(parts, &places, 1);
        [0, 1].map(|at| (weights[at].embeddings, weights[at].output))
    };
    assert_eq!(sum(&parts, 0), [(0, 0), (bytes, 0)]);
    assert_eq!(sum(&parts, 1), [(0, bytes), (bytes, 0)]);
    // An override names both, because both have the same name.
    for part in parts
        .iter_mut()
        .filter(|part| part.name == "token_embd.weight")
    {
        part.pinned = Some("CUDA0".into());
    }
    assert_eq!(sum(&parts, 0), [(bytes, 0), (0, 0)]);
}

#[test]
fn a_layer_is_called_by_what_of_it_lies_elsewhere() {
    let mut world = World::moe(6, &[1000, 1000]);
    world.pin(r"blk\.3\.ffn_(gate|up|down)_exps", "CUDA1");
    world.pin(r"blk\.4\.attn_q", "CPU");
    let mut moved = Moved::default();
    for group in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
        moved.insert(1, group);
    }
    moved.insert(2, "ffn_up_exps");
    let settings = settings(2, 6, vec![6.0, 0.0]);
    let places = places(&world.parts, 6, &settings, &moved);
    let layers = layers(&world.parts, &places, 6, &settings);
    let seen: Vec<_> = layers.iter().map(|layer| layer.place).collect();
    assert_eq!(
        seen,
        [
            Place::Cpu,
            Place::ExpertsOnCpu,
            Place::SomeExpertsOnCpu,
            Place::Mixed,
            Place::Mixed,
            Place::Gpu,
            Place::Gpu,
        ]
    );
    assert_eq!(layers[2].elsewhere[0].tensor, "ffn_up_exps.weight");
    assert_eq!(layers[3].elsewhere[0].device, "CUDA1");
    assert_eq!(layers[6].name, "output");
}

#[test]
fn the_expressions_of_moves_are_few_and_match_only_what_moves() {
    let world = World::moe(24, &[1000]);
    let mut moved = Moved::default();
    for layer in [1, 2, 11] {
        for group in ["ffn_down_exps", "ffn_gate_exps", "ffn_up_exps"] {
            moved.insert(layer, group);
        }
    }
    moved.insert(21, "ffn_up_exps");
    let overrides = moved.overrides();
    assert_eq!(overrides.len(), 2);
    let found: Vec<_> = world
        .parts
        .iter()
        .filter(|part| {
            let name = || std::iter::once(part.name.as_str());
            overrides
                .iter()
                .any(|one| llama::search(&one.tensors, name()).unwrap()[0])
        })
        .collect();
    assert_eq!(found.len(), 3 * 3 + 1);
    assert!(found.iter().all(|part| moved.has(part)));
}

proptest! {
    #[test]
    fn expressions_match_exactly_the_moved_parts(
        picks in prop::collection::vec((0_u32..120, 0_usize..3), 0..40),
    ) {
        let groups = ["ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps"];
        let mut moved = Moved::default();
        for (layer, group) in &picks {
            moved.insert(*layer, groups[*group]);
        }
        let parts: Vec<_> = (0..120)
            .flat_map(|layer| groups.map(|group| one(&format!("blk.{layer}.{group}.weight"))))
            .collect();
        let mut found = vec![false; parts.len()];
        for wish in moved.overrides() {
            let names = parts.iter().map(|part| part.name.as_str());
            let more = llama::search(&wish.tensors, names).unwrap();
            for (found, more) in found.iter_mut().zip(more) {
                *found |= more;
            }
        }
        for (part, found) in parts.iter().zip(found) {
            prop_assert_eq!(found, moved.has(part), "{}", &part.name);
        }
    }

    #[test]
    fn layers_lie_where_llama_cpp_puts_them(
        layers in 1_u32..130,
        wanted in 0_u32..140,
        shares in prop::collection::vec(0.0_f32..64.0, 1..6),
    ) {
        let mut shares = shares;
        shares[0] += 0.01; // all zero would mean something else
        let settings = settings(shares.len(), wanted, shares);
        prop_assert_eq!(
            layer_devices(layers, &settings),
            machine::layer_devices(layers, &settings)
        );
    }

    #[test]
    fn counts_as_shares_give_each_gpu_as_many_layers(
        counts in prop::collection::vec(0_u16..130, 1..9),
        below in 0_u16..20,
    ) {
        let on_gpu: u16 = counts.iter().sum();
        prop_assume!(on_gpu > 0);
        let shares = counts.iter().map(|count| f32::from(*count)).collect();
        let settings = settings(counts.len(), u32::from(on_gpu), shares);
        let blocks = u32::from(on_gpu + below) - 1;
        let devices = layer_devices(blocks, &settings);
        prop_assert_eq!(&devices, &machine::layer_devices(blocks, &settings));
        for (gpu, count) in counts.iter().enumerate() {
            let own = devices.iter().filter(|device| **device == Some(gpu));
            prop_assert_eq!(own.count(), usize::from(*count));
        }
    }
}

//! Any model on any machine, for properties.

use proptest::prelude::*;

use super::{MIB, World};

pub(in crate::engine::fit) const GROUPS: [&str; 3] =
    ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// Models with experts of two sizes, on machines of `gpus` GPUs.
pub(in crate::engine::fit) fn moe(gpus: usize) -> impl Strategy<Value = World> {
    let layer = prop_oneof![Just(vec![60, 60, 60]), Just(vec![60, 60, 88])];
    (
        10_u64..40,
        prop::collection::vec(layer, 2..14),
        prop::collection::vec(0_u64..3000, gpus),
        traits(),
    )
        .prop_map(|(dense, layers, gpus, traits)| {
            with(World::new(dense, &GROUPS, &layers, &gpus), traits)
        })
}

pub(in crate::engine::fit) fn dense(gpus: usize) -> impl Strategy<Value = World> {
    (
        prop::collection::vec((20_u64..80).prop_map(|mib| vec![mib, mib]), 2..24),
        prop::collection::vec(0_u64..2500, gpus),
        traits(),
    )
        .prop_map(|(layers, gpus, traits)| {
            with(
                World::new(20, &["ffn_up", "ffn_down"], &layers, &gpus),
                traits,
            )
        })
}

type Traits = (u64, usize, u64, u64, u64, u64);

/// Cache, layers with one, activations, staging, surprise, margin.
fn traits() -> impl Strategy<Value = Traits> {
    (
        0_u64..8000,
        1_usize..5,
        0_u64..60,
        0_u64..3,
        0_u64..40,
        0_u64..100,
    )
}

fn with(mut world: World, (cache, every, compute, staged, surprise, margin): Traits) -> World {
    world.cache = cache;
    world.cached_every = every;
    world.header.keeps_states = every > 1;
    world.compute = compute * MIB;
    world.staged_halves = staged;
    world.surprise = surprise * MIB;
    world.margins[..world.gpus.len()].fill(margin * MIB);
    world
}

/// `world`, some of whose tensors the user pins.
pub(in crate::engine::fit) fn pinned(
    world: impl Strategy<Value = World>,
) -> impl Strategy<Value = World> {
    let pins = [
        (r"blk\.[02]\.", "CPU"),
        (r"ffn_down", "CPU"),
        (r"blk\.1\.ffn", "CUDA0"),
        (r"token_embd", "CUDA0"),
        (r"^output", "CPU"),
    ];
    let pins = prop::sample::subsequence(pins.to_vec(), 0..3);
    (world, pins).prop_map(|(mut world, pins)| {
        for (tensors, device) in pins {
            world.pin(tensors, device);
        }
        world
    })
}

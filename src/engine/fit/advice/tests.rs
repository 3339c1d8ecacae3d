//! What is advised is true: with it, the model fits.

use super::*;
use crate::engine::fit::search::machine::{MIB, World};

/// The message; panics if the model fits.
fn message(world: &World) -> String {
    let mut machine = world.machine();
    match world.problem().solve(&mut machine).unwrap() {
        Outcome::Fits(solution) => panic!("fits with {:?}", solution.settings),
        Outcome::Lacks(lacks) => shortage(&world.problem(), &lacks, &mut machine).to_string(),
    }
}

fn advised(world: &World) -> Vec<String> {
    let message = message(world);
    let ways = message.split_once("what would fit: ").map(|(_, ways)| ways);
    ways.into_iter()
        .flat_map(|ways| ways.split(" · "))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn assert_fits(world: &World, way: &str, change: impl FnOnce(&mut EngineConfig)) {
    assert!(
        advised(world).iter().any(|one| one == way),
        "{:?}",
        advised(world)
    );
    let mut world = world.clone();
    change(&mut world.config);
    let outcome = world.problem().solve(&mut world.machine()).unwrap();
    assert!(matches!(outcome, Outcome::Fits(_)), "{way}");
}

#[test]
fn a_shortage_names_device_missing_needed_and_free() {
    let mut world = World::dense(10, &[512]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.margins[0] = 128 * MIB;
    let message = message(&world);
    // 60 + 20 + 10 × 104 = 1120 MiB.
    let expected = "the model does not fit: CUDA0 lacks 0.72 GiB: the model needs 1.09 GiB there beside a margin of \
                    0.12 GiB, and 0.50 GiB is free; what would fit: ";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn too_many_explicit_layers_are_answered_with_auto_and_the_most_that_fit() {
    let mut world = World::dense(10, &[120 + 5 * 104]);
    world.config.placement.gpu_layers = GpuLayers::Count(9);
    let way = "engine.placement.gpu_layers = 'auto or 6";
    assert_fits(&world, way, |config| {
        config.placement.gpu_layers = GpuLayers::Auto
    });
    assert_fits(&world, way, |config| {
        config.placement.gpu_layers = GpuLayers::Count(6)
    });
    world.config.placement.gpu_layers = GpuLayers::Count(7);
    assert!(message(&world).contains(way), "7 do not fit");
}

#[test]
fn too_few_explicit_layers_of_experts_on_the_cpu_are_answered_with_the_fewest_that_fit() {
    let mut world = World::moe(10, &[1000]);
    world.config.placement.gpu_layers = GpuLayers::All;
    for (surprise, fewest) in [(0, 7), (30, 8)] {
        world.surprise = surprise * MIB;
        world.config.placement.cpu_moe_layers = CpuMoe::Count(2);
        let way = format!("engine.placement.cpu_moe_layers = {fewest}");
        assert_fits(&world, &way, |config| {
            config.placement.cpu_moe_layers = CpuMoe::Count(fewest);
        });
        world.config.placement.cpu_moe_layers = CpuMoe::Count(fewest - 1);
        assert!(message(&world).contains(&way), "{} do not fit", fewest - 1);
    }
}

#[test]
fn two_wishes_that_do_not_go_together_are_both_answered_with_auto() {
    let mut world = World::moe(10, &[200]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.config.placement.cpu_moe_layers = CpuMoe::Count(0);
    world.host.available = 4000 * MIB;
    assert_fits(
        &world,
        "engine.placement.gpu_layers = 'auto or 1",
        |config| {
            config.placement.gpu_layers = GpuLayers::Count(1);
        },
    );
    // Two GPUs of which the wished split fills one.
    let mut world = World::dense(10, &[700, 700]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.config.placement.tensor_split = vec![10.0, 1.0];
    assert_fits(&world, "engine.placement.tensor_split = []", |config| {
        config.placement.tensor_split.clear();
    });
}

#[test]
fn a_gpu_without_room_for_anything_is_advised_away() {
    // Even with no layer, the first GPU stages 80 MiB for steps over weights in host memory.
    let world = World::moe(30, &[50, 2000]);
    assert!(message(&world).contains("CUDA0 lacks"));
    let ways = advised(&world);
    assert!(
        ways.contains(&"engine.placement.devices = [\"CUDA1\"]".to_owned()),
        "{ways:?}"
    );
    let world = World::dense(10, &[50]);
    assert!(advised(&world).contains(&"engine.placement.devices = []".to_owned()));
}

#[test]
fn a_cache_that_is_too_large_is_answered_with_fewer_and_smaller_cells() {
    // 1100 of weights; 10 × 4 × 64 KiB for each of 4096 tokens: 10 GiB as f16.
    let mut world = World::dense(10, &[]);
    world.cache = 64 * 1024;
    world.config.parallel = 4;
    world.config.kv = KvConfig {
        k: KvType::F16,
        v: KvType::F16,
    };
    world.host.available = 7000 * MIB;
    assert_fits(&world, "engine.context = 2048", |config| {
        config.context = 2048
    });
    assert_fits(&world, "engine.parallel = 2", |config| config.parallel = 2);
    assert_fits(&world, "engine.kv = {k = 'q8_0, v = 'q8_0}", |config| {
        config.kv = KvConfig {
            k: KvType::Q8_0,
            v: KvType::Q8_0,
        };
    });
    world.host.available = 4000 * MIB;
    assert_fits(&world, "engine.context = 1024", |config| {
        config.context = 1024
    });
    assert_fits(&world, "engine.parallel = 1", |config| config.parallel = 1);
    assert_fits(&world, "engine.kv = {k = 'q4_0, v = 'q4_0}", |config| {
        config.kv = KvConfig {
            k: KvType::Q4_0,
            v: KvType::Q4_0,
        };
    });
    // Heads of 80 elements cannot be packed by 32.
    world.header.key_length = 80;
    assert!(!message(&world).contains("engine.kv"));
}

#[test]
fn activations_that_are_too_large_are_answered_with_smaller_steps() {
    let mut world = World::dense(10, &[1500]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.compute = 600 * MIB;
    assert_fits(&world, "engine.ubatch = 128", |config| config.ubatch = 128);
}

#[test]
fn weights_that_nothing_could_hold_are_answered_with_a_smaller_model() {
    let mut world = World::dense(10, &[200]);
    world.host.available = 500 * MIB;
    assert!(advised(&world).is_empty());
    assert!(message(&world).ends_with("choose a smaller quantization or model from models.lock"));
}

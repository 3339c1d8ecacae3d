//! What is advised is true: with it, the model fits.

use proptest::prelude::*;

use super::*;
use crate::engine::fit::search::machine::{
    MIB, World,
    any::{dense, moe, pinned},
};

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

/// The world after following an advice; several where it leaves a choice.
fn follow(world: &World, way: &str) -> Vec<World> {
    let (field, value) = way.split_once(" = ").unwrap();
    let last = value.rsplit(' ').next().unwrap();
    let number = || last.parse::<u32>().unwrap();
    let mut followed = world.clone();
    let config = &mut followed.config;
    match field {
        "engine.placement.gpu_layers" => {
            config.placement.gpu_layers = GpuLayers::Auto;
            let mut followed = vec![followed];
            if value != "'auto" {
                let mut counted = world.clone();
                counted.config.placement.gpu_layers = GpuLayers::Count(number());
                followed.push(counted);
            }
            return followed;
        }
        "engine.placement.cpu_moe_layers" => {
            config.placement.cpu_moe_layers = CpuMoe::Count(number());
        }
        "engine.placement.tensor_split" => config.placement.tensor_split.clear(),
        "engine.placement" => {
            config.placement.gpu_layers = GpuLayers::Auto;
            config.placement.cpu_moe_layers = CpuMoe::Auto;
            if value.contains("tensor_split = []") {
                config.placement.tensor_split.clear();
            }
        }
        "engine.placement.devices" => {
            followed.gpus.retain(|gpu| value.contains(&gpu.name));
            followed.margins = vec![world.margins[0]; followed.gpus.len() + 1];
            *followed.margins.last_mut().unwrap() = *world.margins.last().unwrap();
        }
        "engine.context" => config.context = number(),
        "engine.parallel" => config.parallel = number(),
        "engine.ubatch" => config.ubatch = number(),
        "engine.kv" => {
            let kinds = [KvType::Q8_0, KvType::Q4_0];
            let kind = kinds.into_iter().find(|kind| value.contains(kind.name()));
            let kind = kind.unwrap();
            config.kv = KvConfig { k: kind, v: kind };
        }
        field => panic!("nobody advises {field}"),
    }
    vec![followed]
}

fn fits(world: &World) -> bool {
    let outcome = world.problem().solve(&mut world.machine()).unwrap();
    matches!(outcome, Outcome::Fits(_))
}

#[track_caller]
fn assert_fits(world: &World, way: &str) {
    let advised = advised(world);
    assert!(advised.iter().any(|one| one == way), "{advised:?}");
    assert!(follow(world, way).iter().all(fits), "{way}");
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
    assert_fits(&world, way);
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
        assert_fits(&world, &way);
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
    assert_fits(&world, "engine.placement.gpu_layers = 'auto or 1");
    // Two GPUs of which the wished split fills one.
    let mut world = World::dense(10, &[700, 700]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.config.placement.tensor_split = vec![10.0, 1.0];
    assert_fits(&world, "engine.placement.tensor_split = []");
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
    assert_fits(&world, "engine.context = 2048");
    assert_fits(&world, "engine.parallel = 2");
    assert_fits(&world, "engine.kv = {k = 'q8_0, v = 'q8_0}");
    world.host.available = 4000 * MIB;
    assert_fits(&world, "engine.context = 1024");
    assert_fits(&world, "engine.parallel = 1");
    assert_fits(&world, "engine.kv = {k = 'q4_0, v = 'q4_0}");
    // Heads of 80 elements cannot be packed by 32.
    world.header.key_length = 80;
    assert!(!message(&world).contains("engine.kv"));
}

#[test]
fn activations_that_are_too_large_are_answered_with_smaller_steps() {
    let mut world = World::dense(10, &[1500]);
    world.config.placement.gpu_layers = GpuLayers::All;
    world.compute = 600 * MIB;
    assert_fits(&world, "engine.ubatch = 128");
}

#[test]
fn weights_that_nothing_could_hold_are_answered_with_a_smaller_model() {
    let mut world = World::dense(10, &[200]);
    world.host.available = 500 * MIB;
    assert!(advised(&world).is_empty());
    assert!(message(&world).ends_with("choose a smaller quantization or model from models.lock"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_advice_fits(
        world in pinned(prop_oneof![moe(1), moe(2), dense(1), dense(2)]),
        gpu_layers in prop_oneof![Just(GpuLayers::Auto), Just(GpuLayers::All), (0_u32..15).prop_map(GpuLayers::Count)],
        cpu_moe in prop_oneof![Just(CpuMoe::Auto), Just(CpuMoe::All), (0_u32..15).prop_map(CpuMoe::Count)],
        split in prop_oneof![Just(vec![]), Just(vec![1.0, 2.0])],
        host in 0_u64..4000,
        parallel in 1_u32..9,
    ) {
        let mut world = world;
        world.host.available = host * MIB;
        world.config.parallel = parallel;
        world.config.placement.gpu_layers = gpu_layers;
        world.config.placement.cpu_moe_layers = cpu_moe;
        if world.gpus.len() == split.len() {
            world.config.placement.tensor_split = split;
        }
        if !fits(&world) {
            for way in advised(&world) {
                prop_assert!(follow(&world, &way).iter().all(fits), "{way}");
            }
        }
    }
}

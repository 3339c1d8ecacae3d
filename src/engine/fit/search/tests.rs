//! Placements of models in numbers: what fits stays, what does not moves, and llama.cpp is asked seldom.

mod properties;

use super::{
    Gauge, Outcome, Shortage, Solution,
    machine::{MIB, World},
};
use crate::{
    config::{CpuMoe, GpuLayers, Split},
    engine::fit::layout::{self, At},
};

/// The outcome, and how many gauges it took.
fn solve(world: &World) -> (Outcome, usize) {
    let mut machine = world.machine();
    let outcome = world.problem().solve(&mut machine).unwrap();
    (outcome, machine.asked)
}

#[track_caller]
fn fits(world: &World) -> (Solution, usize) {
    match solve(world) {
        (Outcome::Fits(solution), asked) => (*solution, asked),
        (Outcome::Lacks(shortage), _) => panic!("lacks {:?}", shortage.missing),
    }
}

#[track_caller]
fn lacks(world: &World) -> (Shortage, usize) {
    match solve(world) {
        (Outcome::Lacks(shortage), asked) => (*shortage, asked),
        (Outcome::Fits(solution), _) => panic!("fits with {:?}", solution.settings),
    }
}

/// Where each layer's experts are: `G` all on the layer's GPU, `c` all in host memory, `p` partly; `.`: the layer itself
/// is on the host.
fn picture(world: &World, solution: &Solution) -> String {
    let devices = layout::layer_devices(world.header.layers, &solution.settings);
    let places = world.places(&solution.settings);
    let mut out: String = (0..world.header.layers)
        .map(|layer| {
            let own = world.parts.iter().zip(&places);
            let experts: Vec<_> = own
                .filter(|(part, _)| part.layer == Some(layer) && part.name.contains("ffn"))
                .map(|(_, at)| *at)
                .collect();
            match devices[layer as usize] {
                None => '.',
                device if experts.iter().all(|at| *at == device) => 'G',
                _ if experts.iter().all(Option::is_none) => 'c',
                _ => 'p',
            }
        })
        .collect();
    out.push(if devices[world.header.layers as usize].is_some() {
        '+'
    } else {
        '-'
    });
    out
}

fn left_mib(world: &World, solution: &Solution) -> Vec<i64> {
    let left = world.problem().left(solution);
    left.iter().map(|left| left / MIB.cast_signed()).collect()
}

fn count(devices: &[At], gpu: usize) -> usize {
    devices.iter().filter(|at| **at == Some(gpu)).count()
}

#[test]
fn what_fits_whole_is_gauged_once_and_nothing_moves() {
    for world in [
        World::moe(4, &[2000]),
        World::dense(8, &[2000]),
        World::moe(4, &[]),
        World::moe(8, &[1100, 1100]),
    ] {
        let (solution, asked) = fits(&world);
        assert_eq!(asked, 1);
        assert!(solution.settings.overrides.is_empty());
        let all = if world.gpus.is_empty() {
            0
        } else {
            world.header.layers + 1
        };
        assert_eq!(solution.settings.gpu_layers, all);
    }
}

#[test]
fn experts_that_do_not_fit_leave_the_first_layers() {
    // 60 of output, 20 of activations, 80 of staging, 10 × (20 + 4) of dense layers and cache: 400 of 1000.
    let world = World::moe(10, &[1000]);
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "cccccccGGG+");
    assert_eq!(left_mib(&world, &solution)[0], 0);
    assert!(asked <= 2, "{asked} gauges");
    // With 140 more, two groups of the next layer go as well: 60 + 80, not 60 + 60.
    let world = World::moe(10, &[1140]);
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "ccccccpGGG+");
    assert_eq!(left_mib(&world, &solution)[0], 0);
    assert!(asked <= 2, "{asked} gauges");
}

#[test]
fn small_layers_are_preferred_because_each_whole_one_saves_a_round_trip() {
    let groups = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
    let (small, large) = (vec![60, 60, 60], vec![60, 60, 90]);
    let layers = [small.clone(), small, large.clone(), large];
    // 60 + 20 + 90 + 4 × 24 = 266 beside experts.
    let world = World::new(20, &groups, &layers, &[266 + 360 + 125]);
    let (solution, _) = fits(&world);
    // One more layer is shared: its two small groups fill more of the 125 than its large one would.
    assert_eq!(picture(&world, &solution), "GGcp+");
    assert_eq!(left_mib(&world, &solution)[0], 5);
}

#[test]
fn what_arithmetic_did_not_foresee_costs_one_more_gauge() {
    let mut world = World::moe(10, &[1000]);
    world.surprise = 30 * MIB;
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "cccccccpGG+");
    assert_eq!(left_mib(&world, &solution)[0], 30);
    assert_eq!(asked, 3);
    let mut world = World::moe(10, &[1000]);
    world.staged_halves = 0;
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "ccccccpGGG+");
    assert_eq!(left_mib(&world, &solution)[0], 0);
    assert_eq!(asked, 3);
}

#[test]
fn a_dense_model_gets_as_many_layers_as_fit_and_not_one_more() {
    // 60 of output, 20 of activations, 40 of staging; each layer 104.
    for (free, picture_of) in [
        (120 + 5 * 104, ".....GGGGG+"),
        (120 + 5 * 104 - 1, "......GGGG+"),
        (119, "..........-"),
    ] {
        let world = World::dense(10, &[free]);
        let (solution, asked) = fits(&world);
        assert_eq!(picture(&world, &solution), picture_of);
        assert!(asked <= 3, "{asked} gauges");
    }
}

#[test]
fn experts_all_stay_on_the_host_when_not_even_the_rest_fits() {
    // Beside staging (80) and activations (20): output 60 and 6 layers of 24.
    let world = World::moe(10, &[80 + 20 + 60 + 6 * 24 + 23]);
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "....cccccc+");
    assert_eq!(left_mib(&world, &solution)[0], 23);
    assert!(asked <= 4, "{asked} gauges");
}

#[test]
fn two_unequal_gpus_are_both_filled() {
    let world = World::dense(30, &[600, 1500]);
    let (solution, asked) = fits(&world);
    let left = left_mib(&world, &solution);
    assert!(left[..2].iter().all(|left| *left < 104), "{left:?}");
    assert!(asked <= 4, "{asked} gauges");
    let world = World::moe(30, &[1500, 3000]);
    let (solution, asked) = fits(&world);
    let left = left_mib(&world, &solution);
    assert!(left[..2].iter().all(|left| *left < 60), "{left:?}");
    assert!(asked <= 4, "{asked} gauges");
}

#[test]
fn layers_move_between_gpus_before_any_moves_to_the_host() {
    // The second GPU also takes the output, and the caches are large: free memory alone would split it 5 : 5.
    let mut world = World::dense(9, &[0, 0]);
    world.cache = 20 * 1024;
    world.gpus[0].free = (20 + 5 * 180) * MIB;
    world.gpus[1].free = (20 + 4 * 180 + 60) * MIB;
    let (solution, asked) = fits(&world);
    assert_eq!(picture(&world, &solution), "GGGGGGGGG+");
    assert_eq!(solution.settings.tensor_split, [5.0, 5.0]);
    assert!(asked <= 2, "{asked} gauges");
}

#[test]
fn a_gpu_that_is_full_already_is_left_alone() {
    let mut world = World::dense(8, &[2000, 100]);
    world.margins = vec![200 * MIB, 200 * MIB, 0];
    let (solution, _) = fits(&world);
    let devices = layout::layer_devices(8, &solution.settings);
    assert_eq!((count(&devices, 0), count(&devices, 1)), (9, 0));
}

#[test]
fn explicit_wishes_are_kept_exactly() {
    let mut world = World::moe(10, &[2000]);
    world.config.placement.cpu_moe_layers = CpuMoe::Count(4);
    assert_eq!(picture(&world, &fits(&world).0), "ccccGGGGGG+");

    let mut world = World::dense(10, &[2000]);
    world.config.placement.gpu_layers = GpuLayers::Count(3);
    assert_eq!(picture(&world, &fits(&world).0), "........GG+");

    let mut world = World::dense(10, &[2000, 2000]);
    world.config.placement.tensor_split = vec![3.0, 1.0];
    let solution = fits(&world).0;
    assert_eq!(solution.settings.tensor_split, [3.0, 1.0]);
    let devices = layout::layer_devices(10, &solution.settings);
    assert_eq!((count(&devices, 0), count(&devices, 1)), (9, 2));

    // What is not said is fitted around it.
    let mut world = World::moe(10, &[1000]);
    world.config.placement.gpu_layers = GpuLayers::Count(7);
    assert_eq!(picture(&world, &fits(&world).0), "....ccpGGG+");
    let mut world = World::dense(10, &[400, 400]);
    world.config.placement.tensor_split = vec![1.0, 1.0];
    let solution = fits(&world).0;
    assert_eq!(solution.settings.tensor_split, [1.0, 1.0]);
    assert_eq!(picture(&world, &solution), ".....GGGGG+");
    let mut world = World::moe(10, &[1000]);
    world.config.placement.cpu_moe_layers = CpuMoe::Count(4);
    let solution = fits(&world).0;
    assert_eq!(picture(&world, &solution), ".......GGG+");
}

#[test]
fn an_override_pins_its_tensor_and_the_rest_is_fitted_around_it() {
    let mut world = World::moe(10, &[1000]);
    world.pin(r"blk\.0\.ffn_(up|gate|down)_exps", "CUDA0");
    world.pin(r"blk\.9\.ffn_down_exps", "CPU");
    let (solution, asked) = fits(&world);
    let overrides = &solution.settings.overrides;
    assert_eq!(overrides[..2], world.config.placement.tensor_overrides);
    // Layers 0 and 9, of the latter only what is not pinned, then one whole one and a part of another.
    assert_eq!(picture(&world, &solution), "GccccccpGp+");
    assert!(asked <= 2, "{asked} gauges");
}

#[test]
fn the_context_shrinks_only_if_it_may_and_only_as_far_as_needed() {
    let mut world = World::dense(10, &[1120]);
    world.cache = 16 * 1024; // 160 KiB a token: 640 MiB for 4096 of them, 40 for 256
    assert_eq!(fits(&world).0.context, 4096);
    assert!(fits(&world).0.settings.gpu_layers < 11);
    world.config.placement.min_context = Some(300);
    // 60 + 20 + 10 × 100 on the GPU leave 40.
    // 512 tokens would need 80 there: with less than all layers on the GPU, the context stays whole.
    assert_eq!(fits(&world).0.context, 4096);
    world.gpus[0].free += 80 * MIB;
    let (solution, asked) = fits(&world);
    assert_eq!(solution.context, 768);
    assert_eq!(solution.settings.gpu_layers, 11);
    assert!(asked <= 3, "{asked} gauges");
    world.gpus[0].free += 600 * MIB;
    assert_eq!(fits(&world).0.context, 4096);
}

#[test]
fn what_no_device_could_hold_is_told_without_a_gauge() {
    let mut world = World::dense(10, &[400]);
    world.host.available = 500 * MIB;
    world.margins = vec![50 * MIB, 20 * MIB];
    let (shortage, asked) = lacks(&world);
    assert_eq!(asked, 0);
    // 1100 of weights; 350 and 480 may be used.
    assert_eq!(shortage.missing, [("host".to_owned(), 270 * MIB)]);
    assert_eq!(world.problem().used(&shortage.nearest), [0, 750 * MIB]);
}

#[test]
fn a_context_that_no_device_could_hold_is_told_with_one_gauge_of_a_part_of_it() {
    let mut world = World::dense(10, &[400]);
    world.host.available = 4000 * MIB;
    (world.config.context, world.config.parallel) = (1 << 20, 4);
    let (shortage, asked) = lacks(&world);
    assert_eq!(asked, 1);
    assert_eq!(shortage.missing[0].0, "CUDA0");
    // All of it was wished for on the GPU: 1060 of weights, 10 × 4 GiB of cache, 20 of activations, of which 400 fit.
    assert_eq!(shortage.missing[0].1, (1060 + 40960 + 20 - 400) * MIB);
}

#[test]
fn the_host_lacks_what_the_gpus_leave() {
    let mut world = World::dense(10, &[120 + 5 * 104]);
    // 40 of embeddings, 5 × 104 of layers, 1 of activations: 561, of which 550 are there.
    world.host.available = 550 * MIB;
    let (shortage, asked) = lacks(&world);
    assert_eq!(shortage.missing, [("host".to_owned(), 11 * MIB)]);
    assert_eq!(picture(&world, &shortage.nearest), ".....GGGGG+");
    assert!(asked <= 3, "{asked} gauges");
}

#[test]
fn explicit_wishes_that_do_not_fit_lack_what_they_need() {
    let mut world = World::dense(10, &[500]);
    world.config.placement.gpu_layers = GpuLayers::All;
    let (shortage, asked) = lacks(&world);
    assert_eq!(
        shortage.missing,
        [("CUDA0".to_owned(), (60 + 20 + 1040 - 500) * MIB)]
    );
    assert_eq!(asked, 1);
    let mut world = World::moe(10, &[300]);
    world.config.placement.gpu_layers = GpuLayers::All;
    let (shortage, asked) = lacks(&world);
    assert_eq!(
        shortage.missing,
        [("CUDA0".to_owned(), (60 + 20 + 80 + 240 - 300) * MIB)]
    );
    assert_eq!(asked, 2);
}

#[test]
fn one_gpu_alone_takes_all_layers() {
    let mut world = World::moe(10, &[1000]);
    world.config.placement.split = Split::None;
    assert_eq!(picture(&world, &fits(&world).0), "cccccccGGG+");
}

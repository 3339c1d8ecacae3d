//! What is true of every placement, whatever the model and the machine.

use proptest::prelude::*;

use super::*;
use crate::engine::{
    fit::search::{
        Draft,
        machine::any::{GROUPS, dense, moe, pinned},
    },
    llama::Gpu,
};

fn draft(solution: &Solution, change: impl FnOnce(&mut Draft)) -> Draft {
    let mut draft = solution.draft();
    change(&mut draft);
    draft
}

/// Whether a change of the placement would fit the GPUs as well.
fn would_fit(world: &World, changed: Draft) -> bool {
    let problem = world.problem();
    let tried = problem.attempt(&mut world.machine(), changed).unwrap();
    problem.gpus_fit(&tried)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_solution_leaves_no_device_short(world in pinned(prop_oneof![moe(1), moe(2), dense(1), dense(3)])) {
        if let (Outcome::Fits(solution), _) = solve(&world) {
            let again = world.machine().gauge(&world.config, solution.context, &solution.settings).unwrap();
            prop_assert_eq!(&again, &solution.gauged);
            for (gpu, left) in world.problem().left(&solution).iter().enumerate() {
                prop_assert!(*left >= 0, "{gpu}: {left}");
            }
        }
    }

    #[test]
    fn no_further_group_of_experts_would_fit_one_gpu(world in moe(1)) {
        let (Outcome::Fits(solution), asked) = solve(&world) else { return Ok(()); };
        let all = world.header.layers + 1;
        prop_assert!(asked <= if solution.settings.gpu_layers == all { 4 } else { 6 }, "{asked} gauges");
        let seen = picture(&world, &solution);
        prop_assert!(seen.matches('p').count() <= 1, "{seen}");
        if solution.settings.gpu_layers < all {
            prop_assert!(!seen.contains(['G', 'p']), "{seen}");
            let more = draft(&solution, |draft| {
                draft.gpu_layers += 1;
                draft.split = vec![1.0];
            });
            prop_assert!(!would_fit(&world, more), "one more layer fits: {seen}");
            return Ok(());
        }
        for (layer, kind) in seen.char_indices().filter(|(_, kind)| "cp".contains(*kind)) {
            if kind == 'c' && seen.contains('p') {
                continue; // only one layer is shared out
            }
            for group in GROUPS {
                let more = draft(&solution, |draft| {
                    let layer = u32::try_from(layer).unwrap();
                    let mut fewer = layout::Moved::default();
                    for part in world.parts.iter().filter(|part| draft.moved.has(part)) {
                        if part.layer != Some(layer) || part.group() != group {
                            fewer.insert(part.layer.unwrap(), part.group());
                        }
                    }
                    draft.moved = fewer;
                });
                if more != solution.draft() {
                    prop_assert!(!would_fit(&world, more), "{group} of layer {layer} fits: {seen}");
                }
            }
        }
    }

    #[test]
    fn no_further_layer_would_fit_one_gpu(world in dense(1)) {
        let (Outcome::Fits(solution), asked) = solve(&world) else { return Ok(()); };
        prop_assert!(asked <= 6, "{asked} gauges");
        let layers = solution.settings.gpu_layers;
        for more in layers + 1..=world.header.layers + 1 {
            let more = draft(&solution, |draft| draft.gpu_layers = more);
            prop_assert!(!would_fit(&world, more), "{layers} layers are too few");
        }
    }

    #[test]
    fn gpus_are_filled_within_a_layer_while_layers_are_on_the_host(
        layers in 4_usize..40,
        free in prop::collection::vec(300_u64..1500, 2..4),
        cache in 0_u64..8000,
        pipeline in 0_u64..100,
    ) {
        let mut world = World::dense(layers, &free);
        world.pipeline = pipeline * MIB;
        world.cache = cache;
        let (solution, asked) = fits(&world);
        prop_assert!(asked <= 6, "{asked} gauges");
        // With the last layer there, all would be on GPUs, which takes more: that was tried first.
        if solution.settings.gpu_layers < world.header.layers {
            let layer = (100 * MIB + cache * 4096).cast_signed();
            for left in &world.problem().left(&solution)[..free.len()] {
                prop_assert!(*left < layer, "{left} of {layer} left");
            }
        }
    }

    #[test]
    fn experts_fill_every_gpu_that_has_some_on_the_host(
        layers in 4_usize..30,
        free in prop::collection::vec(700_u64..3000, 2..4),
        pipeline in 0_u64..100,
    ) {
        let mut world = World::moe(layers, &free);
        world.pipeline = pipeline * MIB;
        let (solution, asked) = fits(&world);
        prop_assert!(asked <= 5, "{asked} gauges");
        let devices = layout::layer_devices(world.header.layers, &solution.settings);
        let seen = picture(&world, &solution);
        let left = world.problem().left(&solution);
        for (gpu, left) in left[..free.len()].iter().enumerate() {
            let own: String = seen.char_indices()
                .filter(|(at, _)| devices[*at] == Some(gpu))
                .map(|(_, kind)| kind)
                .collect();
            prop_assert!(own.matches('p').count() <= 1, "{own}");
            let last_group = seen.replace(['G', '+'], "") == "p" && solution.moved.groups() == 1;
            if last_group {
                continue; // all on GPUs takes more, and was tried first
            }
            if own.contains(['c', 'p']) {
                prop_assert!(*left < (80 * MIB).cast_signed(), "{own}: {}", left / (1 << 20));
            } else if seen.contains(['c', 'p']) {
                // One more layer would not have fitted; what is staged may then have become 20 less.
                prop_assert!(*left < (245 * MIB).cast_signed(), "{own} of {seen}: {}", left / (1 << 20));
            }
        }
    }

    #[test]
    fn a_shrunk_context_is_the_largest_that_fits(world in dense(2), least in 256_u32..4096) {
        let mut world = world;
        world.config.placement.min_context = Some(least);
        let (Outcome::Fits(solution), asked) = solve(&world) else { return Ok(()); };
        prop_assert!(solution.context >= least);
        prop_assert!(asked <= 10, "{asked} gauges");
        if solution.context < world.config.context {
            prop_assert_eq!(solution.context % 256, 0);
            let more = draft(&solution, |draft| draft.context += 256);
            prop_assert!(!would_fit(&world, more), "{} is too little", solution.context);
        }
    }

    #[test]
    fn a_shortage_names_what_its_placement_lacks(world in prop_oneof![moe(1), dense(2)], host in 0_u64..2000) {
        let mut world = world;
        world.host.available = host * MIB;
        let (Outcome::Lacks(shortage), asked) = solve(&world) else { return Ok(()); };
        prop_assert!(!shortage.missing.is_empty());
        for (device, missing) in &shortage.missing {
            prop_assert!(*missing > 0);
            let at = world.problem().position(device, device == "host");
            let free = world.gpus.get(at).map_or(world.host.available, |gpu: &Gpu| gpu.free);
            let used = world.problem().used(&shortage.nearest)[at];
            prop_assert_eq!(used + world.margins[at], free + missing, "{}", asked);
        }
    }

    #[test]
    fn what_the_user_says_is_kept(
        world in pinned(prop_oneof![moe(1), moe(2), dense(2)]),
        gpu_layers in prop_oneof![Just(GpuLayers::Auto), Just(GpuLayers::All), (0_u32..15).prop_map(GpuLayers::Count)],
        cpu_moe in prop_oneof![Just(CpuMoe::Auto), Just(CpuMoe::All), (0_u32..15).prop_map(CpuMoe::Count)],
        split in prop_oneof![Just(vec![]), Just(vec![1.0, 2.0])],
    ) {
        let mut world = world;
        let wishes = &mut world.config.placement;
        wishes.gpu_layers = gpu_layers;
        wishes.cpu_moe_layers = cpu_moe;
        if world.gpus.len() == split.len() {
            wishes.tensor_split.clone_from(&split);
        }
        let wishes = &world.config.placement;
        let (outcome, asked) = solve(&world);
        prop_assert!(asked <= 7, "{asked} gauges");
        let solution = match outcome {
            Outcome::Fits(solution) => *solution,
            Outcome::Lacks(shortage) => shortage.nearest,
        };
        let settings = &solution.settings;
        let all = world.header.layers + 1;
        match gpu_layers {
            GpuLayers::Auto => {}
            GpuLayers::All => prop_assert_eq!(settings.gpu_layers, all),
            GpuLayers::Count(count) => prop_assert_eq!(settings.gpu_layers, count.min(all)),
        }
        if !wishes.tensor_split.is_empty() {
            prop_assert_eq!(&settings.tensor_split, &wishes.tensor_split);
        }
        prop_assert!(settings.overrides.starts_with(&wishes.tensor_overrides));
        let devices = layout::layer_devices(world.header.layers, settings);
        let places = world.places(settings);
        prop_assert_eq!(&places, &world.problem().places(&solution));
        for (part, place) in world.parts.iter().zip(places) {
            match (&part.pinned, part.layer) {
                (Some(device), _) => {
                    prop_assert_eq!(place, world.gpus.iter().position(|gpu| gpu.name == *device));
                }
                (None, Some(layer)) if part.name.contains("_exps") => {
                    let host = match cpu_moe {
                        CpuMoe::Auto => continue,
                        CpuMoe::All => true,
                        CpuMoe::Count(count) => layer < count,
                    };
                    let own = devices[layer as usize];
                    prop_assert_eq!(place, if host { None } else { own }, "{}", &part.name);
                }
                _ => {}
            }
        }
    }
}

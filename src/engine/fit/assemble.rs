//! A solved placement as the plan that is shown, logged and followed.

use std::path::Path;

use super::{
    Cache, Device, Engine, Facts, HOST, Plan,
    layout::{self, Part},
    search::{Gauge, Problem, Solution},
};
use crate::{
    config::{KvType, Load},
    engine::{
        gguf::Header,
        llama::{Gauged, LoadError},
        task::Task,
        threads,
    },
};

pub(super) fn plan(
    file: &Path,
    problem: &Problem<'_>,
    solution: &Solution,
    gauge: &mut Engine<'_>,
) -> Result<Plan, LoadError> {
    let Problem { header, config, .. } = *problem;
    let places = problem.places(solution);
    let threads = threads::decoding(config);
    // Texts that are only read share one context, and come a ubatch at a time.
    let (parallel, batch) = match problem.task {
        Task::Generate => (config.parallel, config.batch.max(config.parallel)),
        Task::Encode(_) => (1, config.ubatch),
    };
    let fixed = fixed_cache(problem, solution, gauge)?;
    Ok(Plan {
        model: facts(file, header, problem.parts),
        context: solution.context,
        parallel,
        kv: config.kv,
        batch,
        ubatch: config.ubatch,
        flash_attention: solution.gauged.flash_attention,
        threads,
        threads_batch: config.threads_batch.unwrap_or(threads),
        load: match config.load {
            Load::Auto => Load::Mmap,
            chosen => chosen,
        },
        devices: devices(problem, solution, &places, &fixed),
        layers: layout::layers(problem.parts, &places, header.layers, &solution.settings),
        settings: solution.settings.clone(),
        draft: None,
    })
}

fn facts(file: &Path, header: &Header, parts: &[Part]) -> Facts {
    let stem = || {
        file.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Facts {
        name: header.name.clone().unwrap_or_else(stem),
        architecture: header.architecture.clone(),
        weight_bytes: layout::weight_bytes(parts),
        layers: header.layers,
        experts: header.experts,
        experts_used: header.experts_used,
        trained_context: header
            .trained_context
            .and_then(|tokens| u32::try_from(tokens).ok())
            .unwrap_or(0),
    }
}

/// Cache that does not grow with the context, on each GPU and the host: recurrent states, windows.
fn fixed_cache(
    problem: &Problem<'_>,
    solution: &Solution,
    gauge: &mut Engine<'_>,
) -> Result<Vec<u64>, LoadError> {
    const STEP: u32 = 256;
    let full = cache(problem, &solution.gauged);
    let cells = solution.context.div_ceil(STEP);
    if !problem.header.keeps_states && !problem.header.slides {
        return Ok(vec![0; full.len()]);
    }
    // One device and no windows: the shapes in the header tell.
    let whole: u64 = full.iter().sum();
    if let Some(grows) = growing_cache(problem, u64::from(cells * STEP))
        && grows <= whole
        && full.iter().filter(|bytes| **bytes > 0).count() == 1
    {
        let fixed = whole - grows;
        return Ok(full.iter().map(|bytes| (*bytes).min(fixed)).collect());
    }
    if cells < 2 {
        return Ok(vec![0; full.len()]);
    }
    // Two points make the line: what is left of it at no context is the fixed part.
    let half = cells / 2;
    let gauged = gauge.gauge(problem.config, half * STEP, &solution.settings)?;
    Ok(full
        .iter()
        .zip(cache(problem, &gauged))
        .map(|(&full, at_half)| {
            let grows = full.saturating_sub(at_half) * u64::from(cells) / u64::from(cells - half);
            full.saturating_sub(grows)
        })
        .collect())
}

/// Bytes of keys and values of the layers that have them, where all of those are alike.
fn growing_cache(problem: &Problem<'_>, tokens: u64) -> Option<u64> {
    let Problem { header, config, .. } = *problem;
    if header.slides || header.kv_heads * header.key_length * header.value_length == 0 {
        return None;
    }
    // Prediction layers have a context of their own.
    let blocks = header.layers - header.prediction_layers;
    let layers = problem
        .parts
        .iter()
        .filter(|part| part.local_name() == "attn_k.weight")
        .filter(|part| part.layer.is_some_and(|layer| layer < blocks))
        .count() as u64;
    let bytes = |kind: KvType, length: u64| {
        let (elements, bytes) = kind.block();
        header.kv_heads * length / elements * bytes
    };
    let row = bytes(config.kv.k, header.key_length) + bytes(config.kv.v, header.value_length);
    Some(layers * row * tokens * u64::from(config.parallel))
}

fn cache(problem: &Problem<'_>, gauged: &Gauged) -> Vec<u64> {
    let mut sums = vec![0; problem.gpus.len() + 1];
    for buffer in &gauged.buffers {
        sums[problem.position(&buffer.device, buffer.host)] += buffer.cache;
    }
    sums
}

fn devices(
    problem: &Problem<'_>,
    solution: &Solution,
    places: &[layout::At],
    fixed: &[u64],
) -> Vec<Device> {
    let gpus = problem.gpus.len();
    let expected = layout::weights(problem.parts, places, gpus);
    let cache = cache(problem, &solution.gauged);
    let described = problem
        .gpus
        .iter()
        .map(|gpu| {
            (
                gpu.name.clone(),
                gpu.description.clone(),
                gpu.total,
                gpu.free,
            )
        })
        .chain([(
            HOST.to_owned(),
            "memory of the machine".to_owned(),
            problem.host.total,
            problem.host.available,
        )]);
    described
        .enumerate()
        .map(|(at, (name, description, total, free))| {
            let own = || {
                let buffers = solution.gauged.buffers.iter();
                buffers.filter(move |buffer| problem.position(&buffer.device, buffer.host) == at)
            };
            let heads = solution.gauged.heads.iter();
            let heads = heads.filter(|heads| problem.position(&heads.device, heads.host) == at);
            let gauged: u64 = own().map(|buffer| buffer.weights).sum();
            let mut weights = expected[at];
            // Alignment, and small tensors that the engine makes itself.
            weights.dense += gauged.saturating_sub(weights.total());
            let (k, v) = (per_element(problem, true), per_element(problem, false));
            let grows = cache[at] - fixed[at];
            let keys = u64::try_from(u128::from(grows) * u128::from(k) / u128::from(k + v))
                .unwrap_or(grows);
            Device {
                name,
                description,
                total,
                free,
                weights,
                kv: Cache {
                    keys,
                    values: grows - keys,
                    state: fixed[at],
                },
                compute: own().map(|buffer| buffer.compute).sum(),
                projector: 0,
                adapters: 0,
                draft: heads.map(|heads| heads.cache + heads.compute).sum(),
                margin: problem.margins[at],
            }
        })
        .collect()
}

/// Bytes of one head's key (or value) for a thousand tokens: keys and values share the cache in this proportion.
fn per_element(problem: &Problem<'_>, keys: bool) -> u64 {
    let (kind, length) = if keys {
        (problem.config.kv.k, problem.header.key_length)
    } else {
        (problem.config.kv.v, problem.header.value_length)
    };
    let (elements, bytes) = kind.block();
    1000 * length.max(1) * bytes / elements
}

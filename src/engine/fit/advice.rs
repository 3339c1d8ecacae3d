//! When nothing fits: what is missing where, and the nearest settings that would fit, each of them tried.

use std::time::{Duration, Instant};

use super::{
    FitError, HOST,
    search::{Gauge, Outcome, Problem, Shortage},
};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, KvConfig, KvType},
    engine::llama::Buffer,
};

/// Says what is missing and what would fit.
pub(super) fn shortage(
    problem: &Problem<'_>,
    shortage: &Shortage,
    gauge: &mut dyn Gauge,
) -> FitError {
    let used = problem.used(&shortage.nearest);
    let lines: Vec<_> = shortage
        .missing
        .iter()
        .map(|(device, missing)| {
            let at = problem.position(device, device == HOST);
            let free = problem
                .gpus
                .get(at)
                .map_or(problem.host.available, |gpu| gpu.free);
            format!(
                "{device} lacks {}: the model needs {} there beside a margin of {}, and {} is free",
                gib(*missing),
                gib(used[at]),
                gib(problem.margins[at]),
                gib(free)
            )
        })
        .collect();
    let ways = ways(problem, shortage, gauge);
    let ways = if ways.is_empty() {
        "no smaller context or cache would be enough: choose a smaller quantization or model from models.lock".to_owned()
    } else {
        format!("what would fit: {}", ways.join(" · "))
    };
    FitError::Shortage(format!(
        "the model does not fit: {}; {ways}",
        lines.join("; ")
    ))
}

/// Whoever waits for a refusal waits no longer than this for advice.
const PATIENCE: Duration = Duration::from_millis(700);

/// Changes of one setting that make it fit, each of them tried.
fn ways(problem: &Problem<'_>, shortage: &Shortage, gauge: &mut dyn Gauge) -> Vec<String> {
    let config = problem.config;
    let begun = Instant::now();
    let mut fits = |changed: EngineConfig| {
        let problem = Problem {
            config: &changed,
            ..problem.clone()
        };
        begun.elapsed() < PATIENCE && matches!(problem.solve(gauge), Ok(Outcome::Fits(_)))
    };
    let mut ways = Vec::new();
    let wishes = &config.placement;
    if wishes.gpu_layers != GpuLayers::Auto || wishes.cpu_moe_layers != CpuMoe::Auto {
        let mut changed = config.clone();
        changed.placement.gpu_layers = GpuLayers::Auto;
        changed.placement.cpu_moe_layers = CpuMoe::Auto;
        if fits(changed) {
            ways.push("engine.placement = {gpu_layers = 'auto, cpu_moe_layers = 'auto}".to_owned());
        }
    }
    // What grows with the number of cells can be told beforehand: only what may fit is tried.
    let may_fit = |cells: f64| cells * growing(shortage) + fixed(shortage) <= free(problem);
    let halves = |from: u32, least: u32| {
        std::iter::successors(Some(from / 2), |now| Some(now / 2))
            .take_while(move |now| *now >= least)
            .filter(move |now| may_fit(f64::from(*now) / f64::from(from)))
    };
    let with = |change: &dyn Fn(&mut EngineConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        changed
    };
    if let Some(context) = halves(config.context, 256)
        .find(|context| fits(with(&|changed| changed.context = *context)))
    {
        ways.push(format!("engine.context = {context}"));
    }
    if let Some(parallel) = halves(config.parallel, 1)
        .find(|parallel| fits(with(&|changed| changed.parallel = *parallel)))
    {
        ways.push(format!("engine.parallel = {parallel}"));
    }
    let (now_elements, now_bytes) = config.kv.k.block();
    let smaller = [KvType::Q8_0, KvType::Q4_0].into_iter().find(|kind| {
        let (elements, bytes) = kind.block();
        let ratio = (bytes * now_elements, now_bytes * elements);
        #[expect(clippy::cast_precision_loss, reason = "sizes of blocks")]
        let part = ratio.0 as f64 / ratio.1 as f64;
        part < 1.0
            && problem.header.key_length.is_multiple_of(elements)
            && problem.header.value_length.is_multiple_of(elements)
            && may_fit(part)
            && fits(with(&|changed| {
                changed.kv = KvConfig { k: *kind, v: *kind }
            }))
    });
    if let Some(kind) = smaller {
        ways.push(format!("engine.kv = {{k = '{0}, v = '{0}}}", kind.name()));
    }
    if config.ubatch > 128 && may_fit(1.0) && fits(with(&|changed| changed.ubatch = 128)) {
        ways.push("engine.ubatch = 128".to_owned());
    }
    ways
}

/// Bytes that grow with the cells of the cache.
fn growing(shortage: &Shortage) -> f64 {
    sum(shortage, |buffer| buffer.cache)
}

fn fixed(shortage: &Shortage) -> f64 {
    sum(shortage, |buffer| buffer.weights)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn sum(shortage: &Shortage, part: fn(&Buffer) -> u64) -> f64 {
    let buffers = &shortage.nearest.gauged.buffers;
    buffers.iter().map(part).sum::<u64>() as f64
}

/// Bytes free on all devices together.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn free(problem: &Problem<'_>) -> f64 {
    let gpus = problem.gpus.iter().map(|gpu| gpu.free);
    (gpus.sum::<u64>() + problem.host.available) as f64
}

fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    let gib = bytes as f64 / f64::from(1 << 30);
    format!("{gib:.2} GiB")
}

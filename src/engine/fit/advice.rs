//! When nothing fits: what is missing where, and the nearest settings that would fit, each of them tried.

use std::time::{Duration, Instant};

use super::{
    FitError, HOST, Settings,
    search::{Gauge, Outcome, Problem, Shortage, Solution},
};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, KvConfig, KvType},
    engine::llama::{Buffer, Gauged, Gpu, LoadError},
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
    let gpus = problem.gpus.iter().map(|gpu| gpu.free);
    FitError::Shortage {
        message: format!("the model does not fit: {}; {ways}", lines.join("; ")),
        room: gpus.sum::<u64>() + problem.host.available,
    }
}

/// Whoever waits for a refusal waits no longer than this for advice.
const PATIENCE: Duration = Duration::from_millis(700);

/// Changed problems, solved for as long as whoever waits has patience.
struct Trials<'a> {
    problem: &'a Problem<'a>,
    gauge: Patient<'a>,
}

/// A gauge that is soon tired of being asked.
struct Patient<'a> {
    gauge: &'a mut dyn Gauge,
    until: Instant,
}

impl Gauge for Patient<'_> {
    fn gauge(
        &mut self,
        config: &EngineConfig,
        context: u32,
        settings: &Settings,
    ) -> Result<Gauged, LoadError> {
        if Instant::now() > self.until {
            return Err(LoadError::Cancelled);
        }
        self.gauge.gauge(config, context, settings)
    }
}

impl Trials<'_> {
    /// The placement, if it fits with other settings.
    fn with(&mut self, change: impl FnOnce(&mut EngineConfig)) -> Option<Solution> {
        let mut config = self.problem.config.clone();
        change(&mut config);
        self.solve(&Problem {
            config: &config,
            ..self.problem.clone()
        })
    }

    fn solve(&mut self, problem: &Problem<'_>) -> Option<Solution> {
        match problem.solve(&mut self.gauge) {
            Ok(Outcome::Fits(solution)) if solution.gauged.astray.is_none() => Some(*solution),
            _ => None,
        }
    }
}

/// Changes of one setting that make it fit, each of them tried.
fn ways(problem: &Problem<'_>, shortage: &Shortage, gauge: &mut dyn Gauge) -> Vec<String> {
    let mut trials = Trials {
        problem,
        gauge: Patient {
            gauge,
            until: Instant::now() + PATIENCE,
        },
    };
    let mut ways = placements(&mut trials, shortage);
    ways.extend(sizes(&mut trials, shortage));
    ways
}

/// Less explicit wishes of where things lie. Sizes stay.
fn placements(trials: &mut Trials<'_>, shortage: &Shortage) -> Vec<String> {
    let wishes = &trials.problem.config.placement;
    let host = shortage.missing.iter().any(|(device, _)| device == HOST);
    let mut ways = Vec::new();
    if wishes.gpu_layers != GpuLayers::Auto
        && let Some(found) = trials.with(|changed| changed.placement.gpu_layers = GpuLayers::Auto)
    {
        let layers = found.settings.gpu_layers;
        let counted = |changed: &mut EngineConfig| {
            changed.placement.gpu_layers = GpuLayers::Count(layers);
        };
        let or = match trials.with(counted) {
            Some(_) => format!(" or {layers}"),
            None => String::new(),
        };
        ways.push(format!("engine.placement.gpu_layers = 'auto{or}"));
    }
    if let CpuMoe::Count(_) = wishes.cpu_moe_layers
        && !host
        && let Some(layers) = more_on_cpu(trials, shortage)
    {
        ways.push(format!("engine.placement.cpu_moe_layers = {layers}"));
    }
    if !wishes.tensor_split.is_empty()
        && trials
            .with(|changed| changed.placement.tensor_split.clear())
            .is_some()
    {
        ways.push("engine.placement.tensor_split = []".to_owned());
    }
    let explicit = wishes.gpu_layers != GpuLayers::Auto || wishes.cpu_moe_layers != CpuMoe::Auto;
    let all_auto = |changed: &mut EngineConfig| {
        changed.placement.gpu_layers = GpuLayers::Auto;
        changed.placement.cpu_moe_layers = CpuMoe::Auto;
        changed.placement.tensor_split.clear();
    };
    if ways.is_empty() && explicit && trials.with(all_auto).is_some() {
        let split = if wishes.tensor_split.is_empty() {
            ""
        } else {
            ", tensor_split = []"
        };
        ways.push(format!(
            "engine.placement = {{gpu_layers = 'auto, cpu_moe_layers = 'auto{split}}}"
        ));
    }
    if ways.is_empty() {
        ways.extend(fewer_gpus(trials, shortage));
    }
    ways
}

/// The fewest layers that must keep their experts on the CPU, if that is all that is wrong.
fn more_on_cpu(trials: &mut Trials<'_>, shortage: &Shortage) -> Option<u32> {
    let nearest = &shortage.nearest;
    if nearest.context != trials.problem.config.context {
        return None; // only a part of it was gauged
    }
    let layers = trials.problem.fewest_cpu_moe(&mut trials.gauge, nearest);
    let layers = layers.ok().flatten()?;
    trials
        .with(|changed| changed.placement.cpu_moe_layers = CpuMoe::Count(layers))
        .map(|_| layers)
}

/// Does without the GPUs that are too small for anything.
fn fewer_gpus(trials: &mut Trials<'_>, shortage: &Shortage) -> Option<String> {
    let problem = trials.problem;
    let lacks = |name: &str| shortage.missing.iter().any(|(device, _)| device == name);
    let (gpus, mut margins): (Vec<Gpu>, Vec<u64>) = problem
        .gpus
        .iter()
        .zip(problem.margins)
        .filter(|(gpu, _)| !lacks(&gpu.name))
        .map(|(gpu, margin)| (gpu.clone(), *margin))
        .unzip();
    if gpus.len() == problem.gpus.len() || !problem.config.placement.tensor_split.is_empty() {
        return None;
    }
    margins.extend(problem.margins.last());
    trials.solve(&Problem {
        gpus: &gpus,
        margins: &margins,
        ..problem.clone()
    })?;
    let names: Vec<_> = gpus.iter().map(|gpu| format!("{:?}", gpu.name)).collect();
    Some(format!("engine.placement.devices = [{}]", names.join(", ")))
}

/// Smaller caches and steps.
fn sizes(trials: &mut Trials<'_>, shortage: &Shortage) -> Vec<String> {
    let problem = trials.problem;
    let config = problem.config;
    let mut ways = Vec::new();
    // What grows with the number of cells can be told beforehand: only what may fit is tried.
    let may_fit = |cells: f64| cells * growing(shortage) + fixed(shortage) <= free(problem);
    let halves = |from: u32, least: u32| {
        std::iter::successors(Some(from / 2), |now| Some(now / 2))
            .take_while(move |now| *now >= least)
            .filter(move |now| may_fit(f64::from(*now) / f64::from(from)))
    };
    if let Some(context) = halves(config.context, 256)
        .find(|context| trials.with(|changed| changed.context = *context).is_some())
    {
        ways.push(format!("engine.context = {context}"));
    }
    if let Some(parallel) = halves(config.parallel, 1).find(|parallel| {
        trials
            .with(|changed| changed.parallel = *parallel)
            .is_some()
    }) {
        ways.push(format!("engine.parallel = {parallel}"));
    }
    let smaller = [KvType::Q8_0, KvType::Q4_0].into_iter().find(|kind| {
        let (block, _) = kind.block();
        let part = 2.0 * element(*kind) / (element(config.kv.k) + element(config.kv.v));
        part < 1.0
            && problem.header.key_length.is_multiple_of(block)
            && problem.header.value_length.is_multiple_of(block)
            && may_fit(part)
            && trials
                .with(|changed| changed.kv = KvConfig { k: *kind, v: *kind })
                .is_some()
    });
    if let Some(kind) = smaller {
        ways.push(format!("engine.kv = {{k = '{0}, v = '{0}}}", kind.name()));
    }
    if config.ubatch > 128 && may_fit(1.0) && trials.with(|changed| changed.ubatch = 128).is_some()
    {
        ways.push("engine.ubatch = 128".to_owned());
    }
    ways
}

/// Bytes of one element in the cache.
fn element(kind: KvType) -> f64 {
    let (elements, bytes) = kind.block();
    bytes as f64 / elements as f64
}

/// Bytes that grow with the cells of the cache.
fn growing(shortage: &Shortage) -> f64 {
    sum(shortage, |buffer| buffer.cache)
}

fn fixed(shortage: &Shortage) -> f64 {
    sum(shortage, |buffer| buffer.weights)
}

fn sum(shortage: &Shortage, part: fn(&Buffer) -> u64) -> f64 {
    let buffers = &shortage.nearest.gauged.buffers;
    buffers.iter().map(part).sum::<u64>() as f64
}

/// Bytes free on all devices together.
fn free(problem: &Problem<'_>) -> f64 {
    let gpus = problem.gpus.iter().map(|gpu| gpu.free);
    (gpus.sum::<u64>() + problem.host.available) as f64
}

fn gib(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    format!("{gib:.2} GiB")
}

#[cfg(test)]
mod tests;

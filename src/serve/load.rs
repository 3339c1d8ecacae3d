//! From a verified file to a model that has decoded: the part of the start that `generate` shares.

use std::{
    fmt,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use tracing::{info, warn};

use super::{senses, states::States};
use crate::{
    api::{Scale, Work},
    chat::{Chat, ChatError},
    config::{Config, Overflow},
    engine::{
        self, Tuning, Worth, embed,
        fit::{self, Files, FitError, Plan, memory::HostMemory},
        llama::{self, Encoder, Llama, LoadError, Weights},
        lookup,
        state::Places,
        task::{Pooling, Task},
    },
    report::{self, Allocated},
};

/// A model, warm and ready, and the thread that decodes.
pub(crate) struct Loaded {
    /// The plan, and what was then allocated.
    pub(crate) placement: Value,
    pub(crate) work: Work,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) weights: Arc<Weights>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    #[error(transparent)]
    Engine(#[from] LoadError),
    #[error(transparent)]
    Fit(#[from] FitError),
    #[error("{0}")]
    Chat(#[from] ChatError),
}

/// What the load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reading weights; how far, in percent.
    Weights(u8),
    WarmUp,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(percent) => write!(f, "{percent} %"),
            Self::WarmUp => f.write_str("warm-up"),
        }
    }
}

/// Loads the model as planned and starts its thread; returns once it has decoded. [`llama::init`] comes first.
///
/// Where the margin was left to the plan and turns out too small for this card, the placement is made again with a
/// larger one: a start that takes longer is better than none.
///
/// `states`: where those of its sequences may lie. `template` replaces the model's own chat template. `report` returns whether to go on.
///
/// [`llama::init`]: crate::engine::llama::init
pub(crate) fn load(
    files: Files<'_>,
    mut plan: Plan,
    config: &Config,
    states: &States,
    template: Option<&str>,
    report: &mut dyn FnMut(Step) -> bool,
) -> Result<Loaded, LoadFailure> {
    const MORE_MIB: u32 = 256;
    let mut margin = None;
    loop {
        match attempt(files, &plan, config, states, template, report) {
            Err(LoadFailure::Engine(LoadError::WarmUp(why)))
                if config.engine.placement.margin.is_none()
                    && margin.is_none_or(|margin| margin < 4 * MORE_MIB) =>
            {
                let mut engine = config.engine.clone();
                let larger = margin.unwrap_or(MORE_MIB) + MORE_MIB;
                engine.placement.margin = Some(larger);
                plan = fit::fit_all(config.model.kind, files, &engine)?;
                if !plan.uses_gpu() {
                    return Err(LoadError::WarmUp(why).into());
                }
                warn!(%why, margin_mib = larger, "the warm-up failed: once more with a larger margin");
                margin = Some(larger);
            }
            end => return end,
        }
    }
}

fn attempt(
    files: Files<'_>,
    plan: &Plan,
    config: &Config,
    states: &States,
    template: Option<&str>,
    report: &mut dyn FnMut(Step) -> bool,
) -> Result<Loaded, LoadFailure> {
    let (mut last, mut go_on) = (None, true);
    let weights = Weights::load(files.model, plan, &mut |part| {
        let percent = percent(part);
        // The engine reports every tensor; news is only another percent.
        if last.replace(percent) != Some(percent) {
            go_on = report(Step::Weights(percent));
        }
        go_on
    })?;
    let (work, thread, buffers) = match plan.settings.task {
        Task::Generate => {
            let places = states.places(config, plan);
            generator(&weights, files, plan, config, places, template, report)?
        }
        Task::Encode(_) => encoder(&weights, plan, config, report)?,
    };
    report::log_allocated(plan, &buffers);
    log_free(plan);
    Ok(Loaded {
        placement: report::json_allocated(plan, &buffers),
        work,
        thread,
        weights,
    })
}

/// An engine that is warm, its thread, and the memory that it took.
type Warm = (Work, JoinHandle<()>, Allocated);

fn generator(
    weights: &Arc<Weights>,
    files: Files<'_>,
    plan: &Plan,
    config: &Config,
    places: Places,
    template: Option<&str>,
    report: &mut dyn FnMut(Step) -> bool,
) -> Result<Warm, LoadFailure> {
    // Before the warm-up: a template that cannot be read is cheaper to find here.
    let chat = Chat::new(Some(weights), template)?;
    if !report(Step::WarmUp) {
        return Err(LoadError::Cancelled.into());
    }
    let (settings, own, planned) = (config.engine.clone(), Arc::clone(weights), plan.clone());
    let draft = files.draft.map(ToOwned::to_owned);
    let (tell, seen) = mpsc::channel();
    let adapters = files.adapters.to_vec();
    let (engine, thread) = engine::start_in(places, tuning(config)?, move || {
        let mut llama = Llama::open_with(own, &settings, &planned, &adapters)?;
        let mut taken = Allocated {
            model: llama.buffers(),
            draft: llama.heads_buffers(),
        };
        if let (Some(file), Some(plan)) = (draft, &planned.draft) {
            let (companion, buffers) = llama::companion(&file, &settings, plan)?;
            llama = llama.with_drafter(Box::new(companion));
            taken.draft = buffers;
        }
        let _ = tell.send(taken);
        Ok::<_, LoadError>(llama)
    })?;
    let buffers = seen.recv().unwrap_or_default();
    let senses = files
        .projector
        .map(|file| senses::open(file, weights, plan, config, &engine))
        .transpose()?;
    let work = Work::Generate {
        engine,
        chat,
        senses,
    };
    Ok((work, thread, buffers))
}

fn encoder(
    weights: &Arc<Weights>,
    plan: &Plan,
    config: &Config,
    report: &mut dyn FnMut(Step) -> bool,
) -> Result<Warm, LoadFailure> {
    if !report(Step::WarmUp) {
        return Err(LoadError::Cancelled.into());
    }
    let (settings, own, planned) = (config.engine.clone(), Arc::clone(weights), plan.clone());
    let (tell, seen) = mpsc::channel();
    let (engine, thread) = embed::start(config.limits.queue, move || {
        let encoder = Encoder::open(own, &settings, &planned)?;
        let _ = tell.send(Allocated {
            model: encoder.buffers(),
            draft: Vec::new(),
        });
        Ok::<_, LoadError>(encoder)
    })?;
    let buffers = seen.recv().unwrap_or_default();
    let work = match engine.facts().pooling {
        Pooling::Rank => Work::Rank {
            engine,
            pairing: weights.pairing(),
            scale: scale(&plan.model.architecture),
        },
        _ => Work::Embed { engine },
    };
    Ok((work, thread, buffers))
}

/// llama.cpp ends the graph of these rerankers with a softmax.
fn scale(architecture: &str) -> Scale {
    match architecture {
        "qwen3" | "qwen3vl" => Scale::Probability,
        _ => Scale::Logit,
    }
}

/// The part of the configuration that the scheduler heeds. Call when the weights are in memory.
fn tuning(config: &Config) -> Result<Tuning, FitError> {
    const PART: u64 = 4;
    const MOST_MIB: u64 = 8192;
    let free = HostMemory::now().available >> 20;
    let mib = match config.cache.ram.map(u64::from) {
        None => (free / PART).min(MOST_MIB),
        Some(mib) if mib > free => {
            return Err(FitError::Refused {
                field: "cache.ram",
                why: format!(
                    "{mib} MiB are more than the {free} MiB that are free beside the model; at most {free} would fit, \
                     and 'auto takes {}",
                    (free / PART).min(MOST_MIB)
                ),
            });
        }
        Some(mib) => mib,
    };
    info!(mib, "host memory for computed prompts");
    Ok(Tuning {
        queue: config.limits.queue,
        max_gap: config
            .engine
            .schedule
            .max_gap
            .map(|millis| Duration::from_millis(millis.into())),
        cache_bytes: usize::try_from(mib << 20).unwrap_or(usize::MAX),
        checkpoint_every: config.cache.checkpoint_every as usize,
        lookup: config.engine.speculate.ngram,
        most_guesses: config.engine.speculate.most(lookup::MOST) as usize,
        worth: Worth::Measured,
        reproducible: config.engine.reproducible,
        shifts: config.engine.overflow == Overflow::Shift,
    })
}

/// What the GPUs have left once the kernels have taken what they need.
fn log_free(plan: &Plan) {
    if !plan.uses_gpu() {
        return;
    }
    for gpu in llama::gpus() {
        if let Some(planned) = plan.devices.iter().find(|device| device.name == gpu.name) {
            let before = planned.free.saturating_sub(planned.used());
            info!(
                device = gpu.name,
                free_mib = gpu.free >> 20,
                kernels_mib = before.saturating_sub(gpu.free) >> 20,
                "after the warm-up"
            );
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0–100 just before"
)]
fn percent(part: f32) -> u8 {
    (part * 100.0).clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percent_stays_in_range_whatever_the_engine_reports() {
        assert_eq!(
            [-1.0, 0.0, 0.426, 1.0, 7.0, f32::NAN].map(percent),
            [0, 0, 42, 100, 100, 0]
        );
    }
}

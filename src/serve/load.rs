//! From a verified file to a model that has decoded: the part of the start that `generate` shares.

use std::{fmt, path::Path, sync::Arc, thread::JoinHandle};

use tracing::info;

use crate::{
    chat::{Chat, ChatError},
    config::Config,
    engine::{
        self, Engine,
        fit::{FitError, Plan},
        llama::{self, Llama, LoadError, Weights},
    },
};

/// A model, warm and ready, and the thread that decodes.
pub(crate) struct Loaded {
    pub(crate) plan: Plan,
    pub(crate) engine: Engine,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) weights: Arc<Weights>,
    pub(crate) chat: Chat,
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
/// `template` replaces the model's own chat template. `report` returns whether to go on.
///
/// [`llama::init`]: crate::engine::llama::init
pub(crate) fn load(
    file: &Path,
    plan: Plan,
    config: &Config,
    template: Option<&str>,
    report: &mut dyn FnMut(Step) -> bool,
) -> Result<Loaded, LoadFailure> {
    let (mut last, mut go_on) = (None, true);
    let weights = Weights::load(file, &plan, &mut |part| {
        let percent = percent(part);
        // The engine reports every tensor; news is only another percent.
        if last.replace(percent) != Some(percent) {
            go_on = report(Step::Weights(percent));
        }
        go_on
    })?;
    // Before the warm-up: a template that cannot be read is cheaper to find here.
    let chat = Chat::new(Some(&weights), template)?;
    if !report(Step::WarmUp) {
        return Err(LoadError::Cancelled.into());
    }
    let (settings, own) = (config.engine.clone(), Arc::clone(&weights));
    let planned = plan.clone();
    let (engine, thread) = engine::start(config.limits.queue, move || {
        Llama::open(own, &settings, &planned)
    })?;
    for gpu in llama::gpus() {
        let planned = plan.devices.iter().find(|device| device.name == gpu.name);
        info!(
            device = gpu.name,
            free_mib = gpu.free >> 20,
            planned_free_mib =
                planned.map(|device| device.free.saturating_sub(device.used()) >> 20),
            "after the warm-up"
        );
    }
    Ok(Loaded {
        plan,
        engine,
        thread,
        weights,
        chat,
    })
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

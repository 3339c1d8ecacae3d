//! The projector at start: opened beside the engine, and warm before the first request.

use std::{path::Path, sync::Arc, time::Duration};

use tracing::info;

use super::patterns;
use crate::{
    config::Config,
    engine::{
        Adapters, Claimant, Engine, Enough, Event, Job, Sampling, Token,
        fit::Plan,
        llama::{LoadError, Projection, Projector, Weights},
        media::Prompt,
        senses::{self, Medium, Perceived, Senses, Unperceived},
        threads,
    },
};

/// Whose medium the warm-up's is: nobody's.
const NOBODY: u64 = u64::MAX;

/// Where and how the projector of a plan computes. On a CPU it has half of the threads that read prompts: streams go on
/// while it works.
pub(super) fn projection(file: &Path, plan: &Plan) -> Projection {
    let device = plan.projector_gpu().map(str::to_owned);
    let threads = match device {
        Some(_) => plan.threads_batch,
        None => (plan.threads_batch / 2).max(1),
    };
    Projection {
        file: file.to_owned(),
        device,
        threads,
        ubatch: plan.ubatch,
    }
}

/// Opens the projector on a thread of its own and takes a picture and a sound through it and the engine, as far as it
/// sees and hears.
pub(super) fn open(
    file: &Path,
    weights: &Arc<Weights>,
    plan: &Plan,
    config: &Config,
    engine: &Engine,
) -> Result<Senses, LoadError> {
    let place = projection(file, plan);
    let on_gpu = place.device.is_some();
    info!(
        device = place.device.as_deref().unwrap_or("CPU"),
        threads = place.threads,
        "projector"
    );
    let (own, mask) = (Arc::clone(weights), config.engine.cpu_mask.clone());
    let budget = usize::try_from(u64::from(config.cache.images) << 20).unwrap_or(usize::MAX);
    let senses = senses::start(budget, move || {
        if let Some(cpus) = mask.as_deref().and_then(threads::parse_list) {
            threads::keep_to(&cpus)
                .map_err(|error| LoadError::Context(format!("engine.cpu_mask: {error}")))?;
        }
        let mut projector = Projector::open(own, place)?;
        let faculties = projector.faculties();
        Ok((faculties, move |medium: &Medium| projector.perceive(medium)))
    })?;
    let perceive = |what: &str, medium: Medium| {
        let perceived = senses.perceive_now(NOBODY, medium);
        perceived.map_err(|why: Unperceived| LoadError::File {
            path: file.to_owned(),
            why: format!("{what}: {why}"),
        })
    };
    if senses.sees() {
        let picture = patterns::picture(patterns::PLAIN, patterns::PLAIN);
        let perceived = perceive("a plain picture", picture)?;
        decode(engine, &perceived, "an image")?;
    }
    if let Some(rate) = senses.hears() {
        let sound = patterns::sound(rate, Duration::from_secs(1));
        let perceived = perceive("a plain sound", sound)?;
        decode(engine, &perceived, "a sound")?;
    }
    if on_gpu {
        // What the largest ones take is known only now: better here than in a request.
        if senses.sees() {
            let side = u32::try_from(config.limits.image_pixels.isqrt()).unwrap_or(u32::MAX);
            let largest = patterns::picture(side, side);
            perceive("the largest picture (limits.image_pixels)", largest)?;
        }
        if let Some(rate) = senses.hears() {
            let longest = patterns::sound(rate, config.limits.audio_length);
            perceive("the longest sound (limits.audio_length)", longest)?;
        }
    }
    senses.forget();
    Ok(senses)
}

/// One token after `what` was perceived.
fn decode(engine: &Engine, perceived: &Perceived, what: &str) -> Result<(), LoadError> {
    const ANY: Token = 0;
    const PATIENCE: Duration = Duration::from_mins(10);
    let failed = |why: String| LoadError::WarmUp(format!("with {what}: {why}"));
    let mut prompt = Prompt::default();
    senses::place(perceived, &mut prompt);
    let media_tokens = prompt.tokens.len();
    prompt.text(&[ANY]);
    let job = Job {
        prompt: prompt.tokens,
        media: prompt.media,
        max_tokens: 1,
        shift: None,
        forgotten: 0,
        sampling: Sampling::default(),
        grammar: None,
        stop: Vec::new(),
        visible: Vec::new(),
        stop_tokens: Vec::new(),
        prediction: Vec::new(),
        enough: Enough::default(),
        ignore_eos: true,
        score_prompt: false,
        min_tokens: 0,
        logprobs: None,
        tenant: None,
        adapters: Adapters::default(),
        claimant: Claimant::default(),
        queue_wait: PATIENCE,
        deadline: PATIENCE,
    };
    let mut events = engine.submit(job).map_err(|refused| {
        failed(format!(
            "a plain one takes {media_tokens} tokens: {refused}"
        ))
    })?;
    while let Some(event) = events.blocking_recv() {
        if let Event::End(end) = event {
            return end.map(|_| ()).map_err(|why| failed(why.to_string()));
        }
    }
    Err(failed("the engine ended without a word".into()))
}

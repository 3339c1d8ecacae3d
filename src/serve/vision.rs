//! The projector at start: opened beside the engine, and warm before the first request.

use std::{path::Path, sync::Arc, time::Duration};

use tracing::info;

use crate::{
    config::Config,
    engine::{
        Claimant, Engine, Enough, Event, Job, Sampling, Token,
        fit::Plan,
        llama::{LoadError, Projection, Projector, Weights},
        media::Prompt,
        threads,
        vision::{self, Picture, Seen, Unseen, Vision},
    },
};

/// A plain picture, in pixels of each side.
pub(crate) const PLAIN: u32 = 384;

/// Whose picture the warm-up's is: nobody's.
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

/// Opens the projector on a thread of its own and takes a picture through it and the engine.
pub(super) fn open(
    file: &Path,
    weights: &Arc<Weights>,
    plan: &Plan,
    config: &Config,
    engine: &Engine,
) -> Result<Vision, LoadError> {
    let place = projection(file, plan);
    let on_gpu = place.device.is_some();
    info!(
        device = place.device.as_deref().unwrap_or("CPU"),
        threads = place.threads,
        "projector"
    );
    let (own, mask) = (Arc::clone(weights), config.engine.cpu_mask.clone());
    let budget = usize::try_from(u64::from(config.cache.images) << 20).unwrap_or(usize::MAX);
    let vision = vision::start(budget, move || {
        if let Some(cpus) = mask.as_deref().and_then(threads::parse_list) {
            threads::keep_to(&cpus)
                .map_err(|error| LoadError::Context(format!("engine.cpu_mask: {error}")))?;
        }
        let mut projector = Projector::open(own, place)?;
        Ok(move |picture: &Picture| projector.see(picture))
    })?;
    let refuse = |why: Unseen| LoadError::File {
        path: file.to_owned(),
        why: why.to_string(),
    };
    let seen = vision
        .see_now(NOBODY, pattern(PLAIN, PLAIN))
        .map_err(refuse)?;
    decode(engine, &seen)?;
    if on_gpu {
        // What the largest picture takes is known only now: better here than in a request.
        let side = u32::try_from(config.limits.image_pixels.isqrt()).unwrap_or(u32::MAX);
        vision
            .see_now(NOBODY, pattern(side, side))
            .map_err(refuse)?;
    }
    vision.forget();
    Ok(vision)
}

/// One token after the picture.
fn decode(engine: &Engine, seen: &Seen) -> Result<(), LoadError> {
    const ANY: Token = 0;
    const PATIENCE: Duration = Duration::from_mins(10);
    let failed = |why: String| LoadError::WarmUp(format!("with an image: {why}"));
    let mut prompt = Prompt::default();
    vision::place(seen, &mut prompt);
    let image_tokens = prompt.tokens.len();
    prompt.text(&[ANY]);
    let job = Job {
        prompt: prompt.tokens,
        media: prompt.media,
        max_tokens: 1,
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
        claimant: Claimant::default(),
        queue_wait: PATIENCE,
        deadline: PATIENCE,
    };
    let mut events = engine.submit(job).map_err(|refused| {
        failed(format!(
            "a picture of {PLAIN} × {PLAIN} pixels takes {image_tokens} tokens: {refused}"
        ))
    })?;
    while let Some(event) = events.blocking_recv() {
        if let Event::End(end) = event {
            return end.map(|_| ()).map_err(|why| failed(why.to_string()));
        }
    }
    Err(failed("the engine ended without a word".into()))
}

/// A picture whose colours run.
pub(crate) fn pattern(width: u32, height: u32) -> Picture {
    let shade = |at: u32, of: u32| u8::try_from(u64::from(at) * 255 / u64::from(of)).unwrap_or(255);
    let rows = (0..height).flat_map(|y| {
        (0..width).flat_map(move |x| {
            [
                shade(x, width),
                shade(y, height),
                shade(x ^ y, width.max(height)),
            ]
        })
    });
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&width.to_le_bytes());
    digest[4..8].copy_from_slice(&height.to_le_bytes());
    Picture {
        digest,
        width,
        height,
        rgb: rows.collect(),
    }
}

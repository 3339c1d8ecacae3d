//! `GET /status`: what the server does just now, in one answer that a page may ask for every second.

mod rate;
mod recent;

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use axum::{Json, extract::State};
use serde::Serialize;

pub(super) use self::recent::{Recent, Request};
use self::{
    rate::{Meter, Rate},
    recent::Told,
};
use super::{App, Service, Stage, Work};
use crate::gpu::Reading;

/// What is remembered from one look to the next.
pub(super) struct Board {
    began: Instant,
    meter: Meter,
    pub(super) recent: Arc<Recent>,
    /// For the drain, when requests still run and the stage knows nothing of the model any more.
    served: OnceLock<Weak<Service>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            meter: Meter::default(),
            recent: Arc::default(),
            served: OnceLock::new(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Status {
    /// `loading`, `ready`, `draining` or `failed`.
    stage: &'static str,
    /// Of the weights, while they are read.
    percent: Option<u8>,
    model: String,
    version: &'static str,
    uptime_s: f64,
    /// Null: no model is loaded, or none any more.
    serving: Option<Serving>,
    /// The latest first.
    recent: Vec<Told>,
}

#[derive(Serialize)]
struct Serving {
    /// `chat`, `embedding` or `rerank`.
    kind: &'static str,
    system_fingerprint: String,
    /// Tokens for each sequence.
    context: u32,
    sequences: u32,
    running: u32,
    queued: u32,
    /// Requests that may wait.
    queue: u32,
    /// Null at the first look after a while: a rate needs two.
    tokens_per_second: Option<Rate>,
    /// Tokens that the sequences hold, running or free. Null: the model keeps none.
    kv: Option<Level>,
    /// Bytes of host memory with sequences put aside, and how many there may be.
    prefix_cache: Option<Level>,
    /// Null: the driver does not answer.
    gpus: Option<Vec<Reading>>,
}

#[derive(Serialize)]
struct Level {
    used: u64,
    capacity: u64,
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Json<Status> {
    let board = &app.board;
    let now = app.stage.borrow().clone();
    let (stage, percent, service) = match now {
        Stage::Loading { percent } => ("loading", Some(percent), None),
        Stage::Ready(service) => {
            board.served.get_or_init(|| Arc::downgrade(&service));
            ("ready", None, Some(service))
        }
        Stage::Draining => {
            let served = board.served.get().and_then(Weak::upgrade);
            ("draining", None, served)
        }
        Stage::Failed => ("failed", None, None),
    };
    let serving = match service {
        Some(service) => Some(serving(board, &service).await),
        None => None,
    };
    Json(Status {
        stage,
        percent,
        model: app.metrics.model().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: (board.began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        serving,
        recent: board.recent.told(),
    })
}

async fn serving(board: &Board, service: &Service) -> Serving {
    let watch = service.work.watch();
    let (busy, size) = (watch.busy(), service.work.size());
    let (kv, prefix_cache) = levels(&service.work);
    Serving {
        kind: service.work.kind(),
        system_fingerprint: service.identity.fingerprint.clone(),
        context: size.context,
        sequences: size.parallel,
        running: busy.running,
        queued: busy.queued,
        queue: watch.shape().queue,
        tokens_per_second: board.meter.read(Instant::now(), watch.done()),
        kv,
        prefix_cache,
        gpus: service.gpus.now().await,
    }
}

fn levels(work: &Work) -> (Option<Level>, Option<Level>) {
    let Work::Generate { engine, .. } = work else {
        return (None, None);
    };
    let (kept, shape) = (engine.kept(), engine.shape());
    let kv = Level {
        used: kept.tokens.into(),
        capacity: u64::from(shape.context) * u64::from(shape.sequences),
    };
    let cache = Level {
        used: kept.bytes,
        capacity: shape.cache_bytes,
    };
    (Some(kv), Some(cache))
}

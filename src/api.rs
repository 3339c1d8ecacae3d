//! The HTTP surface: the one table of routes and layers.

mod auth;
mod body;
mod encode;
mod error;
mod fields;
mod health;
mod images;
mod native;
mod openai;
mod props;
mod record;
mod reply;
mod rerank;
mod tape;
mod turn;
mod work;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, Method, header},
    middleware,
    routing::{get, post},
};
use serde_json::Value;
use tokio::sync::watch;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

use self::{auth::Keys, error::ApiError};
pub use self::{
    tape::Tape,
    work::{Scale, Work},
};
use crate::{
    config::{Limits, Share},
    engine::{constrain::Constraints, model::Vocab},
    gpu::Gpus,
};

/// Where the server is in its life. Requests that need the model are answered only in `Ready`.
#[derive(Clone)]
pub enum Stage {
    Loading {
        percent: u8,
    },
    Ready(Arc<Service>),
    /// SIGTERM came: running requests go on, new ones get 503.
    Draining,
    /// The engine died; the process is about to end.
    Failed,
}

/// All that a request needs once the model is loaded.
pub struct Service {
    pub work: Work,
    pub vocab: Arc<dyn Vocab>,
    /// JSON schemas and grammars, compiled for the model's vocabulary.
    pub constraints: Arc<Constraints>,
    pub identity: Identity,
    /// What lies where, as [`report::json`] tells it; null when no plan was made.
    ///
    /// [`report::json`]: crate::report::json
    pub plan: Value,
    pub gpus: Gpus,
}

/// What is served, as clients see it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Key in `models.lock` (or the file's name).
    pub model: String,
    pub aliases: Vec<String>,
    /// Seconds since the epoch at which the model was loaded.
    pub created: u64,
    /// `system_fingerprint`: digest over engine bytes, weights and effective configuration.
    pub fingerprint: String,
    /// Body of `GET /version`.
    pub version: Value,
}

/// What the surface needs from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// Accepted API keys; empty: none is asked for.
    pub keys: Vec<String>,
    /// Whose cached prefixes a key's requests may reuse.
    pub share: Share,
    /// Where answered requests are recorded.
    pub tape: Option<Tape>,
}

/// What every request may look at.
struct App {
    stage: watch::Receiver<Stage>,
    limits: Limits,
    keys: Keys,
    tape: Option<Tape>,
}

/// The whole HTTP surface over the server's present stage.
pub fn router(stage: watch::Receiver<Stage>, settings: Settings) -> Router {
    let app = Arc::new(App {
        stage,
        limits: settings.limits,
        keys: Keys::new(&settings.keys, settings.share),
        tape: settings.tape,
    });
    let open = Router::new()
        .route("/health", get(health::health))
        .route("/v1/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::health));
    let keyed = Router::new()
        .route("/version", get(health::version))
        .route("/props", get(props::props))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/embedding", post(native::embedding))
        .route("/embeddings", post(native::embedding))
        .route("/v1/rerank", post(rerank::create))
        .route("/v1/reranking", post(rerank::create))
        .route("/rerank", post(rerank::create))
        .route("/reranking", post(rerank::create))
        // llama-server offers these two without the prefix as well.
        .route("/models", get(openai::models::list))
        .route("/chat/completions", post(openai::chat::create))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            tape::record,
        ))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::require_key,
        ));
    // Outermost last: the record sees what the panic layer made of a panic, and CORS answers
    // preflights, which carry no key.
    open.merge(keyed)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(cors())
        .layer(middleware::from_fn(record::keep))
        .with_state(app)
}

/// Any page may call, with a key of its own: no cookies are read here.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::DELETE,
            Method::OPTIONS,
        ])
        // SDKs invent new `x-stainless-*` headers with every release; `*` would leave out `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            record::REQUEST_ID,
            header::RETRY_AFTER,
            HeaderName::from_static("retry-after-ms"),
            HeaderName::from_static("x-should-retry"),
        ])
        .max_age(Duration::from_hours(1))
}

impl App {
    /// The loaded model, or why there is none at the moment.
    fn service(&self) -> Result<Arc<Service>, ApiError> {
        match &*self.stage.borrow() {
            Stage::Loading { .. } => Err(ApiError::Loading),
            Stage::Ready(service) => Ok(Arc::clone(service)),
            Stage::Draining => Err(ApiError::Draining),
            Stage::Failed => Err(ApiError::EngineDead),
        }
    }
}

/// 64 unpredictable-enough bits for ids and seeds: the standard library keys every hasher afresh.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

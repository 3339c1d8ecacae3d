//! The HTTP surface: the one table of routes and layers.

mod anthropic;
mod audio;
mod auth;
mod base64;
mod body;
mod document;
mod early;
mod encode;
mod error;
mod fields;
mod health;
mod id;
mod images;
mod loras;
mod metrics;
mod moment;
mod native;
mod ollama;
mod openai;
mod openapi;
mod page;
mod props;
mod record;
mod renamed;
mod reply;
mod rerank;
mod status;
mod tape;
mod turn;
mod work;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    http::{HeaderName, Method, header},
    middleware,
    routing::{get, post},
};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

pub use self::{
    auth::Key,
    early::Early,
    images::Internet,
    loras::{Lora, Loras},
    tape::Tape,
    work::{Scale, Work},
};
use self::{auth::Keys, error::ApiError, images::Remote, status::Board};
use crate::{
    config::{ImagesConfig, Limits, Normalize, Origins, Share},
    engine::{
        constrain::Constraints,
        model::{About, Vocab},
    },
    gpu::Gpus,
    metrics::Metrics,
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
    pub about: About,
    /// What lies where, as [`report::json`] tells it; null when no plan was made.
    ///
    /// [`report::json`]: crate::report::json
    pub plan: Value,
    pub gpus: Gpus,
}

/// Names that may change while the server runs.
pub type Aliases = Arc<ArcSwap<Vec<String>>>;

/// What is served, as clients see it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Key in `models.lock` (or the file's name).
    pub model: String,
    pub aliases: Aliases,
    pub loras: Loras,
    /// Seconds since the epoch at which the model was loaded.
    pub created: u64,
    /// `system_fingerprint`: digest over engine bytes, weights and effective configuration.
    pub fingerprint: String,
    /// Body of `GET /version`.
    pub version: Value,
}

/// What the surface needs from the configuration, and what may change while it serves.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// Accepted API keys; empty: none is asked for.
    pub keys: Vec<Key>,
    /// Whose cached prefixes a key's requests may reuse.
    pub share: Share,
    /// Names beside its own that the model answers to.
    pub aliases: Vec<String>,
    /// Web pages that may ask.
    pub origins: Origins,
    /// Images that requests give by their addresses.
    pub images: ImagesConfig,
    /// Parameters for requests that do not give them.
    pub defaults: Map<String, Value>,
    /// Whether what differs without meaning is taken out of prompts.
    pub normalize: Normalize,
}

/// What every request may look at.
struct App {
    stage: watch::Receiver<Stage>,
    limits: ArcSwap<Limits>,
    keys: ArcSwap<Keys>,
    aliases: Aliases,
    origins: ArcSwap<Origins>,
    images: ArcSwap<ImagesConfig>,
    /// Where images are fetched from.
    internet: Internet,
    defaults: ArcSwap<Map<String, Value>>,
    normalize: ArcSwap<Normalize>,
    /// Where answered requests are recorded.
    tape: Option<Tape>,
    board: Board,
    metrics: Arc<Metrics>,
    /// Answers that may be continued.
    responses: openai::responses::Store,
    early: Early,
}

/// The HTTP surface, whose settings may change while it serves.
#[derive(Clone)]
pub struct Surface(Arc<App>);

impl Surface {
    /// `model`: its name, known before it is loaded.
    pub fn new(
        stage: watch::Receiver<Stage>,
        model: &str,
        settings: Settings,
        tape: Option<Tape>,
        early: Early,
        internet: Internet,
    ) -> Self {
        let keys = settings.keys();
        Self(Arc::new(App {
            stage,
            responses: openai::responses::Store::new(settings.limits.responses_bytes),
            limits: ArcSwap::from_pointee(settings.limits),
            keys: ArcSwap::from_pointee(keys),
            aliases: Arc::new(ArcSwap::from_pointee(settings.aliases)),
            origins: ArcSwap::from_pointee(settings.origins),
            images: ArcSwap::from_pointee(settings.images),
            internet,
            defaults: ArcSwap::from_pointee(settings.defaults),
            normalize: ArcSwap::from_pointee(settings.normalize),
            tape,
            board: Board::new(),
            metrics: Arc::new(Metrics::new(model)),
            early,
        }))
    }

    /// Whether requests can have these defaults; `Err`: what is wrong with them.
    pub fn check_defaults(
        &self,
        service: &Service,
        defaults: &Map<String, Value>,
    ) -> Result<(), String> {
        turn::check_defaults(service, &self.0.limits(), defaults)
            .map_err(|error| format!("model.defaults.{error}"))
    }

    /// New settings, for requests that come from now on. `Err`: they cannot be had, and why; nothing has changed.
    pub fn change(&self, settings: Settings) -> Result<(), String> {
        if let Stage::Ready(service) = &*self.0.stage.borrow() {
            self.check_defaults(service, &settings.defaults)?;
        }
        self.0.keys.store(Arc::new(settings.keys()));
        self.0.responses.resize(settings.limits.responses_bytes);
        self.0.limits.store(Arc::new(settings.limits));
        self.0.aliases.store(Arc::new(settings.aliases));
        self.0.origins.store(Arc::new(settings.origins));
        self.0.images.store(Arc::new(settings.images));
        self.0.defaults.store(Arc::new(settings.defaults));
        self.0.normalize.store(Arc::new(settings.normalize));
        Ok(())
    }

    /// The model's other names, as they are at any time.
    pub fn aliases(&self) -> Aliases {
        Arc::clone(&self.0.aliases)
    }

    /// All routes over the server's present stage.
    pub fn router(&self) -> Router {
        router(Arc::clone(&self.0))
    }
}

impl Settings {
    fn keys(&self) -> Keys {
        Keys::new(self.keys.clone(), self.share, self.limits.queue)
    }
}

fn router(app: Arc<App>) -> Router {
    let open = Router::new()
        .route("/", get(page::page))
        .route("/health", get(health::health))
        .route("/v1/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::health))
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(openapi::page));
    let keyed = Router::new()
        .route("/version", get(health::version))
        .route("/props", get(props::props))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .merge(openai::responses::routes())
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/rerank", post(rerank::create))
        .route("/v1/reranking", post(rerank::create))
        // Where Cohere's present client asks.
        .route("/v2/rerank", post(rerank::create))
        .route("/rerank", post(rerank::create))
        .route("/reranking", post(rerank::create))
        // llama-server offers these two without the prefix as well.
        .route("/models", get(openai::models::list))
        .route("/chat/completions", post(openai::chat::create))
        .merge(anthropic::routes())
        .merge(native::routes())
        .merge(ollama::routes())
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            tape::record,
        ))
        // Not recorded: a recording holds JSON.
        .merge(audio::routes())
        .route_layer(middleware::from_fn(body::plain))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            early::receive,
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
        .layer(middleware::from_fn(anthropic::own_words))
        .layer(middleware::from_fn(ollama::own_words))
        .layer(cors(&app))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            record::keep,
        ))
        .with_state(app)
}

/// Whoever may call does so with a key of its own: no cookies are read here.
fn cors(app: &Arc<App>) -> CorsLayer {
    let app = Arc::clone(app);
    let may = AllowOrigin::predicate(move |origin, _| match &**app.origins.load() {
        Origins::Every(_) => true,
        Origins::Listed(origins) => origins.iter().any(|one| origin == one.as_str()),
    });
    CorsLayer::new()
        .allow_origin(may)
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
            anthropic::REQUEST_ID,
            header::RETRY_AFTER,
            HeaderName::from_static("retry-after-ms"),
            HeaderName::from_static("x-should-retry"),
        ])
        .max_age(Duration::from_hours(1))
}

impl App {
    /// As they are now; a request keeps those that it began with.
    fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// Where images may be fetched from, as of now.
    fn remote(&self) -> Remote {
        Remote::new(self.images.load_full(), self.internet.clone())
    }

    /// `body` with the configured defaults for what it does not say.
    fn with_defaults(&self, mut body: Map<String, Value>) -> Map<String, Value> {
        fill(&mut body, &self.defaults.load());
        body
    }

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

/// `null` is the same as absent, and a request may know a parameter under another name.
fn fill(body: &mut Map<String, Value>, defaults: &Map<String, Value>) {
    let other_names = |name: &str| -> &[&str] {
        match name {
            "max_tokens" => &["max_completion_tokens", "n_predict"],
            "reasoning_budget_tokens" => &["thinking_budget_tokens"],
            "repeat_penalty" => &["repetition_penalty"],
            _ => &[],
        }
    };
    for (name, value) in defaults {
        let given = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
        if !given(name) && !other_names(name).iter().any(|other| given(other)) {
            body.insert(name.clone(), value.clone());
        }
    }
}

/// 64 unpredictable-enough bits for ids and seeds: the standard library keys every hasher afresh.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_default_gives_way_to_what_is_asked_under_any_name() {
        let filled = |body: Value| {
            let (Value::Object(mut body), Value::Object(defaults)) = (
                body,
                json!({"max_tokens": 9, "repeat_penalty": 1.5, "top_k": 3}),
            ) else {
                unreachable!("both are objects")
            };
            fill(&mut body, &defaults);
            Value::Object(body)
        };
        assert_eq!(
            filled(json!({"n_predict": 1, "repetition_penalty": 1.1, "top_k": null})),
            json!({"n_predict": 1, "repetition_penalty": 1.1, "top_k": 3})
        );
        assert_eq!(
            filled(json!({"max_completion_tokens": null})),
            json!({"max_completion_tokens": null, "max_tokens": 9, "repeat_penalty": 1.5, "top_k": 3})
        );
    }
}

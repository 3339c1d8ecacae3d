//! The HTTP surface: the one table of routes and layers.

use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    chat::Chat,
    config::Limits,
    engine::{Engine, model::Vocab},
};

/// Where the server is in its life. Requests that need the model are answered only in `Ready`.
#[derive(Clone)]
pub enum Stage {
    Loading { percent: u8 },
    Ready(Arc<Service>),
    /// SIGTERM came: running requests go on, new ones get 503.
    Draining,
    /// The engine died; the process is about to end.
    Failed,
}

/// All that a request needs once the model is loaded.
pub struct Service {
    pub engine: Engine,
    pub vocab: Arc<dyn Vocab>,
    pub chat: Chat,
    pub identity: Identity,
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
}

/// The whole HTTP surface over the server's present stage.
pub fn router(_stage: watch::Receiver<Stage>, _settings: Settings) -> Router {
    Router::new()
}

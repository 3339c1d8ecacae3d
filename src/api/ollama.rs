//! The Ollama dialect: `/api/…`, for the many tools that speak only that.

mod answer;
mod asked;
mod chat;
mod context;
mod embed;
mod errors;
mod generate;
mod keep_alive;
mod load;
mod messages;
mod models;
mod names;
mod options;
mod refused;

use std::sync::Arc;

use axum::{
    Router,
    routing::{delete, get, post},
};

use super::App;
pub(super) use errors::own_words;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/chat", post(chat::create))
        .route("/api/generate", post(generate::create))
        .route("/api/embed", post(embed::embed))
        .route("/api/embeddings", post(embed::embeddings))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::running))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version))
        .route("/api/pull", post(refused::pull))
        .route("/api/push", post(refused::push))
        .route("/api/create", post(refused::create))
        .route("/api/copy", post(refused::copy))
        .route("/api/delete", delete(refused::delete))
}

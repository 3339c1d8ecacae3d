//! The native dialect: llama-server's own routes, a file for each family.

mod completion;
mod embedding;
pub(super) mod fim;
mod infill;
mod prompt;
mod refused;
mod samplers;
mod slots;
mod template;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use super::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/completion", post(completion::create))
        .route("/completions", post(completion::create))
        .route("/infill", post(infill::create))
        .route("/embedding", post(embedding::embedding))
        .route("/embeddings", post(embedding::embedding))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(template::apply))
        .route("/chat/completions/input_tokens", post(template::count))
        .route("/v1/chat/completions/input_tokens", post(template::count))
        .route("/slots", get(slots::list))
        .route("/slots/{id}", post(slots::act))
        .route(
            "/lora-adapters",
            get(refused::no_adapters).post(refused::adapters),
        )
        .route("/props", post(refused::props))
}

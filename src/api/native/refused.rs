//! Routes of llama-server that would change the server: told what to do instead.

use axum::Json;
use serde_json::Value;

use crate::api::error::ApiError;

/// `GET /lora-adapters`: none can be loaded.
pub(super) async fn no_adapters() -> Json<[Value; 0]> {
    Json([])
}

pub(super) async fn adapters() -> ApiError {
    ApiError::Unacceptable(
        "this server loads no LoRA adapters: merge them into the model's file".into(),
    )
}

pub(super) async fn props() -> ApiError {
    ApiError::Unacceptable(
        "the properties of this server are set in its configuration file and do not change while it runs".into(),
    )
}

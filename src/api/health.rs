//! Whether the process lives, whether it can answer, and what it is made of.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{App, Stage, error::ApiError};

/// 200 once the model answers; before that and while draining, 503 says why.
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.service()?;
    Ok(Json(json!({"status": "ok"})))
}

/// 200 as long as restarting the process would not help.
pub(super) async fn live(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let status = match &*app.stage.borrow() {
        Stage::Loading { .. } => "loading",
        Stage::Ready(_) => "ok",
        Stage::Draining => "draining",
        Stage::Failed => return Err(ApiError::EngineDead),
    };
    Ok(Json(json!({ "status": status })))
}

/// Versions and digests of everything that decides an answer.
pub(super) async fn version(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.service()?.identity.version.clone()))
}

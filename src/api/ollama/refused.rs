//! Requests that would change which models there are: told what to do instead.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use serde_json::{Value, json};

use super::names;
use crate::api::{App, body, error::ApiError, fields::Fields};

/// Pulling the model that is served finds it there.
pub(super) async fn pull(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let body = body::receive(body, &app.limits()).await?;
    let object = body::parse(&body)?;
    match names::wanted(Fields::new(&object), &service) {
        Ok(_) => Ok(Json(json!({"status": "success"}))),
        Err(ApiError::UnknownModel { wanted, served }) => Err(ApiError::Unacceptable(format!(
            "cannot pull '{wanted}': this server serves '{served}' only; models are pinned in models.lock with `llm-server \
             models add` and chosen in its configuration file"
        ))),
        Err(error) => Err(error),
    }
}

pub(super) async fn push() -> ApiError {
    refused("models are not pushed: models.lock says where the file comes from")
}

pub(super) async fn create() -> ApiError {
    refused(
        "models are not created here: pin a GGUF file in models.lock with `llm-server models add`",
    )
}

pub(super) async fn copy() -> ApiError {
    refused(
        "models are not copied: other names of the model are set in the configuration file (model.aliases)",
    )
}

pub(super) async fn delete() -> ApiError {
    refused("models are not deleted over HTTP: take the entry out of models.lock")
}

fn refused(why: &str) -> ApiError {
    ApiError::Unacceptable(why.to_owned())
}

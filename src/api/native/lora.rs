//! `/lora-adapters`: which adapters are loaded, and the scale of each for requests that say nothing of it.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    api::{App, body, error::ApiError},
    engine::{Token, model::Vocab},
};

#[derive(Serialize)]
pub(super) struct Adapter {
    id: usize,
    /// Its name in `models.lock`: callers need no paths of this machine.
    path: String,
    scale: f32,
    task_name: String,
    prompt_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alora_invocation_string: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alora_invocation_tokens: Vec<Token>,
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<Adapter>>, ApiError> {
    let service = app.service()?;
    let loras = service.identity.loras.now();
    let adapters = loras
        .into_iter()
        .enumerate()
        .map(|(id, (lora, scale))| Adapter {
            id,
            path: lora.name.clone(),
            scale,
            task_name: lora.task.clone(),
            prompt_prefix: lora.prompt_prefix.clone(),
            alora_invocation_string: text_of(&lora.invocation, &*service.vocab),
            alora_invocation_tokens: lora.invocation.clone(),
        });
    Ok(Json(adapters.collect()))
}

fn text_of(tokens: &[Token], vocab: &dyn Vocab) -> Option<String> {
    let mut bytes = Vec::new();
    for &token in tokens {
        vocab.piece(token, true, &mut bytes);
    }
    (!tokens.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    service.work.generator()?;
    let body = body::receive(body, &app.limits()).await?;
    let list: Value =
        serde_json::from_slice(&body).map_err(|error| ApiError::Json(error.to_string()))?;
    let Value::Array(list) = list else {
        return Err(ApiError::Json(
            "an array of objects with `id` and `scale` is expected".to_owned(),
        ));
    };
    service.identity.loras.change(&list)?;
    tracing::info!(scales = ?service.identity.loras.now().iter().map(|(_, scale)| scale).collect::<Vec<_>>(), "adapters");
    Ok(Json(json!({"success": true})))
}

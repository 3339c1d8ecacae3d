//! `POST /apply-template` and `…/input_tokens`: what a chat request's prompt is, and how long, without the engine.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{App, auth::Tenant, body, error::ApiError, turn},
    engine::Job,
};

#[derive(Serialize)]
pub(super) struct Prompt {
    prompt: String,
}

pub(super) async fn apply(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<Prompt>, ApiError> {
    let service = app.service()?;
    service.work.generator()?;
    let body = body::receive(body, &app.limits()).await?;
    let prompt = body::prepare(body, move |body| {
        let body = Value::Object(body::parse(body)?);
        let (_, chat) = service.work.generator()?;
        Ok(chat.render(&body)?.prompt)
    });
    Ok(Json(Prompt {
        prompt: prompt.await?,
    }))
}

#[derive(Serialize)]
pub(super) struct Count {
    input_tokens: usize,
    object: &'static str,
}

/// The request is checked as if it were to be answered.
pub(super) async fn count(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Json<Count>, ApiError> {
    let service = app.service()?;
    let as_it_is = |body, _: &_| Ok((body, ()));
    let (turn, ()) = turn::receive(&app, &service, tenant, body, as_it_is).await?;
    Ok(Json(Count {
        input_tokens: turn.jobs.first().map_or(0, Job::asked),
        object: "response.input_tokens",
    }))
}

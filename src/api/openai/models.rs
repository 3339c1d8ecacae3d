//! `GET /v1/models` and `GET /v1/models/{id}`: the one model, under each of its names.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::Serialize;

use crate::api::{App, Identity, error::ApiError};

#[derive(Serialize)]
pub(in crate::api) struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
pub(in crate::api) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// The model's own name first: clients that choose for themselves take the first.
pub(in crate::api) async fn list(State(app): State<Arc<App>>) -> Result<Json<List>, ApiError> {
    let service = app.service()?;
    let identity = &service.identity;
    let aliases = identity.aliases.load();
    let aliases = aliases.iter().filter(|alias| *alias != "*");
    let names = std::iter::once(&identity.model).chain(aliases);
    Ok(Json(List {
        object: "list",
        data: names.map(|name| model(name, identity)).collect(),
    }))
}

/// `id` may contain slashes.
pub(in crate::api) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    let service = app.service()?;
    // An id that is not UTF-8 is no model's.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    known(&id, &service.identity)?;
    Ok(Json(model(&id, &service.identity)))
}

/// Whether a request may call the served model `wanted`.
pub(in crate::api) fn known(wanted: &str, identity: &Identity) -> Result<(), ApiError> {
    let aliases = identity.aliases.load();
    let fits = |alias: &String| alias == "*" || alias == wanted;
    if wanted == identity.model || aliases.iter().any(fits) {
        return Ok(());
    }
    Err(ApiError::UnknownModel {
        wanted: wanted.to_owned(),
        served: identity.model.clone(),
    })
}

fn model(name: &str, identity: &Identity) -> Model {
    Model {
        id: name.to_owned(),
        object: "model",
        created: identity.created,
        owned_by: "llm-server",
    }
}

//! Kept answers: read again, deleted, and what they were asked with.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::header,
    response::IntoResponse,
};
use serde_json::{Map, Value, json};

use super::{history::conversation, store::Stored};
use crate::api::{App, auth::Tenant, error::ApiError, fields::Fields, id::Id};

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    Id(id): Id,
    RawQuery(query): RawQuery,
) -> Result<impl IntoResponse, ApiError> {
    let query = read_query(query.as_deref());
    let stream = Fields::new(&query).text("stream")?;
    if stream.is_some_and(|stream| stream != "false") {
        let message = "stream: a kept answer is not streamed again; leave it out";
        return Err(ApiError::invalid("stream", message));
    }
    let stored = find(&app, tenant, id)?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, stored.kept.resource.clone()))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    if !app.responses.delete(tenant.claimant.key, &id) {
        return Err(unknown(id));
    }
    Ok(Json(
        json!({"id": id, "object": "response", "deleted": true}),
    ))
}

/// Only what runs in the background can be cancelled, and nothing does: a client hangs up instead.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    find(&app, tenant, id)?;
    let message =
        "Cannot cancel a synchronous response: it has ended. Hang up to end one that runs.";
    Err(ApiError::Unacceptable(message.to_owned()))
}

/// The whole conversation that was answered, a page of it.
pub(super) async fn input_items(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    Id(id): Id,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let query = read_query(query.as_deref());
    let fields = Fields::new(&query);
    let limit: usize = fields.integer("limit", 1..=100)?.unwrap_or(20);
    let ascending = match fields.text("order")? {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(fields.wrong("order", "\"asc\" or \"desc\"")),
    };
    let stored = find(&app, tenant, id)?;
    let before = stored.kept.previous.as_ref();
    let before = before.map(conversation).unwrap_or_default();
    let before = before.into_iter().map(|item| item.value);
    let mut items: Vec<_> = before.chain(stored.input()).collect();
    if !ascending {
        items.reverse();
    }
    let from = match fields.text("after")? {
        None => 0,
        Some(after) => {
            let at = items.iter().position(|item| item["id"] == after);
            1 + at.ok_or_else(|| fields.wrong("after", "the id of one of these items"))?
        }
    };
    let page: Vec<_> = items.iter().skip(from).take(limit).collect();
    Ok(Json(json!({
        "object": "list",
        "first_id": page.first().map(|item| &item["id"]),
        "last_id": page.last().map(|item| &item["id"]),
        "has_more": from + page.len() < items.len(),
        "data": page,
    })))
}

fn find(app: &App, tenant: Tenant, id: String) -> Result<Arc<Stored>, ApiError> {
    let found = app.responses.get(tenant.claimant.key, &id);
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: String) -> ApiError {
    let kind = "Response";
    ApiError::Unknown { kind, id }
}

/// The query as fields: numbers where they can be, so that errors name them as in a body.
fn read_query(query: Option<&str>) -> Map<String, Value> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            let number = value.parse::<i64>().map(Value::from);
            let value = number.unwrap_or_else(|_| value.into());
            (name.to_owned(), value)
        })
        .collect()
}

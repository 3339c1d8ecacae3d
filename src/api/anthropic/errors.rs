//! Every error under `/v1/messages` in Anthropic's shape, with the header that names the request.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::request::THREAD;
use crate::api::{error::ApiError, record::Record};

pub(in crate::api) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Anthropic's own; the clients know it as "overloaded" and try again.
const OVERLOADED: u16 = 529;

/// `{"type": "error", …}`, as a body or as the last event of a stream.
#[derive(Serialize)]
pub(super) struct Body {
    r#type: &'static str,
    error: Detail,
    request_id: String,
}

#[derive(Serialize)]
struct Detail {
    r#type: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// What clients act on without reading the message.
#[derive(Serialize)]
struct Details {
    error_code: &'static str,
}

impl Body {
    pub(super) fn new(error: &ApiError, request_id: &str) -> Self {
        Self {
            r#type: "error",
            error: Detail {
                r#type: name(error.status()),
                message: message(error),
                details: details(error),
            },
            request_id: request_id.to_owned(),
        }
    }
}

/// Middleware around all routes: under `/v1/messages`, whatever failed is told Anthropic's way.
pub(in crate::api) async fn own_words(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/v1/messages" && !path.starts_with("/v1/messages/") {
        return next.run(request).await;
    }
    let record = request.extensions().get::<Arc<Record>>();
    let id = record.map_or_else(String::new, |record| record.id().to_owned());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let body = Json(Body::new(&error, &id)).into_response().into_body();
        *response.body_mut() = body;
        if response.status() == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(overloaded) = StatusCode::from_u16(OVERLOADED)
        {
            *response.status_mut() = overloaded;
        }
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn name(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// Clients that had a conversation kept send all of it again when they read this.
fn details(error: &ApiError) -> Option<Details> {
    match error {
        ApiError::Invalid { param, .. } if param == THREAD => Some(Details {
            error_code: "thread_not_found",
        }),
        _ => None,
    }
}

fn message(error: &ApiError) -> String {
    match error {
        // Claude Code compacts the conversation when it reads this.
        ApiError::ContextLength {
            prompt, context, ..
        } => format!("prompt is too long: {prompt} tokens > {context} maximum"),
        error => error.to_string(),
    }
}

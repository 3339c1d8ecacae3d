//! Bodies: a request's, received within its limits and read as one JSON object, and an answer's, appended as JSON.

use axum::{body::Body, extract::Request, http::header, middleware::Next, response::Response};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::error::ApiError;
use crate::config::Limits;

/// Bodies above this are parsed, rendered and tokenised off the threads that serve streams.
const LARGE_BYTES: usize = 16 << 10;

/// How much of a refused body is still read, so that the client gets to read the refusal:
/// closing a connection that is being written to loses the answer.
const DISCARD_BYTES: u64 = 64 << 20;

/// Middleware: a body that is compressed is refused as such, not as JSON that it is not.
pub(super) async fn plain(request: Request, next: Next) -> Result<Response, ApiError> {
    let encodings = request.headers().get_all(header::CONTENT_ENCODING);
    let encoded = encodings.iter().find(|given| {
        let given = given.as_bytes().trim_ascii();
        !given.is_empty() && !given.eq_ignore_ascii_case(b"identity")
    });
    if let Some(given) = encoded {
        let given = String::from_utf8_lossy(given.as_bytes()).into_owned();
        return Err(ApiError::Encoded(given));
    }
    Ok(next.run(request).await)
}

pub(super) async fn receive(body: Body, limits: &Limits) -> Result<Vec<u8>, ApiError> {
    timeout(limits.receive, collect(body, limits.body_bytes))
        .await
        .map_err(|_| ApiError::ReceiveTimeout(limits.receive))?
}

async fn collect(body: Body, limit_bytes: u64) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0_u64;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| ApiError::BrokenBody(error.to_string()))?;
        length = length.saturating_add(chunk.len() as u64);
        if length <= limit_bytes {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
            if length - limit_bytes > DISCARD_BYTES {
                break;
            }
        }
    }
    if length > limit_bytes {
        return Err(ApiError::BodyTooLarge { limit_bytes });
    }
    Ok(bytes)
}

pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    // A byte order mark, which some editors and shells put in front.
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiError::Json("an object is expected".to_owned())),
        Err(error) => Err(ApiError::Json(error.to_string())),
    }
}

/// Runs `work`, which takes time in proportion to the body, where it delays nobody else.
pub(super) async fn prepare<T: Send + 'static>(
    body: Vec<u8>,
    work: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.len() < LARGE_BYTES {
        return work(&body);
    }
    tokio::task::spawn_blocking(move || work(&body))
        .await
        .map_err(|error| ApiError::Internal(error.to_string()))?
}

/// Appends `value` as JSON.
pub(super) fn json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    if let Err(error) = serde_json::to_writer(out, value) {
        // Only a map with keys that are not strings gets here.
        tracing::error!(%error, "an answer could not be written as JSON");
    }
}

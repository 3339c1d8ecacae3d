//! Gives every request its id, and writes its one line into the log however it ends.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};

use super::random;
use crate::engine::{Times, Usage};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of one request. The last holder to let go writes the line: that is the
/// response body when one streams, and the middleware otherwise.
pub(super) struct Record {
    id: HeaderValue,
    route: String,
    began: Instant,
    status: OnceLock<StatusCode>,
    generation: OnceLock<Generation>,
}

/// What a generation came to.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) model: String,
    pub(super) usage: Usage,
    pub(super) times: Times,
    /// From the request's arrival to the first text.
    pub(super) first_text: Option<Duration>,
    pub(super) outcome: &'static str,
}

/// Middleware: a [`Record`] for every request, and `x-request-id` on every response.
pub(super) async fn keep(mut request: Request, next: Next) -> Response {
    let id = caller_id(request.headers()).unwrap_or_else(new_id);
    let route = request.extensions().get::<MatchedPath>();
    let record = Arc::new(Record {
        id: id.clone(),
        route: route.map_or("none", MatchedPath::as_str).to_owned(),
        began: Instant::now(),
        status: OnceLock::new(),
        generation: OnceLock::new(),
    });
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    let _ = record.status.set(response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

impl Record {
    pub(super) fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Only the first call counts.
    pub(super) fn generated(&self, generation: Generation) {
        let _ = self.generation.set(generation);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let id = self.id();
        let route = self.route.as_str();
        // No status: the client went away before there was an answer.
        let status = self.status.get().map(StatusCode::as_u16);
        let total_ms = millis(self.began.elapsed());
        match self.generation.get() {
            Some(generation) => {
                let Generation { usage, times, .. } = generation;
                tracing::info!(
                    target: "request",
                    id,
                    route,
                    status,
                    outcome = generation.outcome,
                    model = generation.model,
                    prompt_tokens = usage.prompt_tokens,
                    cached_tokens = usage.cached_tokens,
                    completion_tokens = usage.completion_tokens,
                    queued_ms = millis(times.queued),
                    prefill_ms = millis(times.prefill),
                    decode_ms = millis(times.decode),
                    ttft_ms = generation.first_text.map(millis),
                    total_ms,
                );
            }
            // Probes come every few seconds and say nothing new.
            None if route.contains("/health") => {
                tracing::debug!(target: "request", id, route, status, total_ms);
            }
            None => {
                let outcome = match status {
                    None => "hung up",
                    Some(..400) => "ok",
                    Some(_) => "refused",
                };
                tracing::info!(target: "request", id, route, status, outcome, total_ms);
            }
        }
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The caller's own id, if it can stand in a log and a header as it is.
fn caller_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&REQUEST_ID)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let sane = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain);
    sane.then(|| id.clone())
}

fn new_id() -> HeaderValue {
    let id = format!("req_{:016x}{:016x}", random(), random());
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_of_callers_are_echoed() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            caller_id(&headers).is_some()
        };
        assert!(id("a-1_b.C"));
        assert!(id(&"x".repeat(128)));
        assert!(!id(&"x".repeat(129)));
        assert!(!id(""));
        assert!(!id("a b"));
        assert!(!id("a\"b"));
    }
}

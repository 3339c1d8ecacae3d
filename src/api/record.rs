//! Gives every request its id; however it ends, counts it and writes its one line into the log.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{
    App,
    error::ApiError,
    random,
    status::{self, Recent},
};
use crate::{
    engine::{Finish, Times, Usage},
    metrics::{Metrics, NONE},
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of one request. The last holder to let go writes the line: that is the
/// response body when one streams, and the middleware otherwise.
pub(super) struct Record {
    id: HeaderValue,
    route: String,
    began: Instant,
    metrics: Arc<Metrics>,
    recent: Arc<Recent>,
    /// Name of the API key.
    key: OnceLock<Box<str>>,
    status: OnceLock<StatusCode>,
    /// Why there was no other answer.
    refused: OnceLock<&'static str>,
    generation: OnceLock<Generation>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The model ended its answer, or a stop string did.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// Answered without generating.
    Ok,
    /// The client went away.
    HungUp,
    /// By [`ApiError::name`].
    Failed(&'static str),
}

impl Outcome {
    /// One of a few words, for the log and for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Ok => "ok",
            Self::HungUp => "hung_up",
            Self::Failed(name) => name,
        }
    }
}

impl From<&Finish> for Outcome {
    fn from(finish: &Finish) -> Self {
        match finish {
            Finish::Eos | Finish::StopString(_) => Self::Stop,
            Finish::Length => Self::Length,
        }
    }
}

/// What a generation came to.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) model: String,
    pub(super) usage: Usage,
    pub(super) times: Times,
    /// From the request's arrival to the first text.
    pub(super) first_text: Option<Duration>,
    pub(super) outcome: Outcome,
}

/// Middleware: a [`Record`] for every request, and `x-request-id` on every response.
pub(super) async fn keep(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = caller_id(request.headers()).unwrap_or_else(new_id);
    let route = request.extensions().get::<MatchedPath>();
    let record = Arc::new(Record {
        id: id.clone(),
        route: route.map_or(NONE, MatchedPath::as_str).to_owned(),
        began: Instant::now(),
        metrics: Arc::clone(&app.metrics),
        recent: Arc::clone(&app.board.recent),
        key: OnceLock::new(),
        status: OnceLock::new(),
        refused: OnceLock::new(),
        generation: OnceLock::new(),
    });
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    let _ = record.status.set(response.status());
    if let Some(error) = response.extensions().get::<ApiError>() {
        let _ = record.refused.set(error.name());
    }
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

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// `key`: the name of the API key that came with it.
    pub(super) fn asked_by(&self, key: &str) {
        let _ = self.key.set(key.into());
    }

    /// Only the first call counts.
    pub(super) fn generated(&self, generation: Generation) {
        let _ = self.generation.set(generation);
    }
}

impl Record {
    fn outcome(&self) -> Outcome {
        let refused = || Outcome::Failed(self.refused.get().copied().unwrap_or("refused"));
        match (self.status.get(), self.generation.get()) {
            // Whoever has an answer that says otherwise did not hang up.
            (Some(status), Some(generation))
                if generation.outcome == Outcome::HungUp && status.as_u16() >= 400 =>
            {
                refused()
            }
            (_, Some(generation)) => generation.outcome,
            // The client went away before there was an answer.
            (None, None) => Outcome::HungUp,
            (Some(status), None) if status.as_u16() < 400 => Outcome::Ok,
            (Some(_), None) => refused(),
        }
    }

    fn count(&self, key: &str, outcome: Outcome, total: Duration) {
        self.metrics.ended(&self.route, key, outcome.name());
        if outcome == Outcome::HungUp {
            self.metrics.cancelled();
        }
        if self.generation.get().is_some() {
            self.metrics.lasted(total);
        }
    }

    /// For `GET /status`: what asked the model for something, or was refused.
    fn remember(&self, status: Option<u16>, outcome: &'static str, total: Duration) {
        let generation = self.generation.get();
        // Whoever tries doors shall not push out what others asked.
        let nothing_new =
            status.is_some_and(|code| code < 400) || is_probe(&self.route) || self.route == NONE;
        if generation.is_none() && nothing_new {
            return;
        }
        let usage = generation.map_or_else(Usage::default, |it| it.usage);
        let times = generation.map_or_else(Times::default, |it| it.times);
        self.recent.push(status::Request {
            id: self.id().to_owned(),
            key: self.key.get().map(ToString::to_string),
            route: self.route.clone(),
            status,
            outcome,
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
            queued_ms: millis(times.queued),
            ttft_ms: generation.and_then(|it| it.first_text).map(millis),
            decode_ms: millis(times.decode),
            total_ms: millis(total),
        });
    }
}

/// Asked every few seconds, and says nothing new.
fn is_probe(route: &str) -> bool {
    route.contains("/health") || ["/metrics", "/status"].contains(&route)
}

/// The names of fields are a contract: the journal knows them in capitals.
impl Drop for Record {
    fn drop(&mut self) {
        let request_id = self.id();
        let route = self.route.as_str();
        let key = self.key.get().map_or(NONE, |key| key);
        let status = self.status.get().map(StatusCode::as_u16);
        let result = self.outcome();
        let outcome = result.name();
        let total = self.began.elapsed();
        self.count(key, result, total);
        self.remember(status, outcome, total);
        let total_us = micros(total);
        let ms = total.as_millis();
        match self.generation.get() {
            Some(generation) => {
                let Generation { usage, times, .. } = generation;
                tracing::info!(
                    target: "request",
                    request_id,
                    key,
                    route,
                    status,
                    outcome,
                    model = generation.model,
                    tokens_in = usage.prompt_tokens,
                    cached_tokens = usage.cached_tokens,
                    tokens_out = usage.completion_tokens,
                    guessed_tokens = usage.accepted_tokens + usage.rejected_tokens,
                    accepted_tokens = usage.accepted_tokens,
                    queued_us = micros(times.queued),
                    prefill_us = micros(times.prefill),
                    decode_us = micros(times.decode),
                    ttft_us = generation.first_text.map(micros),
                    total_us,
                    "{route} {outcome}: {} tokens in ({} cached), {} out, {ms} ms",
                    usage.prompt_tokens,
                    usage.cached_tokens,
                    usage.completion_tokens,
                );
            }
            // Probes come every few seconds and say nothing new.
            None if is_probe(route) => {
                tracing::debug!(target: "request", request_id, route, status, total_us, "{route} {outcome}, {ms} ms");
            }
            None => {
                tracing::info!(
                    target: "request",
                    request_id,
                    key,
                    route,
                    status,
                    outcome,
                    model = self.metrics.model(),
                    total_us,
                    "{route} {outcome}, {ms} ms",
                );
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

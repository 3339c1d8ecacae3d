//! The latest requests that asked the model for something, or were refused: what became of them, never what they said.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;

/// Requests that are remembered.
const MOST: usize = 64;

#[derive(Default)]
pub(in crate::api) struct Recent(Mutex<VecDeque<(Instant, Request)>>);

/// One request after its end. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub(in crate::api) struct Request {
    pub(in crate::api) id: String,
    /// Name of the API key, as the log has it.
    pub(in crate::api) key: Option<String>,
    pub(in crate::api) route: String,
    /// `None`: the client went away before there was an answer.
    pub(in crate::api) status: Option<u16>,
    pub(in crate::api) outcome: &'static str,
    pub(in crate::api) prompt_tokens: u32,
    pub(in crate::api) cached_tokens: u32,
    pub(in crate::api) completion_tokens: u32,
    pub(in crate::api) queued_ms: f64,
    pub(in crate::api) ttft_ms: Option<f64>,
    pub(in crate::api) decode_ms: f64,
    pub(in crate::api) total_ms: f64,
}

#[derive(Serialize)]
pub(super) struct Told {
    /// Since it ended: the reader's clock may be another.
    age_s: f64,
    #[serde(flatten)]
    request: Request,
}

impl Recent {
    pub(in crate::api) fn push(&self, request: Request) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.truncate(MOST - 1);
        ring.push_front((Instant::now(), request));
    }

    /// The latest first.
    pub(super) fn told(&self) -> Vec<Told> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = ring.iter().map(|(ended, request)| Told {
            age_s: (ended.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            request: request.clone(),
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered_and_the_latest_comes_first() {
        let recent = Recent::default();
        for number in 0..MOST + 3 {
            recent.push(Request {
                id: number.to_string(),
                key: None,
                route: "/v1/completions".into(),
                status: Some(200),
                outcome: "stop",
                prompt_tokens: 1,
                cached_tokens: 0,
                completion_tokens: 1,
                queued_ms: 0.0,
                ttft_ms: None,
                decode_ms: 0.0,
                total_ms: 1.0,
            });
        }
        let told = recent.told();
        assert_eq!(told.len(), MOST);
        assert_eq!(told[0].request.id, (MOST + 2).to_string());
    }
}

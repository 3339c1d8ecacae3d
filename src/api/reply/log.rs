//! Hands a request's record what became of its generation, also when that is dropped halfway, and measures on the way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    api::{
        error::ApiError,
        record::{Generation, Outcome, Record},
    },
    engine::{Finished, Times, Usage},
};

/// What became of a generation, so far.
pub(super) struct Log {
    record: Arc<Record>,
    generation: Generation,
    submitted: Instant,
    /// Jobs that were accepted and have no sequence yet.
    waiting: usize,
}

impl Log {
    pub(super) fn new(record: Arc<Record>, model: &str) -> Self {
        let generation = Generation {
            model: model.to_owned(),
            usage: Usage::default(),
            times: Times::default(),
            first_text: None,
            // Whatever else happens says so.
            outcome: Outcome::HungUp,
        };
        Self {
            record,
            generation,
            submitted: Instant::now(),
            waiting: 0,
        }
    }

    /// A job has a place and waits for a sequence.
    pub(super) fn accepted(&mut self) {
        self.waiting += 1;
    }

    pub(super) fn used(&mut self, so_far: Usage) {
        self.generation.usage = so_far;
    }

    pub(super) fn started(&mut self, queued: Duration) {
        self.waiting -= 1;
        self.record.metrics().waited(queued);
    }

    /// One of the answers said something; `before`: when it did so last.
    pub(super) fn text(&mut self, so_far: Usage, before: Option<Instant>, now: Instant) {
        self.generation.usage = so_far;
        let metrics = self.record.metrics();
        if let Some(before) = before {
            metrics.more_text(now - before);
        }
        if self.generation.first_text.is_none() {
            let after = self.record.age();
            self.generation.first_text = Some(after);
            metrics.first_text(after);
        }
    }

    pub(super) fn finished(&mut self, finished: &Finished) {
        self.generation.times = finished.times;
        self.generation.outcome = Outcome::from(&finished.reason);
        let metrics = self.record.metrics();
        metrics.prefilled(&finished.usage, finished.times.prefill);
        metrics.decoded(&finished.usage, finished.times.decode);
    }

    pub(super) fn failed(&mut self, error: ApiError) -> ApiError {
        if let ApiError::Share(_) = error {
            self.waiting = 0; // it did not wait
        }
        self.generation.outcome = Outcome::Failed(error.name());
        error
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        for _ in 0..self.waiting {
            self.record.metrics().waited(self.submitted.elapsed());
        }
        self.record.generated(self.generation.clone());
    }
}

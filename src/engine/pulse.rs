//! The engine's sign of life: when its present step last went forward, readable from any thread.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// When the current step last went forward, readable from any thread.
pub struct Pulse {
    start: Instant,
    /// Microseconds after `start`, or [`WAITING`].
    last_beat: AtomicU64,
}

const WAITING: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_beat: AtomicU64::new(WAITING),
        }
    }

    pub(crate) fn waiting(&self) {
        self.last_beat.store(WAITING, Ordering::Relaxed);
    }

    /// A step begins or goes forward: a large batch of a large model may take minutes on a CPU.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(WAITING - 1);
        self.last_beat.store(now, Ordering::Relaxed);
    }

    /// How long a step has not gone forward; zero while the engine waits for work.
    pub fn step_age(&self) -> Duration {
        match self.last_beat.load(Ordering::Relaxed) {
            WAITING => Duration::ZERO,
            began => self
                .start
                .elapsed()
                .saturating_sub(Duration::from_micros(began)),
        }
    }
}

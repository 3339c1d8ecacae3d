//! The engine's sign of life: when its present step began, readable from any thread.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// When the current step began, readable from any thread.
pub struct Pulse {
    start: Instant,
    /// Microseconds after `start`, or [`WAITING`].
    step_began: AtomicU64,
    steps: AtomicU64,
}

const WAITING: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            step_began: AtomicU64::new(WAITING),
            steps: AtomicU64::new(0),
        }
    }

    pub(crate) fn waiting(&self) {
        self.step_began.store(WAITING, Ordering::Relaxed);
    }

    pub(crate) fn stepping(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(WAITING - 1);
        self.step_began.store(now, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the engine has been inside one step; zero while it waits for work.
    pub fn step_age(&self) -> Duration {
        match self.step_began.load(Ordering::Relaxed) {
            WAITING => Duration::ZERO,
            began => self
                .start
                .elapsed()
                .saturating_sub(Duration::from_micros(began)),
        }
    }

    /// Steps begun since the start.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

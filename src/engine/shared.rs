//! What the engine thread and its callers both look at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Busy, Kept, Pulse, Refused, Shape, reply::Place, sequences, tally::Tally};

/// What both sides of the border may look at.
pub(crate) struct Shared {
    pub(super) shape: Shape,
    pub(super) pulse: Arc<Pulse>,
    /// Jobs accepted and not ended.
    pub(super) held: Arc<AtomicU32>,
    pub(super) running: AtomicU32,
    pub(super) kept_tokens: AtomicU32,
    pub(super) kept_bytes: AtomicU64,
    pub(crate) sequences: sequences::Gauges,
    pub(super) kept_aside: AtomicU32,
    pub(super) tally: Tally,
    /// Jobs ended so far, however; wraps.
    pub(super) ended: Arc<AtomicU32>,
    /// Microseconds from one end to the next, by the latest; 0: unknown.
    pub(super) completion_interval: AtomicU64,
    /// Cancelled: finish nothing more, end every job with [`Failed::Stopped`].
    pub(super) halt: CancellationToken,
    /// Cancelled: the thread hangs inside llama.cpp and will end nothing itself.
    pub(super) lost: CancellationToken,
}

impl Shared {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            pulse: Arc::new(Pulse::new()),
            held: Arc::new(AtomicU32::new(0)),
            running: AtomicU32::new(0),
            kept_tokens: AtomicU32::new(0),
            kept_bytes: AtomicU64::new(0),
            sequences: sequences::Gauges::new(shape.sequences),
            kept_aside: AtomicU32::new(0),
            tally: Tally::default(),
            ended: Arc::new(AtomicU32::new(0)),
            completion_interval: AtomicU64::new(0),
            halt: CancellationToken::new(),
            lost: CancellationToken::new(),
        }
    }

    pub(super) fn busy(&self) -> Busy {
        let held = self.held.load(Ordering::Relaxed);
        let running = self.running.load(Ordering::Relaxed).min(held);
        Busy {
            queued: held - running,
            running,
        }
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            tokens: self.kept_tokens.load(Ordering::Relaxed),
            bytes: self.kept_bytes.load(Ordering::Relaxed),
            aside: self.kept_aside.load(Ordering::Relaxed),
        }
    }

    /// A place for one more job, if it may run or wait.
    pub(super) fn place(&self) -> Result<Place, Refused> {
        let Shape {
            queue, sequences, ..
        } = self.shape;
        Place::take(&self.held, &self.ended, queue.saturating_add(sequences)).map_err(|held| {
            let queued = held.saturating_sub(sequences);
            Refused::Full {
                queued,
                wait: self.wait(queued),
            }
        })
    }

    pub(crate) fn set_completion_interval(&self, interval: Duration) {
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        self.completion_interval.store(micros, Ordering::Relaxed);
    }

    /// When `queued` jobs will have had their turn.
    pub(super) fn wait(&self, queued: u32) -> Option<Duration> {
        match self.completion_interval.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros).saturating_mul(queued.max(1))),
        }
    }
}

//! What each sequence is doing, told by the engine thread after every step and read by any other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// One sequence of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Whether a job has it.
    pub running: bool,
    /// Tokens that its cache holds.
    pub kept: u32,
    /// Of the job that runs: tokens of its prompt, of these found in the cache, and tokens generated.
    pub prompt: u32,
    pub cached: u32,
    pub generated: u32,
    /// Tokens that may still be generated.
    pub left: u32,
}

/// The sequences side by side. A reader may see one value of the latest step beside another of the step before.
#[derive(Debug)]
pub(crate) struct Gauges(Box<[Gauge]>);

#[derive(Debug, Default)]
struct Gauge {
    running: AtomicBool,
    kept: AtomicU32,
    prompt: AtomicU32,
    cached: AtomicU32,
    generated: AtomicU32,
    left: AtomicU32,
}

impl Gauges {
    pub(crate) fn new(sequences: u32) -> Self {
        Self((0..sequences).map(|_| Gauge::default()).collect())
    }

    pub(crate) fn tell(&self, sequences: impl Iterator<Item = Sequence>) {
        for (gauge, now) in self.0.iter().zip(sequences) {
            gauge.running.store(now.running, Relaxed);
            gauge.kept.store(now.kept, Relaxed);
            gauge.prompt.store(now.prompt, Relaxed);
            gauge.cached.store(now.cached, Relaxed);
            gauge.generated.store(now.generated, Relaxed);
            gauge.left.store(now.left, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Vec<Sequence> {
        let read = |gauge: &Gauge| Sequence {
            running: gauge.running.load(Relaxed),
            kept: gauge.kept.load(Relaxed),
            prompt: gauge.prompt.load(Relaxed),
            cached: gauge.cached.load(Relaxed),
            generated: gauge.generated.load(Relaxed),
            left: gauge.left.load(Relaxed),
        };
        self.0.iter().map(read).collect()
    }
}

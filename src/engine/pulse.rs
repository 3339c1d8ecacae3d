//! The engine's sign of life: when its present step last went forward, readable from any thread.

use std::{
    cell::Cell,
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

    /// For a computation that asks between the nodes of its graph, some hundred times a token, whether to go on.
    pub(crate) fn looks(&self) -> Looks<'_> {
        Looks {
            pulse: self,
            nodes: Cell::new(0),
        }
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

/// Says now and then that it is time to look at who still waits.
pub(crate) struct Looks<'a> {
    pulse: &'a Pulse,
    nodes: Cell<u32>,
}

impl Looks<'_> {
    /// Nodes of a graph from one look to the next: microseconds for a small model, less than a second for a large one on a
    /// CPU.
    const NODES_BETWEEN: u32 = 16;

    /// One more node is computed. Whether to look now, which is also a beat: the graph goes forward.
    pub(crate) fn due(&self) -> bool {
        self.nodes.set(self.nodes.get().wrapping_add(1));
        let due = self.nodes.get().is_multiple_of(Self::NODES_BETWEEN);
        if due {
            self.pulse.beat();
        }
        due
    }
}

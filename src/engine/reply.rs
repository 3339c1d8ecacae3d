//! Where a job's events go, and the place that it holds until it ends: both end exactly once, together.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::mpsc;

use super::{Event, Failed, Finished};

/// Where a job's events go. Ends the job exactly once, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Reply {
    open: Option<(mpsc::UnboundedSender<Event>, Place)>,
}

/// A job's place in the count of those accepted and not ended, and then in that of those ended.
#[derive(Debug)]
pub(super) struct Place {
    held: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

impl Place {
    /// Takes one of `most` places. `Err`: how many are held.
    pub(super) fn take(
        held: &Arc<AtomicU32>,
        ended: &Arc<AtomicU32>,
        most: u32,
    ) -> Result<Self, u32> {
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            (held < most).then_some(held + 1)
        })
        .map(|_| Self {
            held: Arc::clone(held),
            ended: Arc::clone(ended),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Reply {
    /// The sender is bounded by the job's `max_tokens`.
    pub(super) fn new(events: mpsc::UnboundedSender<Event>, place: Place) -> Self {
        Self {
            open: Some((events, place)),
        }
    }

    pub(crate) fn send(&self, event: Event) {
        if let Some((events, _)) = &self.open {
            // The caller may have gone; the worker notices at its next step.
            let _ = events.send(event);
        }
    }

    pub(crate) fn end(mut self, outcome: Result<Finished, Failed>) {
        self.close(outcome);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|(events, _)| events.is_closed())
    }

    fn close(&mut self, outcome: Result<Finished, Failed>) {
        if let Some((events, place)) = self.open.take() {
            // First the place, so that a caller who sees the end can submit again.
            drop(place);
            let _ = events.send(Event::End(outcome));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.close(Err(Failed::Stopped));
    }
}

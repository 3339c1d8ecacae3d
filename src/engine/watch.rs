//! What looks after an engine thread of either kind, and gives it nothing to do.

use std::sync::Arc;

use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Busy, Done, Kept, Pulse, Shape, Shared};

/// A handle that does not keep the engine alive.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    pub fn busy(&self) -> Busy {
        self.shared.busy()
    }

    pub fn shape(&self) -> Shape {
        self.shared.shape
    }

    /// After the latest step.
    pub fn kept(&self) -> Kept {
        self.shared.kept()
    }

    /// Up to the latest step.
    pub fn done(&self) -> Done {
        self.shared.tally.told()
    }

    /// The engine's sign of life.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.shared.pulse)
    }

    /// Ends every job, running or waiting, and then the engine thread.
    pub fn halt(&self) {
        self.shared.halt.cancel();
    }

    /// Gives the engine thread up: whoever waits for an answer is to wait no longer.
    pub fn give_up(&self) {
        self.shared.lost.cancel();
    }

    /// Ends when the engine thread was given up.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.shared.lost.clone().cancelled_owned()
    }
}

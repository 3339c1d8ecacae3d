//! Decodes before the first request: what they find out or make shall not wait for it.

use std::time::Instant;

use super::Llama;
use crate::engine::{
    Scaled,
    llama::{LoadError, guard},
    model::{Model, Row},
};

impl Llama {
    /// The first decode touches every weight and makes the worker threads; no request shall wait for that.
    pub(super) fn warm_up(&mut self) -> Result<(), LoadError> {
        self.warm(&step(1, 0, 1))?;
        self.clear();
        if self.adapters.count() > 0 {
            self.warm_up_adapted()?;
        }
        if self.gpu {
            self.warm_up_worst()?;
            self.time_ubatch()?;
        }
        Ok(())
    }

    /// How long a whole ubatch takes, so that the first long prompt beside streams need not find out step by step.
    fn time_ubatch(&mut self) -> Result<(), LoadError> {
        let rows = step(1, 0, self.config.ubatch.min(self.config.context));
        for _ in 0..2 {
            let began = Instant::now(); // the first time loads kernels
            let outcome = self.warm(&rows);
            self.ubatch_time = Some(began.elapsed());
            self.clear();
            outcome?;
        }
        Ok(())
    }

    /// With all adapters: what of them cannot be computed shall not wait for a request to be found out.
    fn warm_up_adapted(&mut self) -> Result<(), LoadError> {
        let all = |adapter| Scaled {
            adapter,
            scale: 1.0,
        };
        let all: Vec<_> = (0..self.adapters.count()).map(all).collect();
        self.adapt(&all);
        let outcome = self.warm(&step(1, 0, 1));
        self.adapt(&[]);
        self.clear();
        outcome
    }

    /// A whole ubatch over all sequences at the end of full caches. A GPU's kernels take memory beside the planned
    /// buffers when they first run at a size: if that is too much, the start shall fail and not a later request.
    pub fn warm_up_worst(&mut self) -> Result<(), LoadError> {
        let outcome = self.step_at_the_end();
        self.clear();
        outcome
    }

    fn step_at_the_end(&mut self) -> Result<(), LoadError> {
        let sequences = self.config.parallel;
        self.warm(&step(sequences, 0, 1))?;
        let each = (self.config.ubatch / sequences)
            .max(1)
            .min(self.config.context / 2);
        let first = self.config.context - each;
        for sequence in 0..sequences {
            let (sequence, last) = (sequence.cast_signed(), first.cast_signed() - 1);
            // SAFETY: the context is valid and ours.
            match unsafe { guard::fill(self.context, sequence, last) } {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(
                        "the warm-up ran with empty caches: full ones are not known for this kind of model"
                    );
                    return self.warm(&step(sequences, 1, each));
                }
                Err(fault) => {
                    return Err(LoadError::Context(format!(
                        "the caches could not be filled for the warm-up: {fault:?}"
                    )));
                }
            }
        }
        self.warm(&step(sequences, first, each))
    }

    fn warm(&mut self, rows: &[Row]) -> Result<(), LoadError> {
        self.decode(rows, &|| false).map_err(|error| {
            let advice = if self.gpu {
                "; if a GPU ran out of memory, raise engine.placement.margin or lower engine.ubatch"
            } else {
                ""
            };
            LoadError::WarmUp(format!("{error}{advice}"))
        })
    }
}

/// `each` rows of every sequence from position `first` on; the last of each asks for logits.
fn step(sequences: u32, first: u32, each: u32) -> Vec<Row> {
    (0..sequences)
        .flat_map(|sequence| {
            (0..each).map(move |at| Row {
                token: 0,
                position: first + at,
                sequence,
                logits: at + 1 == each,
            })
        })
        .collect()
}

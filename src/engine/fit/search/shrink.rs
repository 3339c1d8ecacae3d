//! A smaller context, where the user allows one.

use super::{Draft, Gauge, LoadError, Problem, ROUNDS, Solution, signed};

/// llama.cpp's caches have multiples of this many cells.
const STEP: u32 = 256;

/// From this round on the search halves what is left instead of trusting estimates that keep failing.
const DISTRUST: usize = 3;

impl Problem<'_> {
    /// The largest context, not below `min_context`, with which `failing` fits.
    pub(super) fn shrink(
        &self,
        gauge: &mut dyn Gauge,
        failing: &Solution,
    ) -> Result<Option<Solution>, LoadError> {
        let Some(least) = self.config.placement.min_context else {
            return Ok(None);
        };
        let again = |gauge: &mut dyn Gauge, steps: u32| {
            let draft = Draft {
                context: steps * STEP,
                ..failing.draft()
            };
            self.attempt(gauge, draft)
        };
        let (least, mut too_many) = (least.div_ceil(STEP), failing.context.div_ceil(STEP));
        if least >= too_many {
            return Ok(None);
        }
        let (mut best, mut failing) = (again(gauge, least)?, failing.clone());
        if !self.fits(&best) {
            return Ok(None);
        }
        for round in 0..ROUNDS {
            let fitting = best.context / STEP;
            let between = fitting + 1..too_many;
            let expected = between
                .rev()
                .find(|steps| self.fits_between(&best, &failing, steps * STEP));
            let steps = match expected {
                None => break,
                Some(_) if round >= DISTRUST => (fitting + 1).midpoint(too_many - 1),
                Some(steps) => steps,
            };
            let next = again(gauge, steps)?;
            if self.fits(&next) {
                best = next;
            } else {
                too_many = steps;
                failing = next;
            }
        }
        Ok(Some(best))
    }

    /// Whether `context` fits if memory grows evenly with it.
    fn fits_between(&self, small: &Solution, large: &Solution, context: u32) -> bool {
        let part = i128::from(context - small.context);
        let span = i128::from(large.context.next_multiple_of(STEP) - small.context);
        let ends = self.used(small).into_iter().zip(self.used(large));
        ends.enumerate().all(|(at, (small, large))| {
            let grows = i128::from(signed(large)) - i128::from(signed(small));
            let used = i128::from(signed(small)) + grows * part / span;
            used == 0 || used <= i128::from(self.room(at))
        })
    }
}

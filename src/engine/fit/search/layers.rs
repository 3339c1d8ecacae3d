//! How many layers go on the GPUs.

use super::{Draft, Gauge, LoadError, Moved, Problem, ROUNDS, Solution, estimate::Lesson};

/// From this round on the search halves what is left instead of trusting estimates that keep failing.
const DISTRUST: usize = 3;

impl Problem<'_> {
    /// Takes layers off the GPUs, from the first, until what is left fits; `failing` does not.
    pub(super) fn fewer_layers(
        &self,
        gauge: &mut dyn Gauge,
        failing: Solution,
        mut lesson: Lesson,
        moved: &Moved,
    ) -> Result<Solution, LoadError> {
        let sizes = self.sizes(moved);
        let mut too_many = failing.settings.gpu_layers;
        let mut nearest = failing;
        let mut best: Option<Solution> = None;
        for round in 0..ROUNDS {
            let least = best.as_ref().map_or(0, |best| best.settings.gpu_layers + 1);
            if least >= too_many {
                break;
            }
            let draft = |lesson: &Lesson, gpu_layers| Draft {
                context: nearest.context,
                gpu_layers,
                split: self.shares(lesson, &sizes, gpu_layers),
                moved: moved.clone(),
            };
            let expected = |lesson: &Lesson| {
                (least..too_many)
                    .rev()
                    .find(|layers| self.expected_fit(lesson, &sizes, &draft(lesson, *layers)))
            };
            let layers = match (expected(&lesson), &best) {
                (Some(_), _) if round >= DISTRUST => least.midpoint(too_many - 1),
                (Some(layers), _) => layers,
                (None, None) => 0,
                // The next layer may be one without a cache.
                (None, Some(best)) if self.header.keeps_states => {
                    match expected(&self.learn_bold(&lesson, best)) {
                        Some(_) => least,
                        None => break,
                    }
                }
                (None, Some(_)) => break,
            };
            let next = self.attempt(gauge, draft(&lesson, layers))?;
            lesson = self.learn(&lesson, &next);
            if self.gpus_fit(&next) {
                best = Some(next);
            } else {
                too_many = layers;
                nearest = next;
            }
        }
        Ok(best.unwrap_or(nearest))
    }

    /// The fewest layers with their experts in host memory with which `failing` fits, all else kept.
    pub(in super::super) fn fewest_cpu_moe(
        &self,
        gauge: &mut dyn Gauge,
        failing: &Solution,
    ) -> Result<Option<u32>, LoadError> {
        let mut lesson = self.learn(&Lesson::none(self.gpus.len()), failing);
        let mut best: Option<u32> = None;
        let mut least = 0;
        for _ in 0..ROUNDS {
            let draft = |layers| Draft {
                moved: self.moved_below(layers),
                ..failing.draft()
            };
            let most = best.unwrap_or(self.header.layers + 1);
            let expected = (least..most).find(|layers| {
                let draft = draft(*layers);
                self.expected_fit(&lesson, &self.sizes(&draft.moved), &draft)
            });
            let Some(layers) = expected else {
                break;
            };
            let next = self.attempt(gauge, draft(layers))?;
            lesson = self.learn(&lesson, &next);
            if self.fits(&next) {
                best = Some(layers);
            } else {
                least = layers + 1;
            }
        }
        Ok(best)
    }
}

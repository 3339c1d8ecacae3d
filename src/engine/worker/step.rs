//! One step: plan, decode, sample, commit.

use std::time::{Duration, Instant};

use super::{Dead, Worker};
use crate::engine::{
    Failed, Finish, Set,
    model::{DecodeError, Model},
    plan::{self, First, Share, Want, Work},
    slot::{Active, small},
};

/// In one step of so many the prompt that waits longest goes first.
const TURN_OF_THE_OLDEST: u64 = 4;

impl<M: Model> Worker<M> {
    pub(super) fn step(&mut self) -> Result<(), Dead> {
        self.rounds += 1;
        self.catch_up();
        self.shift();
        self.guess();
        for shares in self.plan() {
            if !self.run_batch(&shares)? {
                break; // what was planned next no longer holds
            }
        }
        Ok(())
    }

    /// Sequences whose context is full forget a part of it, if their jobs are to go on.
    fn shift(&mut self) {
        let context = self.model.context() as usize;
        for slot in &mut self.slots {
            let Some(gone) = slot.overflow(context) else {
                continue;
            };
            if gone.is_empty() {
                slot.finish(Finish::Length);
                continue;
            }
            let (from, count) = (small(gone.start), small(gone.len()));
            let there = gone.end <= slot.computed();
            let kept = if there {
                self.model.shift(slot.sequence, from, count)
            } else {
                self.model.truncate(slot.sequence, from)
            };
            slot.forget(gone);
            if !kept {
                slot.prefix.truncate(0);
            }
        }
    }

    /// Computes one batch and takes what it gives. `false`: it failed, and sequences may have lost their state.
    fn run_batch(&mut self, shares: &[Share]) -> Result<bool, Dead> {
        self.rows.clear();
        let image = match shares {
            [alone] => self.slots[alone.sequence as usize].image_rows(alone.tokens as usize),
            _ => None,
        };
        if image.is_none() {
            for share in shares {
                let slot = &self.slots[share.sequence as usize];
                self.rows.extend(slot.rows(share.tokens as usize));
            }
        }
        let (slots, halt) = (&self.slots, &self.shared.halt);
        let given_up = |share: &Share| {
            let active = &slots[share.sequence as usize].active;
            let given_up = |active: &Active<_>| active.is_abandoned() || active.is_overdue();
            active.as_ref().is_none_or(given_up)
        };
        let looks = self.shared.pulse.looks();
        let abandoned = || looks.due() && (halt.is_cancelled() || shares.iter().all(given_up));
        let (set, adapters) = shares.first().map_or((Set::PLAIN, [].as_slice()), |share| {
            slots[share.sequence as usize].adapters()
        });
        let changed = std::mem::replace(&mut self.worn, set) != set;
        self.model.adapt(adapters);
        let began = Instant::now();
        let outcome = match image {
            Some(rows) => self.model.decode_image(rows, &abandoned),
            None => self.model.decode(&self.rows, &abandoned),
        };
        self.turns.spend(began.elapsed());
        match outcome {
            Ok(()) => {
                let rows = image.map_or(self.rows.len(), |image| image.count);
                let prefill = self.prompt_rows(shares);
                let generating = image.is_none() && prefill == 0;
                // Another set of adapters takes its own time.
                if !changed {
                    self.pace.observe(rows, began.elapsed(), generating);
                }
                let computed = began.elapsed();
                self.commit(shares);
                self.count(prefill, began.elapsed());
                tracing::trace!(rows, prefill, ?computed, whole = ?began.elapsed(), "step");
                Ok(true)
            }
            Err(DecodeError::Abandoned) => {
                // Part of the batch may have been computed: cut back to what is certain.
                for share in shares {
                    self.rewind(share.sequence as usize);
                }
                Ok(false)
            }
            Err(error) => self.recover(shares, &error).map(|()| false),
        }
    }

    /// Rows of prompts among those of a batch that is not committed yet.
    fn prompt_rows(&self, shares: &[Share]) -> usize {
        let of_prompt = |share: &Share| {
            let slot = &self.slots[share.sequence as usize];
            let prompt = slot.active.as_ref().map_or(0, |it| it.job.prompt.len());
            let left = prompt.saturating_sub(slot.computed());
            left.min(share.tokens as usize)
        };
        shares.iter().map(of_prompt).sum()
    }

    /// A step is over, in which `prefill` rows were of prompts.
    fn count(&mut self, prefill: usize, took: Duration) {
        self.done.steps += 1;
        self.done.prefill_tokens += prefill as u64;
        if prefill > 0 {
            self.done.prefill += took;
        }
        if prefill < self.rows.len() {
            self.done.decode += took;
        }
    }

    fn plan(&mut self) -> Vec<Vec<Share>> {
        let grid = self.grid();
        let outputs = small(self.model.outputs()).max(1);
        let want = |slot: &super::Slot<M::Sampler>| {
            let work = match slot.work(grid)? {
                Work::Scored { left, turn } => Work::Scored {
                    left: left.min(outputs),
                    turn,
                },
                work => work,
            };
            Some(Want {
                sequence: slot.sequence,
                work,
            })
        };
        let ubatch = small(self.model.ubatch());
        while let Some(&suspect) = self.suspects.front() {
            if let Some(want) = want(&self.slots[suspect as usize]) {
                let wants = [want];
                let mut batch = plan::streams(&wants, small(self.model.batch()));
                batch.extend(plan::prompts(&wants, ubatch, First::Oldest));
                batch.extend(plan::image(&wants, ubatch));
                return vec![batch];
            }
            self.suspects.pop_front();
        }
        let gap = self.tuning.max_gap.unwrap_or_else(|| self.pace.usual_gap());
        let wants = self.slots.iter();
        let wants = wants.filter_map(|slot| Some((slot.adapters().0, want(slot)?)));
        let mut wants: Vec<_> = wants.collect();
        let runs = |(_, want): &(Set, Want)| matches!(want.work, Work::Decode { .. });
        let running = wants.iter().any(runs);
        let sets = self.turns.choose(&mut wants, gap);
        // Rounds of all sets together: each has its turn in the round of the oldest.
        let first = if (self.rounds / sets).is_multiple_of(TURN_OF_THE_OLDEST) {
            First::Oldest
        } else {
            First::Shortest
        };
        let mut wants: Vec<_> = wants.into_iter().map(|(_, want)| want).collect();
        if grid > 1 {
            let mut batches = plan::alone(&wants, first);
            batches.extend(plan::image(&wants, ubatch).map(|share| vec![share]));
            return batches;
        }
        let streams = plan::streams(&wants, small(self.model.batch()));
        let comes_along = |want: &Want| {
            let place = streams.binary_search_by_key(&want.sequence, |share| share.sequence);
            place.is_ok()
        };
        wants.retain(|want| !comes_along(want));
        let (mut prompt_rows, mut image_rows) = (small(self.model.prompt_rows()), ubatch);
        // Streams with other adapters wait for these prompts, too.
        if running {
            let rows = self.pace.rows_beside_streams(gap, prompt_rows);
            (prompt_rows, image_rows) = (rows, rows.min(ubatch));
            let any = |kind: fn(&Work) -> bool| wants.iter().any(|want| kind(&want.work));
            if any(|work| matches!(work, Work::Image { .. } | Work::Scored { .. }))
                && any(|work| matches!(work, Work::Prefill { .. }))
            {
                // One gap for both.
                image_rows = (image_rows / 2).max(1);
                prompt_rows = (prompt_rows / 2).max(1);
            }
        }
        let prompts = plan::prompts(&wants, prompt_rows, first);
        let image = plan::image(&wants, image_rows).into_iter().collect();
        let mut batches = vec![streams, prompts, image];
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// A batch failed: a job that was alone in it ends; several are tried again one by one.
    fn recover(&mut self, shares: &[Share], error: &DecodeError) -> Result<(), Dead> {
        tracing::warn!(%error, sequences = shares.len(), "a batch failed");
        if let DecodeError::Broken(why) = error {
            self.restart(why)?;
        }
        if let [alone] = shares {
            self.slots[alone.sequence as usize].fail(Failed::Decode(error.to_string()));
            self.suspects.pop_front();
        } else {
            self.suspects = shares.iter().map(|share| share.sequence).collect();
        }
        Ok(())
    }
}

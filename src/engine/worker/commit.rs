//! What a computed batch gives: sequences that are further, scores of prompts, and the next tokens.

use std::ops::Range;

use super::Worker;
use crate::engine::{
    Failed, Finish,
    model::{Choice, Chosen, Model, SampleError, Sampled},
    plan::Share,
    slot::{not_finite, small},
};

/// Most tokens taken from a constraint at once.
const MOST_FORCED: usize = 24;

impl<M: Model> Worker<M> {
    pub(super) fn commit(&mut self, shares: &[Share]) {
        self.suspects.pop_front();
        let grid = self.grid();
        let keeps = !self.model.cuts_anywhere();
        let mut rows = Vec::new();
        let mut row = 0;
        for share in shares {
            let at = share.sequence as usize;
            let slot = &mut self.slots[at];
            let first = row;
            row += share.tokens as usize;
            let Some(active) = &slot.active else { continue };
            let from = slot.computed();
            let pending = active.tokens.len() - from;
            let known = pending.min(share.tokens as usize);
            let scoring = slot.is_scoring();
            slot.advance(known, grid);
            if scoring {
                self.score(at, first, from..from + known);
            }
            let slot = &mut self.slots[at];
            let computed = slot.computed();
            let Some(active) = &slot.active else { continue };
            let at_border = active.borders.binary_search(&computed).is_ok()
                || (grid > 1 && computed.is_multiple_of(grid));
            let ended = active.job.max_tokens == 0 && computed == active.tokens.len();
            let samples = computed == active.tokens.len() && !ended;
            if at_border && computed <= active.job.prompt.len() {
                if keeps {
                    self.keep_checkpoint(at);
                }
                if grid > 1 {
                    self.lay_out(at);
                }
            }
            if samples && self.slots[at].active.is_some() {
                rows.push((at, first + known - 1));
            }
            if ended {
                self.slots[at].finish(Finish::Length);
            }
        }
        self.sample(&rows);
    }

    /// Tells how likely the tokens after those at `places` of a prompt are; the batch's rows for them begin at `row`.
    fn score(&mut self, at: usize, row: usize, places: Range<usize>) {
        let Some(active) = &self.slots[at].active else {
            return;
        };
        let top = active.job.logprobs.unwrap_or(0);
        let following = active.job.prompt.iter().skip(places.start + 1);
        let following = following.take(places.len()).zip(row..);
        let scores: Vec<_> = following
            .map(|(&token, row)| self.model.score(row, token, top))
            .collect();
        self.slots[at].score(places.start, scores, self.model.vocab());
    }

    /// `rows`: a slot and the row of its last known token, ascending.
    fn sample(&mut self, rows: &[(usize, usize)]) {
        let mut wanted = rows.iter().copied().peekable();
        let mut choices = Vec::with_capacity(rows.len());
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(&(wanted_at, row)) = wanted.peek() else {
                break;
            };
            if wanted_at != at {
                continue;
            }
            wanted.next();
            if let Some(active) = &mut slot.active {
                choices.push(Choice {
                    row,
                    guesses: &active.guesses,
                    logprobs: active.job.logprobs,
                    sampler: &mut active.sampler,
                });
            }
        }
        let chosen = self.model.choose(choices);
        for (&(at, _), chosen) in rows.iter().zip(chosen) {
            self.take(at, chosen);
        }
    }

    /// Takes the tokens that hold, and forgets the guesses that do not.
    fn take(&mut self, at: usize, (tokens, error): Chosen) {
        let context = self.model.context();
        let slot = &mut self.slots[at];
        let Some(active) = &mut slot.active else {
            return;
        };
        let guesses = std::mem::take(&mut active.guesses);
        let images = !active.job.media.is_empty();
        let hits = tokens
            .iter()
            .zip(&guesses)
            .take_while(|(sampled, guess)| sampled.token == **guess)
            .count();
        if !guesses.is_empty() {
            active.drafts.made += small(guesses.len());
            active.drafts.accepted += small(hits);
            self.done.accepted_tokens += hits as u64;
            self.done.rejected_tokens += (guesses.len() - hits) as u64;
            active.learn(guesses.len(), hits);
        }
        let mut ended = false;
        for (place, sampled) in tokens.iter().enumerate() {
            ended = slot.take(sampled, self.model.vocab(), context);
            self.done.generated_tokens += 1;
            if ended {
                break;
            }
            if place < hits {
                slot.advance(1, 1);
            }
        }
        if !guesses.is_empty() {
            // The job may have ended, and with it what knew of its images.
            let position = if images {
                slot.prefix.position(slot.computed())
            } else {
                slot.computed()
            };
            if !self.model.truncate(slot.sequence, small(position)) {
                slot.prefix.truncate(0);
            }
        }
        match error {
            None if !ended => self.force(at),
            Some(SampleError::Grammar(why)) if !ended => slot.fail(Failed::Unacceptable(why)),
            Some(SampleError::NotFinite) if !ended => {
                slot.fail(not_finite());
            }
            _ => {}
        }
    }

    /// Tokens that a constraint leaves no choice about need no sampling: they are computed together.
    fn force(&mut self, at: usize) {
        let context = self.model.context();
        let grid = self.grid();
        let slot = &mut self.slots[at];
        let Some(active) = &mut slot.active else {
            return;
        };
        if active.job.grammar.is_none() || active.job.logprobs.is_some() || grid > 1 {
            return;
        }
        let most = active.left(context as usize).min(MOST_FORCED);
        let forced = self.model.forced(&mut active.sampler, most);
        for token in forced {
            let sampled = Sampled {
                token,
                scores: None,
            };
            self.done.generated_tokens += 1;
            if slot.take(&sampled, self.model.vocab(), context) {
                break;
            }
        }
    }
}

//! Guesses before a step: what a sequence said before, else what a drafter thinks; and what is learnt from how they did.

use std::cell::Cell;

use super::{Worker, step::NODES_BETWEEN_LOOKS};
use crate::engine::{
    Worth,
    draft::{Guesses, Wish},
    media,
    model::{DecodeError, Model},
    odds,
    plan::Work,
    slot::{Active, small},
};

/// A drafter reads a sequence from its start only if that takes no more than this part of the time that the rest of the
/// answer may take without it.
const WORTH_READING: f64 = 0.25;

/// What the guesses of one step may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Sequences that generate in this step.
    running: usize,
    /// Rows that may ask for logits beside those of the sequences themselves.
    outputs: usize,
    /// Guesses for one sequence.
    most: usize,
}

impl<M: Model> Worker<M> {
    /// Streams that may go on with what they said before get guesses, and others from the drafter if there is one, as far
    /// as these are likely to pay.
    pub(super) fn guess(&mut self) {
        let mut running = 0;
        let mut room = self.model.batch();
        for slot in &mut self.slots {
            if let Some(active) = &mut slot.active {
                active.guesses.clear(); // of a step that failed
                active.asked = 0;
            }
            if let Some(Work::Decode { rows, .. }) = slot.work(1) {
                running += 1;
                room = room.saturating_sub(rows as usize);
            }
        }
        let mut limits = Limits {
            running,
            outputs: self
                .model
                .outputs()
                .saturating_sub(self.slots.len())
                .min(room),
            most: self.tuning.most_guesses.min(self.model.takes_back()),
        };
        if running == 0 || limits.most == 0 {
            return;
        }
        self.look_up(&mut limits);
        self.draft(limits);
    }

    fn look_up(&mut self, limits: &mut Limits) {
        let context = self.model.context() as usize;
        let pace = &self.pace;
        for slot in &mut self.slots {
            let Some(Work::Decode { .. }) = slot.work(1) else {
                continue;
            };
            let Some(active) = &mut slot.active else {
                continue;
            };
            let left = active.left(context).saturating_sub(1);
            let Some(lookup) = &active.lookup else {
                continue;
            };
            let seconds = |rows: usize| pace.seconds(small(rows)).unwrap_or(f64::MAX);
            let plain = seconds(limits.running);
            let cost = |guesses: usize| {
                if self.tuning.worth == Worth::Assumed {
                    return 1.0;
                }
                // Beside others they are a batch of their own: llama.cpp computes equal counts together.
                let more = if limits.running == 1 {
                    seconds(1 + guesses)
                } else {
                    plain + seconds(guesses)
                };
                more / plain
            };
            let most = left.min(limits.outputs).min(limits.most);
            active.guesses = lookup.guess(&active.tokens, most, cost);
            // What followed was an image.
            let text = active
                .guesses
                .iter()
                .take_while(|guess| !media::is_placeholder(**guess));
            let text = text.count();
            active.guesses.truncate(text);
            limits.outputs -= active.guesses.len();
        }
    }

    fn draft(&mut self, limits: Limits) {
        let context = self.model.context() as usize;
        let vocabulary = self.model.vocab().size();
        let (pace, worth) = (&self.pace, self.tuning.worth);
        let step = |rows: usize| match worth {
            Worth::Measured => pace.seconds(small(rows)),
            Worth::Assumed => Some(1.0),
        };
        let Some(plain) = step(limits.running) else {
            return; // nothing is known yet
        };
        // The other half is for prompts.
        let patience = self.tuning.max_gap.unwrap_or_else(|| pace.usual_gap()) / 2;
        let Some(drafter) = self.model.drafter().filter(|_| self.drafting) else {
            return;
        };
        // Slots whose sequence may be guessed for.
        let mut able = Vec::new();
        for (at, slot) in self.slots.iter().enumerate() {
            let (Some(Work::Decode { .. }), Some(active)) = (slot.work(1), &slot.active) else {
                continue;
            };
            let Some(odds) = &active.drafted else {
                continue;
            };
            let left = active.left(context).saturating_sub(1);
            if left == 0 || !active.guesses.is_empty() || !odds.are_open(active.tokens.len()) {
                continue;
            }
            let wish = Wish {
                sequence: slot.sequence,
                tokens: &active.tokens,
            };
            #[expect(clippy::cast_precision_loss, reason = "tokens of an answer")]
            let rest = left as f64 * plain;
            if let Some(behind) = drafter.seconds_behind(&wish)
                && (worth == Worth::Assumed || behind <= rest * WORTH_READING)
            {
                able.push((at, odds, left, wish));
            }
        }
        able.sort_by(|(.., a, _, _), (.., b, _, _)| b.expected(1).total_cmp(&a.expected(1)));
        let odds: Vec<_> = able.iter().map(|(_, odds, ..)| *odds).collect();
        let share = odds::share(
            &odds,
            limits.running,
            |sequences| limits.most.min(limits.outputs / sequences),
            |rows| step(rows).unwrap_or(f64::MAX),
            |share| match worth {
                Worth::Measured => drafter.seconds(share.sequences, share.guesses),
                Worth::Assumed => 0.0,
            },
        );
        able.truncate(share.map_or(able.len(), |share| share.sequences));
        able.sort_by_key(|(at, ..)| *at);
        let wishes: Vec<_> = able.iter().map(|(.., wish)| *wish).collect();
        let (halt, pulse) = (&self.shared.halt, &self.shared.pulse);
        let nodes = Cell::new(0_u32);
        let abandoned = || {
            nodes.set(nodes.get().wrapping_add(1));
            if !nodes.get().is_multiple_of(NODES_BETWEEN_LOOKS) {
                return false;
            }
            pulse.beat();
            halt.is_cancelled()
        };
        let guess =
            |share: odds::Share| drafter.guess(&wishes, share.guesses, patience, &abandoned);
        let outcome = share.map(guess);
        let lefts: Vec<_> = able.iter().map(|(at, _, left, _)| (*at, *left)).collect();
        match outcome {
            None => {
                for (at, _) in lefts {
                    self.decline(at);
                }
            }
            Some(Ok(guessed)) => {
                let asked = share.map_or(0, |share| share.guesses);
                for ((at, left), guesses) in lefts.into_iter().zip(guessed) {
                    if let Some(active) = &mut self.slots[at].active {
                        active.consider(guesses, asked.min(left), vocabulary);
                    }
                }
            }
            Some(Err(DecodeError::Abandoned)) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "the drafter failed: nothing is drafted any more until a restart");
                self.drafting = false;
            }
        }
    }

    fn decline(&mut self, at: usize) {
        if let Some(active) = &mut self.slots[at].active
            && let Some(odds) = &mut active.drafted
        {
            odds.decline(active.tokens.len());
        }
    }
}

impl<S> Active<S> {
    /// Takes over what the drafter guessed, of which `asked` tokens were wanted.
    fn consider(&mut self, guesses: Guesses, asked: usize, vocabulary: u32) {
        if !guesses.ready {
            return;
        }
        self.asked = asked;
        let known = |token: &i32| u32::try_from(*token).is_ok_and(|id| id < vocabulary);
        self.guesses = guesses.tokens;
        let known = self.guesses.iter().take_while(|token| known(token)).count();
        self.guesses.truncate(known.min(asked));
        if self.guesses.is_empty() {
            self.learn(0, 0);
        }
    }

    /// Of the step's `made` guesses the first `hits` came true.
    pub(super) fn learn(&mut self, made: usize, hits: usize) {
        let tokens = self.tokens.len();
        if self.asked == 0 {
            if let Some(lookup) = &mut self.lookup {
                lookup.learn(made, hits, tokens);
            }
        } else if let Some(odds) = &mut self.drafted {
            // Where the drafter was not sure enough to go on counts as a guess that did not come true.
            odds.learn(self.asked.min(made + 1), hits, tokens);
        }
    }
}

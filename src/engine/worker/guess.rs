//! Guesses before a step: what a sequence said before, else what a drafter thinks; and what is learnt from how they did.

use super::Worker;
use crate::engine::{
    Worth,
    draft::{Drafter, Guesses, Wish},
    media,
    model::{DecodeError, Model},
    odds::{self, Odds},
    plan::Work,
    slot::{Active, Slot, small},
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

/// A slot whose sequence the drafter may guess for.
struct Able<'a> {
    slot: usize,
    odds: &'a Odds,
    /// Tokens that may be guessed.
    left: usize,
    wish: Wish<'a>,
}

/// The slots whose sequences `drafter` may guess for, the most promising first. `worth_reading`: whether so many tokens are
/// worth the seconds that it takes to read what came before them.
fn able<'a, S>(
    slots: &'a [Slot<S>],
    context: usize,
    drafter: &dyn Drafter,
    worth_reading: impl Fn(usize, f64) -> bool,
) -> Vec<Able<'a>> {
    let able = slots.iter().enumerate().filter_map(|(at, slot)| {
        let (Some(Work::Decode { .. }), Some(active)) = (slot.work(1), &slot.active) else {
            return None;
        };
        let odds = active.drafted.as_ref()?;
        let left = active.left(context).saturating_sub(1);
        if left == 0 || !active.guesses.is_empty() || !odds.are_open(active.tokens.len()) {
            return None;
        }
        let wish = Wish {
            sequence: slot.sequence,
            tokens: &active.tokens,
        };
        let behind = drafter.seconds_behind(&wish)?;
        worth_reading(left, behind).then_some(Able {
            slot: at,
            odds,
            left,
            wish,
        })
    });
    let mut able: Vec<_> = able.collect();
    able.sort_by(|a, b| b.odds.expected(1).total_cmp(&a.odds.expected(1)));
    able
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
        #[expect(clippy::cast_precision_loss, reason = "tokens of an answer")]
        let worth_reading = |left: usize, behind: f64| {
            worth == Worth::Assumed || behind <= left as f64 * plain * WORTH_READING
        };
        let mut able = able(&self.slots, context, drafter, worth_reading);
        let odds: Vec<_> = able.iter().map(|able| able.odds).collect();
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
        let Some(share) = share else {
            let declined: Vec<_> = able.iter().map(|able| able.slot).collect();
            return declined.into_iter().for_each(|at| self.decline(at));
        };
        able.truncate(share.sequences);
        able.sort_by_key(|able| able.slot);
        let wishes: Vec<_> = able.iter().map(|able| able.wish).collect();
        let looks = self.shared.pulse.looks();
        let abandoned = || looks.due() && self.shared.halt.is_cancelled();
        let outcome = drafter.guess(&wishes, share.guesses, patience, &abandoned);
        let places: Vec<_> = able.iter().map(|able| (able.slot, able.left)).collect();
        match outcome {
            Ok(guessed) => {
                for ((at, left), guesses) in places.into_iter().zip(guessed) {
                    if let Some(active) = &mut self.slots[at].active {
                        active.consider(guesses, share.guesses.min(left), vocabulary);
                    }
                }
            }
            Err(DecodeError::Abandoned) => {}
            Err(error) => {
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

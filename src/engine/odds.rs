//! How often a sequence's guesses came true (pure): how many more are worth their time, and when to leave it for a while.

/// Chances below this are not worth a try, whatever a row costs.
const HOPELESS: f64 = 0.2;
/// What is assumed before anything is known.
const HOPE: f64 = 0.7;
/// How much of the chance a new guess replaces.
const WEIGHT: f64 = 0.15;
/// Tokens without a guess after guessing stopped paying; doubled each time.
const REST: usize = 32;
const LONGEST_REST: usize = 1024;
/// So much more must come of a step with guesses than of one without: something to spare for what estimates leave out.
const MARGIN: f64 = 1.05;

/// What is known of one sequence's guesses from one source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Odds {
    /// Chance that one guessed token comes true.
    chance: f64,
    /// No guess before the sequence is this long.
    resting_until: usize,
    rest: usize,
}

impl Default for Odds {
    fn default() -> Self {
        Self {
            chance: HOPE,
            resting_until: 0,
            rest: REST,
        }
    }
}

impl Odds {
    /// Whether a sequence of `tokens` tokens may be guessed for at all.
    pub(crate) fn are_open(&self, tokens: usize) -> bool {
        tokens >= self.resting_until && self.chance >= HOPELESS
    }

    /// Tokens to be had from a step with so many guesses: 1 + p + p² + …
    pub(crate) fn expected(&self, guesses: usize) -> f64 {
        let mut all = 1.0;
        let further = (0..guesses).map(|_| {
            all *= self.chance;
            all
        });
        1.0 + further.sum::<f64>()
    }

    /// The best of these numbers of guesses, if any is better than none. `cost`: what a step with so many guesses
    /// takes, in steps without.
    pub(crate) fn best(
        &self,
        lengths: impl Iterator<Item = usize>,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let gain = |guesses: usize| self.expected(guesses) / cost(guesses);
        lengths
            .max_by(|&a, &b| gain(a).total_cmp(&gain(b)))
            .filter(|&length| gain(length) > MARGIN)
    }

    /// Of `made` guesses the first `accepted` came true; the sequence has `tokens` tokens now.
    pub(crate) fn learn(&mut self, made: usize, accepted: usize, tokens: usize) {
        for _ in 0..accepted {
            self.chance += (1.0 - self.chance) * WEIGHT;
        }
        if accepted < made {
            // Those behind the first wrong one say nothing.
            self.chance -= self.chance * WEIGHT;
        }
        if accepted == made {
            self.rest = REST;
        }
        if self.chance < HOPELESS {
            self.leave(tokens);
            // After the rest one or two wrong guesses end it again.
            self.chance = HOPELESS * 1.3;
        }
    }

    /// Guesses would come true, but not often enough for what they cost: after a rest it may be otherwise.
    pub(crate) fn decline(&mut self, tokens: usize) {
        self.leave(tokens);
        self.chance = self.chance.max(HOPE);
    }

    fn leave(&mut self, tokens: usize) {
        self.resting_until = tokens + self.rest;
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

/// For how many of several sequences a drafter shall guess, and how many tokens for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// The most promising ones.
    pub(crate) sequences: usize,
    pub(crate) guesses: usize,
}

/// The share that brings the most tokens in a second for all that run, if any is better than none.
///
/// `odds`: the best first. `running`: sequences of the step, which all wait for the guesses of some. `most`: guesses that
/// so many sequences may have each. `step`: seconds of a step with so many rows. `draft`: seconds of so many guesses for
/// so many sequences.
pub(crate) fn share(
    odds: &[&Odds],
    running: usize,
    most: impl Fn(usize) -> usize,
    step: impl Fn(usize) -> f64,
    draft: impl Fn(Share) -> f64,
) -> Option<Share> {
    #[expect(clippy::cast_precision_loss, reason = "sequences are few")]
    let whole = running as f64;
    let plain = step(running);
    let speed = |share: &Share| {
        let Share { sequences, guesses } = *share;
        let more = odds[..sequences]
            .iter()
            .map(|odds| odds.expected(guesses) - 1.0);
        // llama.cpp computes equal counts of all sequences together, and what some have more in a batch of its own.
        let verify = if sequences == running {
            step(running * (1 + guesses))
        } else {
            plain + step(sequences * guesses)
        };
        (whole + more.sum::<f64>()) / (verify + draft(*share))
    };
    let shares = (1..=odds.len()).flat_map(|sequences| {
        let guesses = 1..=most(sequences);
        guesses.map(move |guesses| Share { sequences, guesses })
    });
    shares
        .map(|share| (share, speed(&share)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .filter(|(_, best)| *best > MARGIN * whole / plain)
        .map(|(share, _)| share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odds(chance: f64) -> Odds {
        Odds {
            chance,
            ..Odds::default()
        }
    }

    /// A step whose time is that of its weights, and a little for each row.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn step(rows: usize) -> f64 {
        1.0 + rows as f64 * 0.05
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn cheap(share: Share) -> f64 {
        share.guesses as f64 * 0.05
    }

    #[test]
    fn a_good_drafter_guesses_further_than_a_poor_one_and_a_dear_one_not_at_all() {
        let guesses = |chance: f64, dear: f64| {
            let best = share(
                &[&odds(chance)],
                1,
                |_| 16,
                step,
                |share| dear * cheap(share),
            );
            best.map_or(0, |share| share.guesses)
        };
        assert!(guesses(0.9, 1.0) > guesses(0.5, 1.0));
        assert!(guesses(0.5, 1.0) > 0);
        assert_eq!(guesses(0.9, 40.0), 0);
    }

    #[test]
    fn only_those_who_gain_by_it_get_guesses_beside_others_who_wait_for_them() {
        let (good, poor) = (odds(0.9), odds(0.21));
        let both = share(&[&good, &poor], 2, |_| 4, step, cheap).unwrap();
        assert_eq!(both.sequences, 2); // computed together they cost next to nothing more
        let alone = |rows: usize| if rows > 2 { 9.0 } else { 1.0 };
        assert_eq!(share(&[&good], 2, |_| 4, alone, cheap), None);
    }

    #[test]
    fn what_does_not_pay_is_left_for_a_while_and_tried_again() {
        let mut odds = Odds::default();
        odds.decline(100);
        assert!(!odds.are_open(100 + REST - 1));
        assert!(odds.are_open(100 + REST));
        odds.decline(200);
        assert!(!odds.are_open(200 + REST));
        while odds.are_open(400) {
            odds.learn(1, 0, 400);
        }
        assert!(odds.are_open(400 + LONGEST_REST));
    }

    #[test]
    fn no_room_for_guesses_is_no_share() {
        assert_eq!(share(&[&odds(0.9)], 1, |_| 0, step, cheap), None);
        assert_eq!(share(&[], 1, |_| 4, step, cheap), None);
    }
}

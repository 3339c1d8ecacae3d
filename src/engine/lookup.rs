//! Guesses at what comes next: what followed the same tokens earlier in this very sequence, or in a prediction of it.

use std::collections::HashMap;

use super::Token;

/// Tokens that must agree before their continuation is worth a guess.
const MATCH: usize = 3;
/// Most tokens guessed at once.
pub(crate) const MOST: u32 = 16;
/// Chances below this are not worth a try, whatever a row costs.
const HOPELESS: f64 = 0.2;
/// What is assumed before anything is known.
const HOPE: f64 = 0.7;
/// How much of the chance a new guess replaces.
const WEIGHT: f64 = 0.15;
/// Tokens without a guess after guessing stopped paying; doubled each time.
const REST: usize = 32;
const LONGEST_REST: usize = 1024;

/// An index of a prediction and of one sequence's own tokens, and how well guesses from it have done.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// What the caller thinks that the sequence may hold.
    prediction: Vec<Token>,
    /// Where these tokens were last followed by something: the place of what followed.
    places: HashMap<[Token; MATCH], Place>,
    /// Tokens indexed.
    seen: usize,
    /// Chance that one guessed token comes true.
    chance: f64,
    /// No guess before the sequence is this long.
    resting_until: usize,
    rest: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Predicted(usize),
    Said(usize),
}

impl Lookup {
    pub(crate) fn new(prediction: &[Token], tokens: &[Token]) -> Self {
        let mut lookup = Self {
            prediction: prediction.to_vec(),
            places: HashMap::with_capacity(prediction.len() + tokens.len()),
            seen: 0,
            chance: HOPE,
            resting_until: 0,
            rest: REST,
        };
        for (key, at) in keys(prediction, 0) {
            lookup.places.insert(key, Place::Predicted(at));
        }
        lookup.push(tokens);
        lookup
    }

    /// `tokens`: the whole sequence, which has grown.
    pub(crate) fn push(&mut self, tokens: &[Token]) {
        // What ends the sequence is followed by nothing yet.
        for (key, at) in keys(tokens, self.seen) {
            self.places.insert(key, Place::Said(at));
        }
        self.seen = tokens.len();
    }

    /// What may come next, at most `most` tokens. `cost`: what a step with so many guesses takes, in steps without.
    pub(crate) fn guess(
        &self,
        tokens: &[Token],
        most: usize,
        cost: impl Fn(usize) -> f64,
    ) -> Vec<Token> {
        if tokens.len() < self.resting_until || self.chance < HOPELESS {
            return Vec::new();
        }
        let Some(place) = tokens
            .last_chunk::<MATCH>()
            .and_then(|key| self.places.get(key))
        else {
            return Vec::new();
        };
        let follows = match *place {
            Place::Predicted(at) => &self.prediction[at..],
            Place::Said(at) => &tokens[at..],
        };
        let most = most.min(MOST as usize).min(follows.len());
        // Tokens to be had from a step of so many guesses: 1 + p + p² + …
        let gain = |guesses: usize| {
            let mut expected = 1.0;
            let mut all = 1.0;
            for _ in 0..guesses {
                all *= self.chance;
                expected += all;
            }
            expected / cost(guesses)
        };
        let lengths = [2, 4, 8, 12, MOST as usize];
        let best = lengths
            .into_iter()
            .map(|length: usize| length.min(most))
            .filter(|&length| length > 0)
            .max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
        match best {
            // Better than none at all, with something to spare for what the estimate leaves out.
            Some(length) if gain(length) > 1.05 => follows[..length].to_vec(),
            _ => Vec::new(),
        }
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
            self.resting_until = tokens + self.rest;
            self.rest = (self.rest * 2).min(LONGEST_REST);
            // After the rest one or two wrong guesses end it again.
            self.chance = HOPELESS * 1.3;
        }
    }
}

/// The places from `start` on, each with the tokens before it.
fn keys(tokens: &[Token], start: usize) -> impl Iterator<Item = ([Token; MATCH], usize)> {
    let places = start.max(MATCH)..tokens.len();
    places.filter_map(|at| Some((tokens[at - MATCH..at].try_into().ok()?, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prediction_is_followed_until_the_sequence_knows_better() {
        let mut tokens = vec![7, 1, 2, 3];
        let mut lookup = Lookup::new(&[1, 2, 3, 4, 5], &tokens);
        assert_eq!(lookup.guess(&tokens, 4, free), [4, 5]);
        tokens.extend([9, 9, 1, 2, 3]);
        lookup.push(&tokens);
        assert_eq!(lookup.guess(&tokens, 2, free), [9, 9]);
    }

    fn free(_: usize) -> f64 {
        1.0
    }

    #[test]
    fn what_followed_the_same_tokens_before_is_guessed() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
        let lookup = Lookup::new(&[], &tokens);
        assert_eq!(lookup.guess(&tokens, 4, free), [4, 5, 6, 7]);
        assert_eq!(lookup.guess(&tokens[..11], 4, free), [] as [Token; 0]);
    }

    #[test]
    fn the_latest_of_several_places_counts_and_new_tokens_are_indexed() {
        let mut tokens = vec![1, 2, 3, 4, 1, 2, 3, 5, 5, 5];
        let mut lookup = Lookup::new(&[], &tokens);
        tokens.extend([1, 2, 3]);
        lookup.push(&tokens);
        assert_eq!(lookup.guess(&tokens, 2, free), [5, 5]);
    }

    #[test]
    fn where_rows_are_dear_and_chances_poor_nothing_is_guessed() {
        let tokens: Vec<Token> = (0..50).chain(0..10).collect();
        let mut lookup = Lookup::new(&[], &tokens);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let dear = |guesses: usize| 1.0 + guesses as f64 * 0.9;
        assert!(lookup.guess(&tokens, 16, dear).is_empty());
        assert!(!lookup.guess(&tokens, 16, free).is_empty());
        while lookup.resting_until == 0 {
            lookup.learn(4, 0, 60);
        }
        assert!(lookup.guess(&tokens, 16, free).is_empty());
    }

    #[test]
    fn success_makes_guesses_longer() {
        let tokens: Vec<Token> = (0..50).chain(0..10).collect();
        let mut lookup = Lookup::new(&[], &tokens);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let half = |guesses: usize| 1.0 + guesses as f64 * 0.4;
        let before = lookup.guess(&tokens, 16, half).len();
        for _ in 0..20 {
            lookup.learn(8, 8, 60);
        }
        assert!(lookup.guess(&tokens, 16, half).len() > before);
    }
}

//! Guesses at what comes next: what followed the same tokens earlier in this very sequence, or in a prediction of it.

use std::collections::HashMap;

use super::{Token, odds::Odds};

/// Tokens that must agree before their continuation is worth a guess.
const MATCH: usize = 3;
/// Most tokens guessed at once.
pub(crate) const MOST: u32 = 16;

/// An index of a prediction and of one sequence's own tokens, and how well guesses from it have done.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// What the caller thinks that the sequence may hold.
    prediction: Vec<Token>,
    /// Where these tokens were last followed by something: the place of what followed.
    places: HashMap<[Token; MATCH], Place>,
    /// Tokens indexed.
    seen: usize,
    odds: Odds,
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
            odds: Odds::default(),
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
        if !self.odds.are_open(tokens.len()) {
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
        let lengths = [2, 4, 8, 12, MOST as usize].map(|length| length.min(most));
        let worth = lengths.into_iter().filter(|&length| length > 0);
        let length = self.odds.best(worth, cost).unwrap_or(0);
        follows[..length].to_vec()
    }

    /// Of `made` guesses the first `accepted` came true; the sequence has `tokens` tokens now.
    pub(crate) fn learn(&mut self, made: usize, accepted: usize, tokens: usize) {
        self.odds.learn(made, accepted, tokens);
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
        while lookup.odds.are_open(60) {
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

//! Prompts of a given length that no cache has seen: pseudo-random words from a seed.

use std::hash::{BuildHasher as _, RandomState};

/// Common words, each one token with its leading space in the vocabularies of today's models.
const WORDS: &str = "time year people way day man thing woman life child world school state family \
    student group country problem hand part place case week company system program question work \
    government number night point home water room mother area money story fact month lot right \
    study book eye job word business issue side kind head house service friend father power hour \
    game line end member law car city community name president team minute idea body information \
    back parent face others level office door health person art war history party result change \
    morning reason research girl guy moment air teacher force education foot boy age policy music \
    market sense death plan interest field paper space ground form event matter center table cost \
    action energy model bank rate light road value voice light stage process river window heart";

/// A small generator of pseudo-random numbers (splitmix64): equal seeds, equal sequences.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // The high half of a product: no modulo bias worth naming at these sizes.
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }

    /// `0.0..1.0`.
    pub(super) fn share(&mut self) -> f64 {
        f64::from(self.below(u32::MAX)) / f64::from(u32::MAX)
    }

    /// One of `choices`, which must not be empty.
    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let count = u32::try_from(choices.len()).unwrap_or(u32::MAX);
        &choices[self.below(count) as usize]
    }
}

/// A seed that differs each time.
pub(super) fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// `words` words, different from the first on.
pub(super) fn prompt(words: u32, dice: &mut Dice) -> String {
    let vocabulary: Vec<&str> = WORDS.split_whitespace().collect();
    let words: Vec<&str> = (0..words.max(1)).map(|_| *dice.pick(&vocabulary)).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_thousand_prompts_share_no_prefix_of_eight_words() {
        let mut dice = Dice::new(7);
        let prefixes: HashSet<String> = (0..1000).map(|_| prompt(8, &mut dice)).collect();
        assert_eq!(prefixes.len(), 1000);
    }

    #[test]
    fn equal_seeds_give_equal_prompts() {
        let ask = |seed| prompt(64, &mut Dice::new(seed));
        assert_eq!(ask(3), ask(3));
        assert_ne!(ask(3), ask(4));
    }

    #[test]
    fn a_prompt_has_as_many_words_as_asked_for() {
        assert_eq!(prompt(512, &mut Dice::new(1)).split(' ').count(), 512);
    }

    #[test]
    fn dice_stay_below_their_bound() {
        let mut dice = Dice::new(9);
        assert!((0..1000).all(|_| dice.below(3) < 3 && (0.0..=1.0).contains(&dice.share())));
    }
}

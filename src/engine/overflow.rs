//! What is forgotten when a context is full and its job is to go on (pure).

use std::ops::Range;

use super::Token;

/// How much of a full context stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// Tokens from the start; `None`: the whole prompt.
    pub keep: Option<u32>,
    /// Tokens after these that are forgotten at once; 0: half of what is left.
    pub discard: u32,
}

/// Tokens of the context that are never kept, so that there is something to forget.
const LEAST: usize = 4;

impl Shift {
    /// The tokens to forget of a sequence with `computed` tokens, whose prompt had `prompt`. Never empty if
    /// `context` holds more than a few tokens and all but the last are computed.
    pub(crate) fn forgotten(self, computed: usize, prompt: usize, context: usize) -> Range<usize> {
        let keep = self.kept(prompt, context);
        let left = computed.saturating_sub(keep);
        let discard = match self.discard as usize {
            0 => left / 2,
            discard => discard.min(left.saturating_sub(1)),
        };
        keep..keep + discard
    }

    /// Takes so much out of the middle of a prompt that it leaves room for an answer, in blocks of half of what may be forgotten.
    /// Gives how many tokens these are.
    pub fn cut(self, prompt: &mut Vec<Token>, context: usize) -> usize {
        if prompt.len() < context {
            return 0;
        }
        let keep = self.kept(prompt.len(), context);
        let block = ((context - keep) / 2).max(1);
        let gone = (prompt.len() - keep - block) / block * block;
        prompt.drain(keep..keep + gone);
        gone
    }

    fn kept(self, prompt: usize, context: usize) -> usize {
        let keep = self.keep.map_or(prompt, |keep| keep as usize);
        keep.min(context.saturating_sub(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn shift(keep: Option<u32>, discard: u32) -> Shift {
        Shift { keep, discard }
    }

    #[test]
    fn half_of_what_is_not_kept_is_forgotten_or_as_much_as_is_asked_for() {
        let forgotten = |shift: Shift| shift.forgotten(255, 20, 256);
        assert_eq!(forgotten(shift(Some(0), 0)), 0..127);
        assert_eq!(forgotten(shift(Some(55), 0)), 55..155);
        assert_eq!(forgotten(shift(None, 0)), 20..137);
        assert_eq!(forgotten(shift(Some(0), 10)), 0..10);
        assert_eq!(forgotten(shift(Some(0), 9999)), 0..254);
        assert_eq!(forgotten(shift(Some(9999), 0)), 252..253);
    }

    #[test]
    fn a_prompt_that_is_too_long_loses_its_middle() {
        let cut = |length: i32, shift: Shift| {
            let mut prompt: Vec<Token> = (0..length).collect();
            let gone = shift.cut(&mut prompt, 100);
            (gone, prompt.len(), prompt[10], prompt.last().copied())
        };
        assert_eq!(cut(99, shift(Some(0), 0)), (0, 99, 10, Some(98)));
        assert_eq!(cut(100, shift(Some(0), 0)), (50, 50, 60, Some(99)));
        assert_eq!(cut(1000, shift(Some(20), 0)), (920, 80, 10, Some(999)));
        assert_eq!(cut(1000, shift(None, 0)), (902, 98, 10, Some(999)));
    }

    proptest! {
        #[test]
        fn there_is_room_afterwards_and_what_is_kept_stays(
            length in 1usize..5000, context in 16usize..1000,
            keep in prop::option::of(0u32..2000), discard in 0u32..2000,
        ) {
            let shift = shift(keep, discard);
            let mut prompt: Vec<Token> = (0..).take(length).collect();
            let gone = shift.cut(&mut prompt, context);
            prop_assert!(!prompt.is_empty() && prompt.len() < context);
            prop_assert_eq!(prompt.len() + gone, length);
            let forgotten = shift.forgotten(context - 1, prompt.len(), context);
            prop_assert!(!forgotten.is_empty() && forgotten.end < context);
        }
    }
}

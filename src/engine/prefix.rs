//! Tokens whose state is kept, and the places from which it can be taken up again.

use std::sync::Arc;

use super::{Token, media};

/// Where the state of a sequence can be cut back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cuts {
    /// At any token; otherwise only at its end and at its checkpoints: a recurrent state or a sliding window has
    /// forgotten what came before.
    pub(crate) anywhere: bool,
    /// Only at multiples of this many tokens (1: no limit): in reproducible mode prompts are computed in chunks of
    /// this size, and what is not on their grid has other bits.
    pub(crate) grid: usize,
}

/// A sequence's state at one place, as far as it cannot be had by cutting.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// Tokens before it.
    pub(crate) at: usize,
    pub(crate) state: Arc<Vec<u8>>,
}

/// What is known of a computed beginning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefix {
    pub(crate) tokens: Vec<Token>,
    /// Whose tokens these are; nobody may take up those of nobody.
    pub(crate) tenant: Option<u64>,
    /// Tokens from the start that were computed as a prompt, chunk by chunk; all of them unless it matters.
    pub(crate) solid: usize,
    /// In rising order.
    pub(crate) checkpoints: Vec<Checkpoint>,
}

/// More checkpoints of one sequence are thinned out.
const MOST_CHECKPOINTS: usize = 16;
/// The latest ones are never thinned: the next turn starts there.
const NEWEST: usize = 4;

impl Prefix {
    /// The longest beginning of `prompt` that this state can be cut back to. The last token of a prompt is always
    /// computed again, because its logits are needed.
    pub(crate) fn reach(&self, tenant: Option<u64>, prompt: &[Token], cuts: Cuts) -> usize {
        if tenant.is_none() || self.tenant != tenant {
            return 0;
        }
        let most = prompt.len().saturating_sub(1);
        let mut limit = common(&self.tokens, &prompt[..most]);
        loop {
            let reach = self.cut(limit, cuts);
            limit = media::whole(prompt, reach);
            if limit == reach {
                return reach;
            }
        }
    }

    /// The latest place at or before `limit` that this state can be cut back to.
    pub(crate) fn cut(&self, limit: usize, cuts: Cuts) -> usize {
        let limit = limit.min(self.solid);
        let limit = limit - limit % cuts.grid;
        if cuts.anywhere || limit == self.tokens.len() {
            return limit;
        }
        self.checkpoint(limit).map_or(0, |checkpoint| checkpoint.at)
    }

    /// The latest checkpoint at or before `limit`.
    pub(crate) fn checkpoint(&self, limit: usize) -> Option<&Checkpoint> {
        let known = self
            .checkpoints
            .partition_point(|checkpoint| checkpoint.at <= limit);
        self.checkpoints[..known].last()
    }

    /// The position that the token at `at` has, or would have; it is not inside of an image.
    pub(crate) fn position(&self, at: usize) -> usize {
        media::position(&self.tokens, at)
    }

    /// Adds a checkpoint at the end of what is computed.
    pub(crate) fn add(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.retain(|other| other.at < checkpoint.at);
        self.checkpoints.push(checkpoint);
        while self.checkpoints.len() > MOST_CHECKPOINTS {
            // The one whose neighbours are closest is missed least.
            let old = self.checkpoints.len() - NEWEST;
            let gap = |at: usize| {
                let before = at.checked_sub(1).map_or(0, |at| self.checkpoints[at].at);
                self.checkpoints[at + 1].at - before
            };
            let Some(closest) = (0..old).min_by_key(|&at| gap(at)) else {
                break;
            };
            self.checkpoints.remove(closest);
        }
    }

    /// Forgets all from `tokens` on.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.solid = self.solid.min(tokens);
        self.checkpoints
            .retain(|checkpoint| checkpoint.at <= tokens);
    }
}

/// How many tokens two sequences have in common from the start.
pub(crate) fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: Cuts = Cuts {
        anywhere: true,
        grid: 1,
    };
    const CHECKPOINTS: Cuts = Cuts {
        anywhere: false,
        grid: 1,
    };

    fn prefix(tokens: usize, checkpoints: &[usize]) -> Prefix {
        let mut prefix = Prefix {
            tokens: (0..).take(tokens).collect(),
            tenant: Some(1),
            solid: tokens,
            checkpoints: Vec::new(),
        };
        for &at in checkpoints {
            prefix.add(Checkpoint {
                at,
                state: Arc::new(vec![0; 10]),
            });
        }
        prefix
    }

    #[test]
    fn attention_is_cut_anywhere_but_before_the_last_token_of_the_prompt() {
        let prompt: Vec<Token> = (0..50).collect();
        assert_eq!(prefix(100, &[]).reach(Some(1), &prompt, ANYWHERE), 49);
        assert_eq!(prefix(30, &[]).reach(Some(1), &prompt, ANYWHERE), 30);
        assert_eq!(prefix(30, &[]).reach(Some(2), &prompt, ANYWHERE), 0);
    }

    #[test]
    fn a_recurrent_state_is_taken_up_at_its_end_or_at_a_checkpoint() {
        let prompt: Vec<Token> = (0..50).collect();
        assert_eq!(prefix(30, &[10]).reach(Some(1), &prompt, CHECKPOINTS), 30);
        assert_eq!(
            prefix(100, &[10, 40, 49, 60]).reach(Some(1), &prompt, CHECKPOINTS),
            49
        );
        assert_eq!(prefix(100, &[60]).reach(Some(1), &prompt, CHECKPOINTS), 0);
    }

    #[test]
    fn a_grid_allows_only_its_own_lines_inside_of_the_prompt() {
        let cuts = Cuts {
            grid: 16,
            ..ANYWHERE
        };
        let prompt: Vec<Token> = (0..50).collect();
        let mut kept = prefix(100, &[]);
        assert_eq!(kept.reach(Some(1), &prompt, cuts), 48);
        kept.solid = 40;
        assert_eq!(kept.reach(Some(1), &prompt, cuts), 32);
    }

    #[test]
    fn checkpoints_are_thinned_where_they_are_dense_and_the_newest_stay() {
        let places: Vec<_> = (1..=40).map(|at| at * 10).collect();
        let kept = prefix(400, &places);
        let left: Vec<_> = kept.checkpoints.iter().map(|one| one.at).collect();
        assert_eq!(left.len(), MOST_CHECKPOINTS);
        assert!(left.ends_with(&[370, 380, 390, 400]), "{left:?}");
        assert!(left[0] <= 150, "{left:?}");
    }
}

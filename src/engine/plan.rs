//! Which tokens of which sequences go into the next batch. Pure: sizes in, shares out.

/// A sequence with tokens to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) sequence: u32,
    /// Tokens still to compute; at least 1. Exactly 1 once the sequence generates.
    pub(crate) tokens: u32,
}

/// How many of them the next batch computes; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) sequence: u32,
    pub(crate) tokens: u32,
}

/// Sizes of the device's batches, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) batch: u32,
    pub(crate) ubatch: u32,
}

/// Shares the next batch out: every sequence with one token left goes first, so that no prompt delays a
/// running stream by more than one ubatch; prompts share the rest evenly, so that a short one is not
/// behind a long one. `wants` is ascending by sequence, and so is the answer, as llama.cpp batches best.
/// At most `batch` sequences may want.
pub(crate) fn plan(wants: &[Want], room: Room) -> Vec<Share> {
    let generating = count(wants.iter().filter(|want| want.tokens == 1));
    let prompts = count(wants.iter()) - generating;
    // Alone, prompts may fill a whole batch; beside running streams they get one ubatch in all.
    let limit = if generating > 0 {
        room.ubatch.max(generating + prompts)
    } else {
        room.batch
    };
    let mut left = limit.min(room.batch).saturating_sub(generating);

    // Smallest first: what a short prompt does not need of its even share goes to the longer ones.
    let mut shares: Vec<Share> = wants
        .iter()
        .map(|want| Share {
            sequence: want.sequence,
            tokens: want.tokens,
        })
        .collect();
    shares.sort_by_key(|share| share.tokens);
    let mut waiting = prompts;
    for share in shares.iter_mut().filter(|share| share.tokens > 1) {
        share.tokens = share.tokens.min(left / waiting.max(1));
        left -= share.tokens;
        waiting -= 1;
    }
    shares.retain(|share| share.tokens > 0);
    shares.sort_by_key(|share| share.sequence);
    shares
}

fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: Room = Room {
        batch: 2048,
        ubatch: 512,
    };

    fn shares(tokens: &[u32]) -> Vec<u32> {
        let wants: Vec<_> = (0..)
            .zip(tokens)
            .map(|(sequence, &tokens)| Want { sequence, tokens })
            .collect();
        plan(&wants, ROOM)
            .iter()
            .map(|share| share.tokens)
            .collect()
    }

    #[test]
    fn a_lone_prompt_fills_the_batch() {
        assert_eq!(shares(&[5000]), [2048]);
    }

    #[test]
    fn a_prompt_beside_running_streams_gets_what_is_left_of_one_ubatch() {
        assert_eq!(shares(&[1, 5000, 1]), [1, 510, 1]);
    }

    #[test]
    fn a_short_prompt_is_not_behind_a_long_one() {
        assert_eq!(shares(&[9000, 100]), [1948, 100]);
    }

    proptest! {
        #[test]
        fn nobody_starves_and_the_batch_is_never_exceeded(tokens in prop::collection::vec(1u32..4000, 1..64), batch in 64u32..4096, ubatch in 1u32..4096) {
            let wants: Vec<_> = (0..).zip(&tokens).map(|(sequence, &tokens)| Want { sequence, tokens }).collect();
            let shares = plan(&wants, Room { batch, ubatch: ubatch.min(batch) });
            prop_assert_eq!(shares.len(), wants.len());
            prop_assert!(shares.iter().map(|s| s.tokens).sum::<u32>() <= batch);
            for (share, want) in shares.iter().zip(&wants) {
                prop_assert_eq!(share.sequence, want.sequence);
                prop_assert!(share.tokens >= 1 && share.tokens <= want.tokens);
            }
        }
    }
}

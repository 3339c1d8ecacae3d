//! Which tokens of which sequences go into the next batches. Pure: sizes in, shares out.

/// A sequence with tokens to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) sequence: u32,
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A running stream.
    Decode {
        /// Rows to compute; at least 1. More than one are tokens that a grammar left no choice about, and guesses.
        rows: u32,
        /// Whether they must all be computed at once.
        whole: bool,
    },
    /// An image of a prompt, which goes into a batch of its own.
    Image {
        /// Rows still to compute; at least 1.
        left: u32,
        /// Whether they must all be computed at once.
        whole: bool,
        turn: u64,
    },
    /// The text of a prompt whose every row asks for logits, which goes into a batch of its own as well.
    Scored {
        /// Rows still to compute, as far as there is room for their logits; at least 1.
        left: u32,
        turn: u64,
    },
    /// The text of a prompt.
    Prefill {
        /// Tokens still to compute; at least 1.
        left: u32,
        /// Of these, up to the next place where a step must end; at least 1.
        until: u32,
        /// When it was admitted: smaller is earlier.
        turn: u64,
    },
}

/// How many tokens of a sequence the next batch computes; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) sequence: u32,
    pub(crate) tokens: u32,
}

/// Which prompt goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The one with least left, so that a short one is not behind a long one.
    Shortest,
    /// The one that was admitted first, so that a long one is not for ever behind short ones.
    Oldest,
}

/// The batch of the running streams, at most `most` rows; ascending by sequence, as llama.cpp batches best. Those that have
/// more rows than others wait with the rest, so that all are computed together. A prompt of which one token is left comes
/// along where all have one row: it costs them next to nothing, and a batch of its own a run through all weights.
pub(crate) fn streams(wants: &[Want], most: u32) -> Vec<Share> {
    let rows = wants.iter().filter_map(|want| match want.work {
        Work::Decode { rows, .. } => Some(rows),
        Work::Prefill { .. } | Work::Image { .. } | Work::Scored { .. } => None,
    });
    let Some(least) = rows.min() else {
        return Vec::new();
    };
    let running = wants.iter().filter_map(|want| match want.work {
        Work::Decode { rows, whole } => Some((want.sequence, if whole { rows } else { least })),
        Work::Prefill { .. } | Work::Image { .. } | Work::Scored { .. } => None,
    });
    let last_rows = wants.iter().filter_map(|want| match want.work {
        Work::Prefill { left: 1, .. } if least == 1 => Some((want.sequence, 1)),
        _ => None,
    });
    let mut room = most;
    let shares = running.chain(last_rows).filter_map(|(sequence, tokens)| {
        room = room.checked_sub(tokens)?;
        Some(Share { sequence, tokens })
    });
    let mut shares: Vec<_> = shares.collect();
    shares.sort_unstable_by_key(|share| share.sequence);
    shares
}

/// The batch of the prompts, at most `most` rows, ascending by sequence. What the first prompt gets, others get too as long
/// as there is room: llama.cpp computes sequences together only in equal parts, and every unequal rest is one more
/// run through all weights. For the same reason streams have a batch of their own.
pub(crate) fn prompts(wants: &[Want], most: u32, first: First) -> Vec<Share> {
    let order = in_order(wants, first);
    let Some(&(_, until)) = order.first() else {
        return Vec::new();
    };
    let tokens = until.min(most.max(1));
    let together = (most / tokens).max(1) as usize;
    let shares = order
        .into_iter()
        .filter(|&(_, until)| until >= tokens)
        .map(|(sequence, _)| Share { sequence, tokens });
    let mut shares: Vec<_> = shares.take(together).collect();
    shares.sort_unstable_by_key(|share| share.sequence);
    shares
}

/// The prompts' sequences, each with what it may compute at most.
fn in_order(wants: &[Want], first: First) -> Vec<(u32, u32)> {
    let mut order: Vec<_> = wants
        .iter()
        .filter_map(|want| match want.work {
            Work::Prefill { left, until, turn } => Some((want.sequence, left, until, turn)),
            Work::Decode { .. } | Work::Image { .. } | Work::Scored { .. } => None,
        })
        .collect();
    order.sort_unstable_by_key(|&(_, left, _, turn)| (left, turn));
    if first == First::Oldest
        && let Some(oldest) = (0..order.len()).min_by_key(|&at| order[at].3)
    {
        order[..=oldest].rotate_right(1);
    }
    let order = order.into_iter();
    order
        .map(|(sequence, _, until, _)| (sequence, until))
        .collect()
}

/// The image or scored text whose turn it is: of the prompt that was admitted first, with at most `rows` rows if it can be
/// divided.
pub(crate) fn image(wants: &[Want], rows: u32) -> Option<Share> {
    let images = wants.iter().filter_map(|want| match want.work {
        Work::Image { left, whole, turn } => {
            let tokens = if whole { left } else { left.min(rows.max(1)) };
            let sequence = want.sequence;
            Some((turn, Share { sequence, tokens }))
        }
        Work::Scored { left, turn } => {
            let tokens = left.min(rows.max(1));
            let sequence = want.sequence;
            Some((turn, Share { sequence, tokens }))
        }
        Work::Decode { .. } | Work::Prefill { .. } => None,
    });
    images.min_by_key(|&(turn, _)| turn).map(|(_, share)| share)
}

/// The same, one sequence a batch: what a sequence computes then never depends on its neighbours.
pub(crate) fn alone(wants: &[Want], first: First) -> Vec<Vec<Share>> {
    let one = |want: &Want| streams(&[*want], u32::MAX);
    let mut batches: Vec<_> = wants.iter().map(one).collect();
    // One prompt's chunk, and the whole of it: its borders decide its bits.
    let chunk = in_order(wants, first).into_iter().take(1);
    batches.push(
        chunk
            .map(|(sequence, tokens)| Share { sequence, tokens })
            .collect(),
    );
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(sequence: u32) -> Want {
        Want {
            sequence,
            work: Work::Decode {
                rows: 1,
                whole: false,
            },
        }
    }

    fn prompt(sequence: u32, left: u32) -> Want {
        Want {
            sequence,
            work: Work::Prefill {
                left,
                until: left,
                turn: u64::from(sequence),
            },
        }
    }

    fn plain(shares: &[Share]) -> Vec<(u32, u32)> {
        let plain = shares.iter().map(|share| (share.sequence, share.tokens));
        plain.collect()
    }

    fn next_prompts(wants: &[Want], most: u32, first: First) -> Vec<(u32, u32)> {
        plain(&prompts(wants, most, first))
    }

    #[test]
    fn a_lone_prompt_fills_the_batch() {
        let wants = [prompt(0, 5000)];
        assert_eq!(next_prompts(&wants, 2048, First::Shortest), [(0, 2048)]);
    }

    #[test]
    fn streams_have_a_batch_of_their_own() {
        let wants = [stream(0), prompt(1, 5000), stream(2)];
        assert_eq!(plain(&streams(&wants, 2048)), [(0, 1), (2, 1)]);
        assert_eq!(next_prompts(&wants, 512, First::Shortest), [(1, 512)]);
    }

    #[test]
    fn a_prompts_last_token_comes_along_with_streams_of_one_row() {
        let wants = [prompt(0, 1), stream(1), prompt(2, 2)];
        assert_eq!(plain(&streams(&wants, 2048)), [(0, 1), (1, 1)]);
        assert_eq!(plain(&streams(&wants, 1)), [(1, 1)]);
        assert_eq!(plain(&streams(&[prompt(0, 1)], 2048)), []);
        let guessed = Want {
            sequence: 1,
            work: Work::Decode {
                rows: 3,
                whole: true,
            },
        };
        assert_eq!(plain(&streams(&[prompt(0, 1), guessed], 2048)), [(1, 3)]);
    }

    #[test]
    fn streams_with_more_to_compute_wait_with_what_the_others_do_not_have() {
        let more = |sequence, rows, whole| Want {
            sequence,
            work: Work::Decode { rows, whole },
        };
        let wants = [stream(0), more(1, 5, false), more(2, 3, true)];
        assert_eq!(plain(&streams(&wants, 256)), [(0, 1), (1, 1), (2, 3)]);
        let wants = [more(0, 3, false), more(1, 5, false)];
        assert_eq!(plain(&streams(&wants, 256)), [(0, 3), (1, 3)]);
    }

    #[test]
    fn a_short_prompt_is_not_behind_a_long_one_and_has_company_of_its_own_size() {
        let wants = [prompt(0, 9000), prompt(1, 100)];
        let shares = next_prompts(&wants, 2048, First::Shortest);
        assert_eq!(shares, [(0, 100), (1, 100)]);
        let shares = next_prompts(&wants, 199, First::Shortest);
        assert_eq!(shares, [(1, 100)]);
    }

    #[test]
    fn a_long_prompt_has_its_turn_before_short_ones() {
        let wants = [prompt(0, 9000), prompt(1, 100)];
        assert_eq!(next_prompts(&wants, 2048, First::Oldest), [(0, 2048)]);
    }

    #[test]
    fn a_prompt_stops_at_its_border_and_nobody_with_it_goes_further() {
        let bordered = Want {
            sequence: 0,
            work: Work::Prefill {
                left: 900,
                until: 300,
                turn: 0,
            },
        };
        let wants = [bordered, prompt(1, 9000), prompt(2, 9000)];
        let shares = next_prompts(&wants, 2048, First::Shortest);
        assert_eq!(shares, [(0, 300), (1, 300), (2, 300)]);
    }

    #[test]
    fn alone_means_one_sequence_in_each_batch_and_one_whole_chunk_of_a_prompt_a_round() {
        let wants = [prompt(0, 600), stream(1), prompt(2, 90), stream(3)];
        let batches = alone(&wants, First::Shortest);
        let batches: Vec<_> = batches.iter().map(|batch| plain(batch)).collect();
        assert_eq!(batches, [[(1, 1)], [(3, 1)], [(2, 90)]]);
    }

    #[test]
    fn of_images_the_oldest_goes_and_only_one_that_may_be_divided_is() {
        let one = |sequence, left, whole, turn| Want {
            sequence,
            work: Work::Image { left, whole, turn },
        };
        let share = |wants: &[Want]| image(wants, 100).map(|share| (share.sequence, share.tokens));
        assert_eq!(
            share(&[one(0, 300, false, 2), one(1, 300, false, 1)]),
            Some((1, 100))
        );
        assert_eq!(share(&[one(0, 300, true, 2)]), Some((0, 300)));
        assert_eq!(share(&[one(0, 30, false, 2), stream(1)]), Some((0, 30)));
        assert_eq!(share(&[stream(1), prompt(0, 10)]), None);
        let scored = Want {
            sequence: 2,
            work: Work::Scored { left: 20, turn: 1 },
        };
        assert_eq!(share(&[one(0, 30, false, 2), scored]), Some((2, 20)));
        assert_eq!(plain(&streams(&[stream(1), scored], 9)), [(1, 1)]);
    }

    fn any_want() -> impl Strategy<Value = Work> {
        prop_oneof![
            (1u32..4, any::<bool>()).prop_map(|(rows, whole)| Work::Decode { rows, whole }),
            (1u32..4000, any::<bool>(), 0u64..9).prop_map(|(left, whole, turn)| Work::Image {
                left,
                whole,
                turn
            }),
            (1u32..4000, 1u32..4000, 0u64..9).prop_map(|(left, until, turn)| Work::Prefill {
                left,
                until: until.min(left),
                turn
            }),
        ]
    }

    fn any_first() -> impl Strategy<Value = First> {
        prop_oneof![Just(First::Shortest), Just(First::Oldest)]
    }

    proptest! {
        #[test]
        fn streams_always_run_prompts_always_move_and_no_batch_is_too_large(
            works in prop::collection::vec(any_want(), 1..64),
            most in 1u32..4096,
            first in any_first(),
        ) {
            let wants: Vec<_> = (0..).zip(&works).map(|(sequence, &work)| Want { sequence, work }).collect();
            let streams = streams(&wants, 256);
            let prompts = prompts(&wants, most, first);
            for (shares, most) in [(&streams, 256), (&prompts, most)] {
                prop_assert!(shares.iter().map(|share| share.tokens).sum::<u32>() <= most);
                prop_assert!(shares.is_sorted_by_key(|share| share.sequence));
            }
            for want in &wants {
                let share = |shares: &[Share]| {
                    shares.iter().find(|share| share.sequence == want.sequence).map(|share| share.tokens)
                };
                let (streamed, prompted) = (share(&streams), share(&prompts));
                match want.work {
                    Work::Decode { rows, whole } => {
                        prop_assert_eq!(prompted, None);
                        let tokens = streamed.unwrap_or(0);
                        prop_assert!(tokens == rows || !whole && tokens >= 1 && tokens < rows);
                    }
                    Work::Prefill { left, until, .. } => {
                        prop_assert!(streamed.is_none_or(|tokens| (tokens, left) == (1, 1)));
                        prop_assert!(prompted.is_none_or(|tokens| tokens >= 1 && tokens <= until));
                    }
                    Work::Image { .. } | Work::Scored { .. } => prop_assert_eq!((streamed, prompted), (None, None)),
                }
            }
            let waits = works.iter().any(|work| matches!(work, Work::Prefill { .. }));
            prop_assert_eq!(!prompts.is_empty(), waits);
            prop_assert!(prompts.windows(2).all(|pair| pair[0].tokens == pair[1].tokens));
        }
    }
}

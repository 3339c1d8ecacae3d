//! Which tokens of which sequences go into the next batch. Pure: sizes in, shares out.

/// A sequence with tokens to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) sequence: u32,
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A running stream: this many rows, all of them or none.
    Decode { rows: u32 },
    /// An image of a prompt, which goes into a batch of its own.
    Image {
        /// Rows still to compute; at least 1.
        left: u32,
        /// Whether they must all be computed at once.
        whole: bool,
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

/// Sizes of the next batch, in tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// All rows together.
    pub(crate) batch: u32,
    /// All rows together as long as streams run; at least one is a prompt's.
    pub(crate) beside_streams: u32,
    /// Whether the prompt that waits longest goes first this time, and not the one with least left.
    pub(crate) oldest_first: bool,
}

/// Shares the next batch out. Running streams go first. What is left goes to one prompt after the other: the one with
/// least left first, so that a short one is not behind a long one, and in some turns the oldest first, so that
/// a long one is not for ever behind short ones. The answer is ascending by sequence, as llama.cpp batches best.
pub(crate) fn plan(wants: &[Want], room: Room) -> Vec<Share> {
    let mut shares = Vec::new();
    let mut left = room.batch;
    for want in wants {
        if let Work::Decode { rows } = want.work
            && rows <= left
        {
            left -= rows;
            shares.push(Share {
                sequence: want.sequence,
                tokens: rows,
            });
        }
    }
    if !shares.is_empty() {
        let streams = room.batch - left;
        left = left.min(room.beside_streams.saturating_sub(streams).max(1));
    }
    for (sequence, until) in prompts(wants, room) {
        let tokens = until.min(left);
        if tokens == 0 {
            break;
        }
        left -= tokens;
        shares.push(Share { sequence, tokens });
    }
    shares.sort_unstable_by_key(|share| share.sequence);
    shares
}

/// The prompts in the order of their turns, each with what it may compute at most.
fn prompts(wants: &[Want], room: Room) -> impl Iterator<Item = (u32, u32)> {
    let mut prompts: Vec<_> = wants
        .iter()
        .filter_map(|want| match want.work {
            Work::Prefill { left, until, turn } => Some((want.sequence, left, until, turn)),
            Work::Decode { .. } | Work::Image { .. } => None,
        })
        .collect();
    prompts.sort_unstable_by_key(|&(_, left, _, turn)| (left, turn));
    if room.oldest_first
        && let Some(oldest) = (0..prompts.len()).min_by_key(|&at| prompts[at].3)
    {
        prompts[..=oldest].rotate_right(1);
    }
    prompts
        .into_iter()
        .map(|(sequence, _, until, _)| (sequence, until))
}

/// The image whose turn it is: of the prompt that was admitted first, with at most `rows` rows if it can be divided.
pub(crate) fn plan_image(wants: &[Want], rows: u32) -> Option<Share> {
    let images = wants.iter().filter_map(|want| match want.work {
        Work::Image { left, whole, turn } => {
            let tokens = if whole { left } else { left.min(rows.max(1)) };
            let sequence = want.sequence;
            Some((turn, Share { sequence, tokens }))
        }
        Work::Decode { .. } | Work::Prefill { .. } => None,
    });
    images.min_by_key(|&(turn, _)| turn).map(|(_, share)| share)
}

/// The same as [`plan`], one sequence a batch: what a sequence computes then never depends on its neighbours.
pub(crate) fn plan_alone(wants: &[Want], room: Room) -> Vec<Vec<Share>> {
    let streams = wants
        .iter()
        .filter(|want| matches!(want.work, Work::Decode { .. }));
    let mut batches: Vec<_> = streams.map(|&want| plan(&[want], room)).collect();
    // One prompt's chunk, and the whole of it: its borders decide its bits.
    let first = prompts(wants, room).next();
    batches.extend(first.map(|(sequence, tokens)| vec![Share { sequence, tokens }]));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: Room = Room {
        batch: 2048,
        beside_streams: 512,
        oldest_first: false,
    };

    fn stream(sequence: u32) -> Want {
        Want {
            sequence,
            work: Work::Decode { rows: 1 },
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

    fn shares(wants: &[Want], room: Room) -> Vec<(u32, u32)> {
        let shares = plan(wants, room);
        shares
            .iter()
            .map(|share| (share.sequence, share.tokens))
            .collect()
    }

    #[test]
    fn a_lone_prompt_fills_the_batch() {
        assert_eq!(shares(&[prompt(0, 5000)], ROOM), [(0, 2048)]);
    }

    #[test]
    fn a_prompt_beside_running_streams_gets_what_the_pace_allows() {
        let wants = [stream(0), prompt(1, 5000), stream(2)];
        assert_eq!(shares(&wants, ROOM), [(0, 1), (1, 510), (2, 1)]);
    }

    #[test]
    fn a_short_prompt_is_not_behind_a_long_one() {
        let wants = [prompt(0, 9000), prompt(1, 100)];
        assert_eq!(shares(&wants, ROOM), [(0, 1948), (1, 100)]);
    }

    #[test]
    fn a_long_prompt_has_its_turn_before_short_ones() {
        let wants = [prompt(0, 9000), prompt(1, 100)];
        let room = Room {
            oldest_first: true,
            ..ROOM
        };
        assert_eq!(shares(&wants, room), [(0, 2048)]);
    }

    #[test]
    fn a_prompt_stops_at_its_border_and_leaves_the_rest_to_the_next() {
        let bordered = Want {
            sequence: 0,
            work: Work::Prefill {
                left: 900,
                until: 300,
                turn: 0,
            },
        };
        assert_eq!(
            shares(&[bordered, prompt(1, 9000)], ROOM),
            [(0, 300), (1, 1748)]
        );
    }

    #[test]
    fn alone_means_one_sequence_in_each_batch_and_one_whole_chunk_of_a_prompt_a_round() {
        let wants = [prompt(0, 600), stream(1), prompt(2, 90), stream(3)];
        let room = Room { batch: 512, ..ROOM };
        let batches: Vec<Vec<_>> = plan_alone(&wants, room)
            .iter()
            .map(|batch| {
                batch
                    .iter()
                    .map(|share| (share.sequence, share.tokens))
                    .collect()
            })
            .collect();
        assert_eq!(batches, [vec![(1, 1)], vec![(3, 1)], vec![(2, 90)]]);
    }

    #[test]
    fn of_images_the_oldest_goes_and_only_one_that_may_be_divided_is() {
        let image = |sequence, left, whole, turn| Want {
            sequence,
            work: Work::Image { left, whole, turn },
        };
        let share =
            |wants: &[Want]| plan_image(wants, 100).map(|share| (share.sequence, share.tokens));
        assert_eq!(
            share(&[image(0, 300, false, 2), image(1, 300, false, 1)]),
            Some((1, 100))
        );
        assert_eq!(share(&[image(0, 300, true, 2)]), Some((0, 300)));
        assert_eq!(share(&[image(0, 30, false, 2), stream(1)]), Some((0, 30)));
        assert_eq!(share(&[stream(1), prompt(0, 10)]), None);
    }

    fn any_want() -> impl Strategy<Value = Work> {
        prop_oneof![
            (1u32..4).prop_map(|rows| Work::Decode { rows }),
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

    proptest! {
        #[test]
        fn streams_always_run_prompts_always_move_and_the_batch_is_never_exceeded(
            works in prop::collection::vec(any_want(), 1..64),
            batch in 256u32..4096,
            beside_streams in 0u32..4096,
            oldest_first: bool,
        ) {
            let wants: Vec<_> = (0..).zip(&works).map(|(sequence, &work)| Want { sequence, work }).collect();
            let shares = plan(&wants, Room { batch, beside_streams, oldest_first });
            prop_assert!(shares.iter().map(|share| share.tokens).sum::<u32>() <= batch);
            prop_assert!(shares.is_sorted_by_key(|share| share.sequence));
            let mut moved = false;
            for want in &wants {
                let share = shares.iter().find(|share| share.sequence == want.sequence);
                match want.work {
                    Work::Decode { rows } => prop_assert_eq!(share.map(|share| share.tokens), Some(rows)),
                    Work::Prefill { until, .. } => if let Some(share) = share {
                        prop_assert!(share.tokens >= 1 && share.tokens <= until);
                        moved = true;
                    }
                    Work::Image { .. } => prop_assert!(share.is_none()),
                }
            }
            let prompts = works.iter().any(|work| matches!(work, Work::Prefill { .. }));
            prop_assert_eq!(moved, prompts);
        }
    }
}

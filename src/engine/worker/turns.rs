//! Whose turn it is among sequences with different adapters, which no batch can hold together (pure).

use std::{collections::VecDeque, time::Duration};

use crate::engine::{Set, plan::Want};

/// The sets that have something to compute, each for a while. One after the other, so that none waits for ever.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The first has its turn.
    sets: VecDeque<Set>,
    /// How long it has had it.
    spent: Duration,
}

impl Turns {
    /// Leaves of `wants` those of the set whose turn it is. Each set may keep the device until the others together have
    /// waited for `round`, because changing adapters costs a part of a step: llama.cpp lays out its graphs anew. Gives how many sets
    /// there are; at least 1.
    pub(super) fn choose(&mut self, wants: &mut Vec<(Set, Want)>, round: Duration) -> u64 {
        let wanted = |set: &Set| wants.iter().any(|(other, _)| other == set);
        let now = self.sets.front().copied();
        self.sets.retain(wanted);
        if self.sets.front().copied() != now {
            self.spent = Duration::ZERO;
        }
        for (set, _) in &*wants {
            if !self.sets.contains(set) {
                self.sets.push_back(*set);
            }
        }
        let others = u32::try_from(self.sets.len().saturating_sub(1)).unwrap_or(u32::MAX);
        if others == 0 {
            return 1;
        }
        if self.spent > Duration::ZERO && self.spent >= round / others {
            self.sets.rotate_left(1);
            self.spent = Duration::ZERO;
        }
        if let Some(now) = self.sets.front() {
            wants.retain(|(set, _)| set == now);
        }
        u64::from(others) + 1
    }

    /// A batch of the set whose turn it is took so long.
    pub(super) fn spend(&mut self, took: Duration) {
        self.spent += took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Adapters, Scaled, plan::Work};
    use proptest::prelude::*;

    const ROUND: Duration = Duration::from_millis(100);

    fn set(number: u8) -> Set {
        let scale = f32::from(number);
        Adapters::new([(Scaled { adapter: 0, scale }, "digest")]).set_at(0)
    }

    fn wants(numbers: &[u8]) -> Vec<(Set, Want)> {
        let want = |sequence| Want {
            sequence,
            work: Work::Decode {
                rows: 1,
                whole: true,
            },
        };
        (0..)
            .zip(numbers)
            .map(|(at, &number)| (set(number), want(at)))
            .collect()
    }

    /// The sequences that are computed in one batch after the other, each of which takes `millis`.
    fn run(turns: &mut Turns, numbers: &[u8], batches: usize, millis: u64) -> Vec<Vec<u32>> {
        (0..batches)
            .map(|_| {
                let mut wants = wants(numbers);
                turns.choose(&mut wants, ROUND);
                turns.spend(Duration::from_millis(millis));
                wants.iter().map(|(_, want)| want.sequence).collect()
            })
            .collect()
    }

    #[test]
    fn those_with_the_same_adapters_run_together_all_the_time() {
        let batches = run(&mut Turns::default(), &[3, 3, 3], 4, 90);
        assert_eq!(batches, vec![vec![0, 1, 2]; 4]);
    }

    #[test]
    fn others_have_their_turn_when_a_set_has_had_its_part_of_a_round() {
        let mut turns = Turns::default();
        let batches = run(&mut turns, &[0, 1, 0, 1], 6, 50);
        let (even, odd) = (vec![0, 2], vec![1, 3]);
        assert_eq!(
            batches,
            [&even, &even, &odd, &odd, &even, &even].map(Clone::clone)
        );
        let batches = run(&mut Turns::default(), &[0, 1, 2], 4, 50);
        assert_eq!(batches, [[0], [1], [2], [0]]);
    }

    #[test]
    fn a_step_longer_than_a_round_is_followed_by_another_sets() {
        let batches = run(&mut Turns::default(), &[0, 1], 4, 900);
        assert_eq!(batches, [[0], [1], [0], [1]]);
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_each_other_set_has_its_turn(
            rounds in prop::collection::vec(prop::collection::vec(1u8..5, 1..6), 1..60),
            millis in 1u64..200,
        ) {
            let mut turns = Turns::default();
            // Set 0 is always there, others come and go.
            let mut waited = 0;
            for mut numbers in rounds {
                numbers.insert(0, 0);
                let batches = run(&mut turns, &numbers, 1, millis);
                prop_assert!(!batches[0].is_empty());
                let same: Vec<_> = batches[0].iter().map(|&at| numbers[at as usize]).collect();
                prop_assert!(same.windows(2).all(|pair| pair[0] == pair[1]));
                waited = if same[0] == 0 { 0 } else { waited + 1 };
                // Four other sets at most, none of which goes on once it has had a whole round.
                let longest = u64::from(4_u32) * (100_u64.div_ceil(millis) + 1);
                prop_assert!(waited <= longest, "{waited} batches of {millis} ms");
            }
        }
    }
}

//! Which texts of which jobs are read in the next step (pure): one of each job in turn, until the step is full.

/// What a step holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Tokens. A single text may have more.
    pub(super) rows: usize,
    pub(super) texts: usize,
}

/// How many texts of each job come next, and whose turn is first in the step after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) counts: Vec<usize>,
    pub(super) next: usize,
}

/// `jobs`: for each job the length of its next text but so many; each has one left. The first always has a turn.
pub(super) fn take(jobs: &[impl Fn(usize) -> Option<usize>], room: Room) -> Turns {
    let mut counts = vec![0; jobs.len()];
    let mut next = None;
    let (mut rows, mut texts) = (0, 0);
    let mut open: Vec<usize> = (0..jobs.len()).collect();
    while !open.is_empty() {
        open.retain(|&at| {
            let Some(length) = jobs[at](counts[at]) else {
                return false;
            };
            let fits = texts == 0 || (texts < room.texts && rows + length <= room.rows);
            if fits {
                counts[at] += 1;
                texts += 1;
                rows += length;
            } else {
                // Who was turned away first is first the next time, so that nobody waits for ever.
                next.get_or_insert(at);
            }
            fits
        });
    }
    Turns {
        counts,
        next: next.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(jobs: &[Vec<usize>], rows: usize, texts: usize) -> Turns {
        let lengths: Vec<_> = jobs
            .iter()
            .map(|job| move |at: usize| job.get(at).copied())
            .collect();
        take(&lengths, Room { rows, texts })
    }

    #[test]
    fn a_single_text_does_not_wait_for_a_long_list() {
        let turns = turns(&[vec![10; 2000], vec![10]], 50, 64);
        assert_eq!(turns.counts, [4, 1]);
    }

    #[test]
    fn a_text_longer_than_a_step_is_read_alone_when_it_is_first() {
        assert_eq!(turns(&[vec![90], vec![10]], 50, 64).counts, [1, 0]);
        let beside = turns(&[vec![10], vec![90]], 50, 64);
        assert_eq!((beside.counts, beside.next), (vec![1, 0], 1));
    }

    proptest! {
        #[test]
        fn every_text_is_read_and_no_job_waits_longer_than_a_round(
            jobs in prop::collection::vec(prop::collection::vec(1_usize..80, 1..20), 1..8),
            rows in 16_usize..60,
            texts in 1_usize..6,
        ) {
            let mut left: Vec<(usize, Vec<usize>)> = jobs.iter().cloned().enumerate().collect();
            let mut waited = vec![0; jobs.len()];
            while !left.is_empty() {
                let lengths: Vec<_> = left.iter().map(|(_, job)| job.clone()).collect();
                let Turns { counts, next } = turns(&lengths, rows, texts);
                let sum: usize = counts.iter().sum();
                let tokens: usize = counts.iter().zip(&lengths).map(|(n, job)| job[..*n].iter().sum::<usize>()).sum();
                prop_assert!(sum >= 1 && sum <= texts);
                prop_assert!(tokens <= rows || sum == 1);
                prop_assert!(counts[0] >= 1);
                for ((id, job), count) in left.iter_mut().zip(&counts) {
                    job.drain(..*count);
                    waited[*id] = if *count > 0 { 0 } else { waited[*id] + 1 };
                    prop_assert!(waited[*id] <= jobs.len());
                }
                left.rotate_left(next);
                left.retain(|(_, job)| !job.is_empty());
            }
        }
    }
}

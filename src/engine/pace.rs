//! How long batches take, learnt from the batches themselves, and how much prompt therefore fits beside running streams.

use std::time::Duration;

/// Seconds of a step by the number of its rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    /// By powers of two: the mean rows and seconds of the latest steps with 2^i to 2^(i+1) - 1 rows.
    steps: [Option<Step>; BUCKETS],
    /// Seconds of the latest steps that only generated.
    decode: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    rows: f64,
    seconds: f64,
    /// Measured once only, and the first of a kind is often slow: a GPU's kernels are loaded then.
    first: bool,
}

const BUCKETS: usize = 16;
/// How much of what is known a new measurement replaces.
const WEIGHT: f64 = 0.25;
/// Prompts are computed at no less than this part of the speed of the largest batches: below, a stream would gain
/// little and the prompt would lose much.
const LEAST_SPEED: f64 = 0.95;
/// Rows to begin with, where nothing is known, and the fewest of a prompt that has more: below, llama.cpp's attention on a
/// CPU takes another path, at half the speed in long contexts.
const FIRST: u32 = 64;
/// A gap is at least this many steps of generation alone, so that a prompt gets nearly its whole speed.
const DECODES_IN_A_GAP: f64 = 8.0;
const SHORTEST_GAP: f64 = 0.1;

impl Pace {
    /// A step of `rows` rows took `time`; `generating`: no row of it was of a prompt.
    pub(crate) fn observe(&mut self, rows: usize, time: Duration, generating: bool) {
        let seconds = time.as_secs_f64();
        let blend = |old: f64, new: f64| old + (new - old) * WEIGHT;
        if generating {
            self.decode = Some(self.decode.map_or(seconds, |old| blend(old, seconds)));
        }
        let Some(bucket) = rows.checked_ilog2() else {
            return;
        };
        let slot = &mut self.steps[(bucket as usize).min(BUCKETS - 1)];
        let rows = rows as f64;
        *slot = Some(match *slot {
            None => Step {
                rows,
                seconds,
                first: true,
            },
            Some(old) if old.first => Step {
                rows,
                seconds,
                first: false,
            },
            Some(old) => Step {
                rows: blend(old.rows, rows),
                seconds: blend(old.seconds, seconds),
                first: false,
            },
        });
    }

    /// What a step of `rows` rows probably takes, in seconds: on the line through its neighbours.
    pub(crate) fn seconds(&self, rows: u32) -> Option<f64> {
        let rows = f64::from(rows);
        let known = || self.trusted();
        let below = known().rev().find(|step| step.rows <= rows);
        let above = known().find(|step| step.rows > rows);
        match (below, above) {
            (Some(a), Some(b)) => {
                let slope = (b.seconds - a.seconds) / (b.rows - a.rows);
                Some(a.seconds + slope * (rows - a.rows))
            }
            // Larger than any yet: each row as dear as the mean.
            (Some(a), None) => Some(a.seconds * rows / a.rows),
            // Smaller than any yet: a step is not much cheaper for fewer rows.
            (None, Some(b)) => Some(b.seconds),
            (None, None) => None,
        }
    }

    /// Steps that were measured more than once, or all while there are none.
    fn trusted(&self) -> impl DoubleEndedIterator<Item = &Step> {
        let settled = self.steps.iter().flatten().any(|step| !step.first);
        let steps = self.steps.iter().flatten();
        steps.filter(move |step| !(settled && step.first))
    }

    /// The gap between two tokens of a stream that a prompt beside it may cause, when nobody has set one.
    pub(crate) fn usual_gap(&self) -> Duration {
        let decode = self.decode.unwrap_or(0.0);
        Duration::from_secs_f64((decode * DECODES_IN_A_GAP).max(SHORTEST_GAP))
    }

    /// Rows of a prompt's batch that, with the batch of the streams before it, stays within `gap`; at most `most`.
    pub(crate) fn rows_beside_streams(&self, gap: Duration, most: u32) -> u32 {
        let gap = gap.as_secs_f64() - self.decode.unwrap_or(0.0);
        let largest_known = self.trusted().last().map(|step| step.rows);
        let Some(largest_known) = largest_known else {
            return FIRST.min(most);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rows of a batch"
        )]
        let largest_known = largest_known as u32;
        let speed = |rows: u32| {
            self.seconds(rows)
                .map_or(0.0, |seconds| f64::from(rows) / seconds.max(1e-9))
        };
        // Nothing far larger than what was tried: one surprise shall not be a long one.
        let most = most.min((largest_known * 2).max(FIRST));
        let steps = || {
            std::iter::successors(Some(most), |rows| Some(rows - rows.div_ceil(8)))
                .take_while(|&rows| rows > 1)
        };
        // More rows than were tried may cost next to nothing (a GPU fetches the same weights for them): hope so once.
        let hoped = |rows: u32| self.seconds(rows.min(largest_known));
        let within = steps().find(|&rows| hoped(rows).is_some_and(|seconds| seconds <= gap));
        let best = steps().map(speed).fold(0.0, f64::max);
        let efficient = steps()
            .take_while(|&rows| speed(rows) >= best * LEAST_SPEED)
            .last();
        let rows = within.max(efficient).unwrap_or(FIRST);
        rows.max(FIRST).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(cost: impl Fn(usize) -> f64) -> Pace {
        let mut pace = Pace::default();
        for rows in [1, 8, 64, 128, 256, 512, 1, 8, 64, 128, 256, 512] {
            pace.observe(rows, Duration::from_secs_f64(cost(rows)), rows <= 8);
        }
        pace
    }

    #[test]
    fn a_prompt_gets_what_fits_into_the_gap() {
        // 1 ms a row: 100 rows are 100 ms, of which the streams take 4.
        let pace = learnt(|rows| rows as f64 * 0.001);
        let rows = pace.rows_beside_streams(Duration::from_millis(100), 512);
        assert!((80..=96).contains(&rows), "{rows}");
    }

    #[test]
    fn no_gap_makes_batches_smaller_than_attention_is_fast_for() {
        let pace = learnt(|rows| rows as f64 * 0.01);
        assert_eq!(
            pace.rows_beside_streams(Duration::from_millis(100), 512),
            64
        );
        assert_eq!(pace.rows_beside_streams(Duration::from_millis(100), 16), 16);
    }

    #[test]
    fn small_steps_that_would_waste_most_of_the_speed_are_not_made() {
        // 150 ms for the weights, however few rows.
        let pace = learnt(|rows| 0.15 + rows as f64 * 0.0003);
        let rows = pace.rows_beside_streams(Duration::from_millis(100), 512);
        assert!(rows > 350, "{rows}");
    }

    #[test]
    fn what_was_never_tried_is_approached_step_by_step() {
        let mut pace = Pace::default();
        let gap = Duration::from_secs(1);
        assert_eq!(pace.rows_beside_streams(gap, 512), FIRST);
        assert_eq!(pace.rows_beside_streams(gap, 16), 16);
        pace.observe(64, Duration::from_millis(10), false);
        assert_eq!(pace.rows_beside_streams(gap, 512), 128);
    }

    #[test]
    fn one_slow_first_step_is_not_believed_for_ever() {
        let mut pace = learnt(|rows| if rows < 512 { 0.08 } else { 9.0 });
        pace.steps[9].as_mut().unwrap().first = true;
        let gap = Duration::from_millis(200);
        assert_eq!(pace.rows_beside_streams(gap, 512), 512);
    }

    #[test]
    fn larger_steps_are_tried_where_they_may_cost_nothing_more() {
        // 90 ms up to 512 rows, as when a GPU fetches all weights anyway.
        let mut pace = Pace::default();
        let gap = Duration::from_millis(100);
        for _ in 0..4 {
            let rows = pace.rows_beside_streams(gap, 512);
            pace.observe(rows as usize, Duration::from_millis(90), false);
        }
        assert_eq!(pace.rows_beside_streams(gap, 512), 512);
    }

    #[test]
    fn the_usual_gap_grows_with_the_machines_own_steps() {
        let mut pace = Pace::default();
        assert_eq!(pace.usual_gap(), Duration::from_millis(100));
        pace.observe(8, Duration::from_millis(30), true);
        assert_eq!(pace.usual_gap(), Duration::from_millis(240));
    }
}

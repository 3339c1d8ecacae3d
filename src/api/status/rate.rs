//! Tokens per second over the last seconds, from counts that are looked at now and then.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::engine::Done;

/// How far back a rate looks.
const WINDOW: Duration = Duration::from_secs(5);
/// Looks closer together than this are one: a rate over a moment says nothing.
const SHORTEST: Duration = Duration::from_millis(200);

/// What earlier looks saw. Nobody counts while nobody looks.
#[derive(Default)]
pub(super) struct Meter(Mutex<VecDeque<(Instant, Done)>>);

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rate {
    /// Tokens of prompts that were computed; cached ones cost nothing.
    prompt: f64,
    generated: f64,
}

impl Meter {
    /// `None`: there was no look within the window.
    pub(super) fn read(&self, now: Instant, done: Done) -> Option<Rate> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |at: Instant| now.saturating_duration_since(at);
        while looks.front().is_some_and(|(at, _)| age(*at) > WINDOW) {
            looks.pop_front();
        }
        let rate = looks.front().and_then(|(at, before)| {
            let seconds = age(*at).as_secs_f64();
            let per_second = |now: u64, before: u64| {
                let rate = now.saturating_sub(before) as f64 / seconds;
                (rate * 10.0).round() / 10.0
            };
            (age(*at) >= SHORTEST).then(|| Rate {
                prompt: per_second(done.prefill_tokens, before.prefill_tokens),
                generated: per_second(done.generated_tokens, before.generated_tokens),
            })
        });
        if looks.back().is_none_or(|(at, _)| age(*at) >= SHORTEST) {
            looks.push_back((now, done));
        }
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prefill_tokens: u64, generated_tokens: u64) -> Done {
        Done {
            prefill_tokens,
            generated_tokens,
            ..Done::default()
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_not_of_all_time() {
        let (meter, began) = (Meter::default(), Instant::now());
        let at = |second: u64| began + Duration::from_secs(second);
        assert_eq!(meter.read(at(0), tokens(0, 0)), None);
        let rate = |prompt, generated| Some(Rate { prompt, generated });
        assert_eq!(meter.read(at(1), tokens(100, 20)), rate(100.0, 20.0));
        assert_eq!(meter.read(at(4), tokens(100, 80)), rate(25.0, 20.0));
        // The burst of prompts has left the window.
        assert_eq!(meter.read(at(8), tokens(100, 80)), rate(0.0, 0.0));
    }

    #[test]
    fn two_who_look_at_once_see_the_same_rate() {
        let (meter, began) = (Meter::default(), Instant::now());
        meter.read(began, tokens(0, 0));
        let later = began + Duration::from_secs(1);
        let first = meter.read(later, tokens(0, 50));
        let second = meter.read(later + Duration::from_millis(1), tokens(0, 50));
        assert_eq!(first.map(|rate| rate.generated), Some(50.0));
        assert!((second.unwrap().generated - 50.0).abs() < 0.2);
    }

    #[test]
    fn whoever_comes_back_after_a_while_hears_no_rate_of_the_time_between() {
        let (meter, began) = (Meter::default(), Instant::now());
        meter.read(began, tokens(0, 0));
        assert_eq!(
            meter.read(began + Duration::from_mins(1), tokens(9, 9)),
            None
        );
    }
}

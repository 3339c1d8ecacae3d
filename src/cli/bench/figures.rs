//! From what became of the requests of each run to the figures of a point.

use std::{collections::BTreeMap, time::Duration};

use super::{
    answer::{Counter, Outcome, Sample},
    metric::Metric,
    report::{Gaps, Point},
    stats::{Summary, median, quantile, sorted},
    workload::Load,
};

/// The figures of the runs so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Collected {
    runs: BTreeMap<Metric, Vec<f64>>,
    /// Of all runs, ms.
    gaps: Vec<f64>,
    outcomes: BTreeMap<String, u32>,
    faults: Vec<String>,
    prompt_tokens: Vec<f64>,
    cached_tokens: u64,
    without_usage: u32,
}

impl Collected {
    /// Adds one run that took `wall`.
    pub(super) fn add(&mut self, load: &Load, outcomes: &[Outcome], wall: Duration) {
        let mut samples = Vec::new();
        for outcome in outcomes {
            let kind = match outcome {
                Outcome::Answered(sample) => {
                    samples.push(sample);
                    "answered".to_owned()
                }
                Outcome::HungUp => "hung_up".to_owned(),
                Outcome::Refused(status, said) => {
                    // A full server that says so is no fault.
                    if *status != 429 {
                        self.faults.push(format!("status {status}: {said}"));
                    }
                    format!("status_{status}")
                }
                Outcome::Broken(why) => {
                    self.faults.push(why.clone());
                    "broken".to_owned()
                }
            };
            *self.outcomes.entry(kind).or_default() += 1;
        }
        for sample in &samples {
            let tokens = f64::from(sample.usage.prompt_tokens);
            self.prompt_tokens.push(tokens);
            self.cached_tokens += u64::from(sample.usage.cached_tokens);
            self.without_usage += u32::from(sample.counted_by == Counter::Client);
            self.gaps.extend(sample.gaps.iter().copied().map(millis));
        }
        for (metric, value) in figures(load, &samples, wall) {
            self.runs.entry(metric).or_default().push(value);
        }
    }

    /// Adds what was read of the server's memory after the run.
    pub(super) fn remember(&mut self, memory: Vec<(Metric, f64)>) {
        for (metric, value) in memory {
            self.runs.entry(metric).or_default().push(value);
        }
    }

    pub(super) fn point(self, load: &Load) -> Point {
        let metrics = self.runs.into_iter();
        Point {
            load: load.clone(),
            prompt_tokens: median(self.prompt_tokens).unwrap_or(0.0),
            cached_tokens: self.cached_tokens,
            without_usage: self.without_usage,
            metrics: metrics
                .filter_map(|(metric, runs)| Some((metric, Summary::of(runs)?)))
                .collect(),
            gaps: gaps(self.gaps),
            outcomes: self.outcomes,
            faults: self.faults,
        }
    }
}

fn gaps(all: Vec<f64>) -> Option<Gaps> {
    let sorted = sorted(all);
    Some(Gaps {
        count: sorted.len(),
        p50_ms: quantile(&sorted, 0.5)?,
        p99_ms: quantile(&sorted, 0.99)?,
        max_ms: *sorted.last()?,
    })
}

/// The figures of one run. A figure without data (a gap with one token) is left out.
fn figures(load: &Load, samples: &[&Sample], wall: Duration) -> Vec<(Metric, f64)> {
    let of = |figure: &dyn Fn(&Sample) -> Option<f64>| {
        median(samples.iter().filter_map(|sample| figure(sample)).collect())
    };
    let last_turn = |sample: &Sample| {
        (load.turns > 1 && sample.turn == load.turns).then(|| millis(sample.first))
    };
    // What servers reuse of a conversation without saying so would look like speed.
    let prompt_speed = |sample: &Sample| (load.turns == 1).then(|| prompt_speed(sample))?;
    let all = samples.iter().flat_map(|sample| &sample.gaps);
    let gaps = gaps(all.copied().map(millis).collect());
    let tokens = samples.iter().map(|s| f64::from(s.usage.completion_tokens));
    let total = tokens.sum::<f64>() / wall.as_secs_f64();
    [
        (Metric::FirstToken, of(&|s| Some(millis(s.first)))),
        (Metric::LastTurn, of(&last_turn)),
        (Metric::Prompt, of(&prompt_speed)),
        (Metric::Decode, of(&decode_speed)),
        (
            Metric::Total,
            (!samples.is_empty() && total.is_finite()).then_some(total),
        ),
        (Metric::GapMedian, gaps.map(|gaps| gaps.p50_ms)),
        (Metric::Gap99, gaps.map(|gaps| gaps.p99_ms)),
        (Metric::GapMax, gaps.map(|gaps| gaps.max_ms)),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some((metric, value?)))
    .collect()
}

/// Prompt tokens a second until the first token; what came from a cache was not computed.
fn prompt_speed(sample: &Sample) -> Option<f64> {
    let usage = sample.usage;
    let computed = usage.prompt_tokens.checked_sub(usage.cached_tokens)?;
    Some(f64::from(computed) / sample.first.as_secs_f64()).filter(|speed| speed.is_finite())
}

/// Tokens a second after the first.
fn decode_speed(sample: &Sample) -> Option<f64> {
    let after_first = sample.usage.completion_tokens.checked_sub(1)?;
    let speed = f64::from(after_first) / sample.generation.as_secs_f64();
    (after_first > 0 && speed.is_finite()).then_some(speed)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::{
        super::{report::tests::load, stream::Usage},
        *,
    };

    fn sample(first: u64, generation: u64, completion_tokens: u32) -> Sample {
        Sample {
            first: Duration::from_millis(first),
            generation: Duration::from_millis(generation),
            gaps: vec![Duration::from_millis(10); completion_tokens as usize - 1],
            usage: Usage {
                prompt_tokens: 110,
                completion_tokens,
                cached_tokens: 10,
            },
            counted_by: Counter::Server,
            turn: 1,
            text: String::new(),
        }
    }

    fn metrics(load: &Load, samples: &[&Sample]) -> Vec<Metric> {
        let figures = figures(load, samples, Duration::from_secs(1));
        figures.into_iter().map(|(metric, _)| metric).collect()
    }

    #[test]
    fn the_first_token_belongs_to_the_prompt_and_the_rest_to_decoding() {
        let sample = sample(500, 1000, 101);
        assert_eq!(prompt_speed(&sample), Some(200.0));
        assert_eq!(decode_speed(&sample), Some(100.0));
    }

    #[test]
    fn a_single_token_has_no_decode_speed_and_no_gaps() {
        let metrics = metrics(&load(), &[&sample(500, 0, 1)]);
        assert_eq!(metrics, [Metric::FirstToken, Metric::Prompt, Metric::Total]);
    }

    #[test]
    fn a_conversation_has_a_last_turn_and_no_prompt_speed() {
        let load = Load { turns: 2, ..load() };
        let last = Sample {
            turn: 2,
            ..sample(40, 10, 1)
        };
        let figures = figures(&load, &[&sample(20, 10, 1), &last], Duration::from_secs(1));
        assert_eq!(figures[0], (Metric::FirstToken, 30.0));
        assert_eq!(figures[1], (Metric::LastTurn, 40.0));
        assert!(figures.iter().all(|(metric, _)| *metric != Metric::Prompt));
    }

    #[test]
    fn the_gaps_of_a_point_are_those_of_all_its_runs() {
        let mut collected = Collected::default();
        for gap in [10, 30, 20] {
            let mut sample = sample(5, 50, 2);
            sample.gaps = vec![Duration::from_millis(gap)];
            collected.add(
                &load(),
                &[Outcome::Answered(sample)],
                Duration::from_secs(1),
            );
        }
        let gaps = collected.point(&load()).gaps.unwrap();
        assert_eq!((gaps.count, gaps.p50_ms, gaps.max_ms), (3, 20.0, 30.0));
    }

    #[test]
    fn a_refusal_is_counted_by_its_status_and_told_unless_it_is_429() {
        let mut collected = Collected::default();
        let refused = |status| Outcome::Refused(status, "said so".to_owned());
        let outcomes = [refused(429), refused(500)];
        collected.add(&load(), &outcomes, Duration::from_secs(1));
        assert_eq!(collected.outcomes["status_429"], 1);
        assert_eq!(collected.faults, ["status 500: said so"]);
        assert!(collected.runs.is_empty());
    }
}

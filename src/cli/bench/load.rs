//! Many clients at once: the runs of each combination, target by target in turns.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    prompt::{self, Dice},
    report::{Metric, Point, TargetReport},
    request::{Ask, HangUp, Outcome, Sample, Target},
    stats::{Summary, median, quantile, sorted},
};

/// One combination that is measured on its own.
#[derive(Debug, Clone)]
pub(super) struct Mix {
    /// Each request takes one of these.
    pub(super) prompt_words: Vec<u32>,
    pub(super) answers: Answers,
    pub(super) clients: u32,
    /// In one run, over all clients.
    pub(super) requests: u32,
    pub(super) hangup: f64,
}

/// How many tokens a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    Exactly(u32),
    UpTo(u32),
}

/// Measures all combinations; each run of one target is followed by the same run of the next.
pub(super) fn measure(
    targets: &[Target],
    mixes: &[Mix],
    runs: u32,
    seed: u64,
) -> Vec<TargetReport> {
    let mut reports: Vec<TargetReport> = targets.iter().map(TargetReport::new).collect();
    let mut dice = Dice::new(seed);
    for mix in mixes {
        let mut collected = vec![Collected::default(); targets.len()];
        for target in targets {
            target.ask(&warm_up(mix, &mut dice));
        }
        for run in 1..=runs {
            // The same questions for every target.
            let asks = asks(mix, &mut dice);
            for index in turn(run, targets.len()) {
                let (outcomes, wall) = ask_all(&targets[index], &asks, mix.clients);
                collected[index].add(&outcomes, wall);
                progress(&targets[index], mix, run, runs, wall);
            }
        }
        for (report, collected) in reports.iter_mut().zip(collected) {
            report.points.push(collected.point(mix));
        }
    }
    reports
}

/// A B, then B A: what drifts slowly favours nobody.
fn turn(run: u32, targets: usize) -> Vec<usize> {
    if run % 2 == 1 {
        (0..targets).collect()
    } else {
        (0..targets).rev().collect()
    }
}

fn progress(target: &Target, mix: &Mix, run: u32, runs: u32, wall: Duration) {
    eprintln!(
        "{}: prompt {:?}, {} clients, run {run}/{runs}: {:.1} s",
        target.label,
        mix.prompt_words,
        mix.clients,
        wall.as_secs_f64()
    );
}

fn warm_up(mix: &Mix, dice: &mut Dice) -> Ask {
    Ask {
        hang_up: HangUp::Never,
        ..one(mix, dice)
    }
}

fn asks(mix: &Mix, dice: &mut Dice) -> Vec<Ask> {
    (0..mix.requests).map(|_| one(mix, dice)).collect()
}

fn one(mix: &Mix, dice: &mut Dice) -> Ask {
    let words = *dice.pick(&mix.prompt_words);
    let max_tokens = match mix.answers {
        Answers::Exactly(tokens) => tokens,
        Answers::UpTo(tokens) => 1 + dice.below(tokens),
    };
    Ask {
        prompt: prompt::prompt(words, dice),
        max_tokens,
        hang_up: hang_up(mix, max_tokens, dice),
    }
}

/// Half of those who hang up do so between two chunks, half after a time that may end in the queue.
fn hang_up(mix: &Mix, max_tokens: u32, dice: &mut Dice) -> HangUp {
    if dice.share() >= mix.hangup {
        return HangUp::Never;
    }
    if dice.below(2) == 0 {
        HangUp::Chunks(1 + dice.below(max_tokens / 2))
    } else {
        HangUp::After(Duration::from_millis(u64::from(1 + dice.below(2000))))
    }
}

/// Lets `clients` threads take one question after the other.
fn ask_all(target: &Target, asks: &[Ask], clients: u32) -> (Vec<Outcome>, Duration) {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(asks.len()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while let Some(ask) = asks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = target.ask(ask);
                    outcomes.lock().expect("no client panics").push(outcome);
                }
            });
        }
    });
    let wall = begun.elapsed();
    (outcomes.into_inner().expect("no client panics"), wall)
}

/// The figures of the runs so far.
#[derive(Debug, Clone, Default)]
struct Collected {
    runs: BTreeMap<Metric, Vec<f64>>,
    outcomes: BTreeMap<String, u32>,
    faults: Vec<String>,
    prompt_tokens: Vec<f64>,
    cached_tokens: u64,
}

impl Collected {
    fn add(&mut self, outcomes: &[Outcome], wall: Duration) {
        let mut samples = Vec::new();
        for outcome in outcomes {
            let kind = match outcome {
                Outcome::Answered(sample) => {
                    samples.push(sample);
                    "answered".to_owned()
                }
                Outcome::HungUp => "hung_up".to_owned(),
                Outcome::Refused(status) => format!("status_{status}"),
                Outcome::Broken(why) => {
                    self.faults.push(why.clone());
                    "broken".to_owned()
                }
            };
            *self.outcomes.entry(kind).or_default() += 1;
        }
        for sample in &samples {
            self.prompt_tokens
                .push(f64::from(sample.usage.prompt_tokens));
            self.cached_tokens += u64::from(sample.usage.cached_tokens);
        }
        for (metric, value) in figures(&samples, wall) {
            self.runs.entry(metric).or_default().push(value);
        }
    }

    fn point(self, mix: &Mix) -> Point {
        let metrics = self.runs.into_iter();
        Point {
            prompt_words: mix.prompt_words.clone(),
            concurrency: mix.clients,
            requests: mix.requests,
            prompt_tokens: median(self.prompt_tokens).unwrap_or(0.0),
            cached_tokens: self.cached_tokens,
            metrics: metrics
                .filter_map(|(metric, runs)| Some((metric, Summary::of(runs)?)))
                .collect(),
            outcomes: self.outcomes,
            faults: self.faults,
        }
    }
}

/// The figures of one run. A figure without data (a gap with one token) is left out.
fn figures(samples: &[&Sample], wall: Duration) -> Vec<(Metric, f64)> {
    let of = |figure: fn(&Sample) -> Option<f64>| {
        median(samples.iter().filter_map(|sample| figure(sample)).collect())
    };
    let gaps = sorted(
        samples
            .iter()
            .flat_map(|sample| &sample.gaps)
            .map(|gap| millis(*gap))
            .collect(),
    );
    let generated: f64 = samples
        .iter()
        .map(|sample| f64::from(sample.usage.completion_tokens))
        .sum();
    let total = (!samples.is_empty()).then(|| generated / wall.as_secs_f64());
    [
        (Metric::FirstToken, of(|s| Some(millis(s.first)))),
        (Metric::Prompt, of(prompt_speed)),
        (Metric::Decode, of(decode_speed)),
        (Metric::Total, total),
        (Metric::GapMedian, quantile(&gaps, 0.5)),
        (Metric::Gap99, quantile(&gaps, 0.99)),
        (Metric::GapMax, gaps.last().copied()),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some((metric, value?)))
    .collect()
}

/// Prompt tokens a second until the first token; what came from a cache was not computed.
fn prompt_speed(sample: &Sample) -> Option<f64> {
    let computed = sample
        .usage
        .prompt_tokens
        .checked_sub(sample.usage.cached_tokens)?;
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
    use super::{super::stream::Usage, *};

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
        }
    }

    #[test]
    fn the_first_token_belongs_to_the_prompt_and_the_rest_to_decoding() {
        let sample = sample(500, 1000, 101);
        assert_eq!(prompt_speed(&sample), Some(200.0));
        assert_eq!(decode_speed(&sample), Some(100.0));
    }

    #[test]
    fn a_single_token_has_no_decode_speed_and_no_gaps() {
        let sample = sample(500, 0, 1);
        let figures = figures(&[&sample], Duration::from_secs(1));
        let metrics: Vec<Metric> = figures.iter().map(|(metric, _)| *metric).collect();
        assert_eq!(metrics, [Metric::FirstToken, Metric::Prompt, Metric::Total]);
    }

    #[test]
    fn a_fifth_of_the_clients_hangs_up_when_asked_to() {
        let mix = Mix {
            prompt_words: vec![4],
            answers: Answers::UpTo(32),
            clients: 1,
            requests: 2000,
            hangup: 0.2,
        };
        let asks = asks(&mix, &mut Dice::new(5));
        let leaving = asks.iter().filter(|a| a.hang_up != HangUp::Never).count();
        assert!((300..500).contains(&leaving), "{leaving}");
        assert!(asks.iter().all(|ask| (1..=32).contains(&ask.max_tokens)));
    }

    #[test]
    fn a_refusal_is_counted_by_its_status_and_measured_by_nothing() {
        let mut collected = Collected::default();
        collected.add(&[Outcome::Refused(429)], Duration::from_secs(1));
        assert_eq!(collected.outcomes["status_429"], 1);
        assert!(collected.runs.is_empty());
    }
}

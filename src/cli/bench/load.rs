//! Many clients at once: the runs of each combination, target by target in turns.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    answer::Outcome,
    figures::Collected,
    memory::Memory,
    prompt::{self, Dice},
    report::TargetReport,
    request::{Ask, HangUp, Target},
    workload::{Answer, Load},
};

/// Measures all combinations; each run of one target is followed by the same run of the next.
pub(super) fn measure(
    targets: &[Target],
    loads: &[Load],
    runs: u32,
    seed: u64,
) -> Vec<TargetReport> {
    let mut reports: Vec<TargetReport> = targets.iter().map(TargetReport::new).collect();
    let memory = Memory::look();
    let mut dice = Dice::new(seed);
    for load in loads {
        let mut collected = vec![Collected::default(); targets.len()];
        let warm_up = talks(&warm_up(load), &mut dice);
        for target in targets {
            let (_, wall) = ask_all(target, &warm_up, load.concurrency);
            progress(target, load, "warm-up", wall);
        }
        for run in 1..=runs {
            // The same questions for every target.
            let talks = talks(load, &mut dice);
            for index in turn(run, targets.len()) {
                let target = &targets[index];
                let (outcomes, wall) = ask_all(target, &talks, load.concurrency);
                progress(target, load, &format!("run {run}/{runs}"), wall);
                collected[index].add(load, &outcomes, wall);
                collected[index].remember(memory.of(target));
            }
        }
        for (report, collected) in reports.iter_mut().zip(collected) {
            report.points.push(collected.point(load));
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

fn progress(target: &Target, load: &Load, what: &str, wall: Duration) {
    let seconds = wall.as_secs_f64();
    eprintln!("{}: {load}, {what}: {seconds:.1} s", target.label);
}

/// One conversation of every client, to its end.
fn warm_up(load: &Load) -> Load {
    Load {
        requests: load.requests.min(load.concurrency),
        hangup: 0.0,
        ..load.clone()
    }
}

/// What one client is going to say.
struct Talk {
    questions: Vec<String>,
    max_tokens: u32,
    hang_up: HangUp,
}

fn talks(load: &Load, dice: &mut Dice) -> Vec<Talk> {
    (0..load.requests).map(|_| talk(load, dice)).collect()
}

fn talk(load: &Load, dice: &mut Dice) -> Talk {
    let max_tokens = match load.answer {
        Answer::Exactly(tokens) => tokens,
        Answer::UpTo(tokens) => 1 + dice.below(tokens),
    };
    let question = |_| prompt::prompt(*dice.pick(&load.prompt_words), dice);
    Talk {
        questions: (0..load.turns).map(question).collect(),
        max_tokens,
        hang_up: hang_up(load, max_tokens, dice),
    }
}

/// Half of those who hang up do so between two chunks, half after a time that may end in the queue.
fn hang_up(load: &Load, max_tokens: u32, dice: &mut Dice) -> HangUp {
    if dice.share() >= load.hangup {
        return HangUp::Never;
    }
    if dice.below(2) == 0 {
        HangUp::Chunks(1 + dice.below(max_tokens / 2))
    } else {
        HangUp::After(Duration::from_millis(u64::from(1 + dice.below(2000))))
    }
}

/// Lets `clients` threads have one conversation after the other.
fn ask_all(target: &Target, talks: &[Talk], clients: u32) -> (Vec<Outcome>, Duration) {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(talks.len()));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while let Some(talk) = talks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = converse(target, talk);
                    outcomes.lock().expect("no client panics").extend(told);
                }
            });
        }
    });
    let wall = begun.elapsed();
    (outcomes.into_inner().expect("no client panics"), wall)
}

/// Asks one question after the other, each with all that was said before; ends early when one has no answer.
fn converse(target: &Target, talk: &Talk) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(talk.questions.len());
    let mut said = Vec::new();
    for question in &talk.questions {
        said.push(question.clone());
        let ask = Ask {
            said,
            max_tokens: talk.max_tokens,
            hang_up: talk.hang_up,
        };
        let outcome = target.ask(&ask);
        said = ask.said;
        let answer = match &outcome {
            Outcome::Answered(sample) => Some(sample.text.clone()),
            Outcome::HungUp | Outcome::Refused(..) | Outcome::Broken(_) => None,
        };
        outcomes.push(outcome);
        match answer {
            Some(answer) => said.push(answer),
            None => break,
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_clients_hangs_up_when_asked_to() {
        let load = Load {
            workload: "custom".to_owned(),
            prompt_words: vec![4],
            answer: Answer::UpTo(32),
            turns: 1,
            concurrency: 1,
            requests: 2000,
            hangup: 0.2,
        };
        let talks = talks(&load, &mut Dice::new(5));
        let leaving = talks.iter().filter(|t| t.hang_up != HangUp::Never).count();
        assert!((300..500).contains(&leaving), "{leaving}");
        assert!(talks.iter().all(|talk| (1..=32).contains(&talk.max_tokens)));
    }
}

//! What is computed once is not computed again: beginnings, turns, states put aside; and when it must be.

use std::sync::{Mutex, atomic::AtomicUsize, mpsc};

use super::*;
use crate::engine::{Done, fake::TOOL};

/// The batches that a model was given, each as its rows' sequences and positions.
type Batches = Arc<Mutex<Vec<Vec<(u32, u32)>>>>;

fn watched(fake: Fake) -> (Fake, Batches) {
    let batches = Batches::default();
    let seen = Arc::clone(&batches);
    let fake = fake.with_fault(Box::new(move |rows| {
        let rows = rows.iter().map(|row| (row.sequence, row.position));
        seen.lock().unwrap().push(rows.collect());
        None
    }));
    (fake, batches)
}

fn tuning() -> Tuning {
    Tuning {
        queue: 64,
        cache_bytes: 1 << 20,
        ..Tuning::default()
    }
}

fn cached(engine: &Engine, job: Job) -> u32 {
    ask(engine, job).1.unwrap().usage.cached_tokens
}

#[test]
fn requests_that_come_together_compute_a_shared_beginning_once() {
    let work = Arc::new(AtomicUsize::new(0));
    let (open, gate) = mpsc::channel();
    let mut passed = false;
    let fake = Fake::new(8, 1024)
        .counting(Arc::clone(&work))
        .with_fault(Box::new(move |_| {
            passed = passed || gate.recv().is_ok();
            None
        }));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let beginning = "x".repeat(500);
    let jobs: Vec<_> = ["one", "two", "three", "four", "five", "six", "seven"]
        .iter()
        .map(|end| {
            engine
                .submit(job(&format!("{beginning}\n{end}\n")))
                .unwrap()
        })
        .collect();
    open.send(()).unwrap();
    let mut shared = 0;
    for (events, line) in jobs
        .into_iter()
        .zip(["one", "two", "three", "four", "five", "six", "seven"])
    {
        let (text, end) = collect(events);
        assert_eq!(text, line);
        shared += end.unwrap().usage.cached_tokens;
    }
    assert!(shared >= 6 * 501, "{shared}");
    let work = work.load(Ordering::Relaxed);
    assert!(work < 501 + 100, "{work} rows");
}

#[test]
fn whose_leader_fails_computes_the_beginning_itself() {
    // The first sequence's third batch is refused for ever.
    let (open, gate) = mpsc::channel();
    let mut passed = false;
    let fault = move |rows: &[Row]| {
        passed = passed || gate.recv().is_ok();
        rows.iter()
            .any(|row| row.sequence == 0 && row.position >= 40)
            .then_some(DecodeError::Full)
    };
    let fake = Fake::new(3, 1024).with_fault(Box::new(fault));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let beginning = "x".repeat(300);
    let jobs = ["one", "two", "three"].map(|end| {
        engine
            .submit(job(&format!("{beginning}\n{end}\n")))
            .unwrap()
    });
    open.send(()).unwrap();
    let [first, second, third] = jobs.map(collect);
    assert!(matches!(first.1, Err(Failed::Decode(_))), "{first:?}");
    assert_eq!((second.0.as_str(), third.0.as_str()), ("two", "three"));
}

#[test]
fn a_history_that_lost_its_sequence_comes_back_from_host_memory() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 1024));
    let history = |who: &str| job(&format!("{}\nagain\n", who.repeat(300)));
    assert_eq!(cached(&engine, history("a")), 0);
    assert_eq!(cached(&engine, history("b")), 0);
    assert_eq!(cached(&engine, history("a")), 306);
    assert_eq!(cached(&engine, history("b")), 306);
    let other = Job {
        tenant: Some(1),
        ..history("a")
    };
    assert_eq!(cached(&engine, other), 0, "another key's");
    let nobody = Job {
        tenant: None,
        ..history("a")
    };
    assert_eq!(cached(&engine, nobody.clone()), 0);
    assert_eq!(cached(&engine, nobody), 0, "nobody's is not kept");
    assert!(engine.kept().bytes > 0);
}

#[test]
fn without_a_budget_nothing_is_put_aside() {
    let none = Tuning {
        cache_bytes: 0,
        ..tuning()
    };
    let (engine, _thread) = start_tuned(none, Fake::new(1, 1024));
    let history = |who: &str| job(&format!("{}\nagain\n", who.repeat(300)));
    assert_eq!(cached(&engine, history("a")), 0);
    assert_eq!(cached(&engine, history("b")), 0);
    assert_eq!(cached(&engine, history("a")), 0);
    assert_eq!(engine.kept().bytes, 0);
}

/// A chat whose turns begin with a control token; each answer repeats the question.
fn turns(engine: &Engine, count: usize) -> Vec<(u32, u32)> {
    let mut history = job("").prompt;
    (0..count)
        .map(|turn| {
            let question = format!("{}{turn}\n", "what about this and that and ".repeat(3));
            history.push(TOOL);
            history.extend(job(&question).prompt);
            let prompt = history.clone();
            let end = ask(engine, Job { prompt, ..job("") });
            // The answer comes back in other words, as without its thoughts.
            history.extend(job(&end.0[1..]).prompt);
            let usage = end.1.unwrap().usage;
            (usage.prompt_tokens, usage.cached_tokens)
        })
        .collect()
}

#[test]
fn a_chat_on_a_recurrent_model_computes_its_last_turn_and_answer_only() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(2, 16384).recurrent());
    let turns = turns(&engine, 12);
    for (turn, pair) in turns.windows(2).enumerate() {
        let [(before, _), (prompt, cached)] = pair else {
            unreachable!()
        };
        // All up to where the last question began.
        assert!(
            cached + 91 >= *before,
            "turn {turn}: {cached} of {prompt}, after {before}"
        );
    }
}

#[test]
fn reproducible_means_alone_and_on_the_grid() {
    let (fake, batches) = watched(Fake::new(4, 1024));
    let same_bits = Tuning {
        reproducible: true,
        ..tuning()
    };
    let (engine, _thread) = start_tuned(same_bits, fake);
    let beginning = "x".repeat(100);
    let jobs: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|end| engine.submit(job(&format!("{beginning}{end}\n"))).unwrap())
        .collect();
    for (events, end) in jobs.into_iter().zip(["one", "two", "three"]) {
        let (text, _) = collect(events);
        assert_eq!(text, format!("{beginning}{end}"));
    }
    let grid = 16; // the fake's ubatch
    for batch in batches.lock().unwrap().iter() {
        let (sequence, first) = batch[0];
        assert!(batch.iter().all(|row| row.0 == sequence), "{batch:?}");
        let prompt = u32::try_from(beginning.len()).unwrap();
        if first < prompt {
            assert_eq!(first % grid, 0, "{batch:?}");
        } else if first > prompt + 6 {
            assert_eq!(batch.len(), 1, "{batch:?}");
        }
    }
}

#[test]
fn every_key_has_its_turn_however_many_another_has_waiting() {
    let (engine, _thread, open) = gated(1, 64);
    let ask = |key| Job {
        claimant: Claimant {
            key,
            ..Claimant::default()
        },
        ..job("a\n")
    };
    let first: Vec<_> = (0..10).map(|_| engine.submit(ask(1)).unwrap()).collect();
    let mut late = engine.submit(ask(2)).unwrap();
    open.send(()).unwrap();
    // Queue times tell the order: the late one waited for one of the others, or two, not for ten.
    let mut end = None;
    while let Some(event) = late.blocking_recv() {
        if let Event::End(Ok(finished)) = event {
            end = Some(finished);
        }
    }
    let waited = end.unwrap().times.queued;
    let slower = first
        .into_iter()
        .map(|events| collect(events).1.unwrap().times.queued)
        .filter(|&other| other > waited)
        .count();
    assert!(slower >= 8, "{slower} of 10 came after the late one");
}

#[test]
fn what_was_said_before_is_guessed_and_the_answer_stays_the_same() {
    let lookup = Tuning {
        lookup: true,
        ..tuning()
    };
    let (fake, batches) = watched(Fake::new(1, 1024));
    let (engine, _thread) = start_tuned(lookup, fake);
    let line = "the quick brown fox jumps over the lazy dog and runs away";
    let (text, end) = ask(&engine, job(&format!("{line}\n")));
    assert_eq!(text, line);
    let usage = end.unwrap().usage;
    assert_eq!(usage.completion_tokens as usize, line.len() + 1);
    let steps = batches.lock().unwrap().len();
    // The fake's steps take next to no time: whether a guess pays is up to chance here.
    assert!(
        usage.accepted_tokens as usize + steps >= line.len(),
        "{usage:?}, {steps} steps"
    );
}

#[test]
fn what_the_engine_says_it_did_is_what_its_answers_add_up_to() {
    let lookup = Tuning {
        lookup: true,
        ..tuning()
    };
    let (fake, batches) = watched(Fake::new(2, 1024));
    let (engine, _thread) = start_tuned(lookup, fake);
    let mut sum = Done::default();
    for line in ["again and again and again", "again and again and then not"] {
        let usage = ask(&engine, job(&format!("{line}\n"))).1.unwrap().usage;
        sum.prompt_tokens += u64::from(usage.prompt_tokens);
        sum.cached_tokens += u64::from(usage.cached_tokens);
        sum.generated_tokens += u64::from(usage.completion_tokens);
        sum.accepted_tokens += u64::from(usage.accepted_tokens);
        sum.rejected_tokens += u64::from(usage.rejected_tokens);
    }
    sum.prefill_tokens = sum.prompt_tokens - sum.cached_tokens;
    sum.steps = batches.lock().unwrap().len() as u64;
    // The last step is told after its answer.
    while engine.watch().done().steps < sum.steps {
        std::thread::yield_now();
    }
    let done = engine.watch().done();
    assert!(
        done.cached_tokens > 0 && done.prefill > Duration::ZERO && done.decode > Duration::ZERO
    );
    let Done {
        prefill, decode, ..
    } = done;
    assert_eq!(
        done,
        Done {
            prefill,
            decode,
            ..sum
        }
    );
}

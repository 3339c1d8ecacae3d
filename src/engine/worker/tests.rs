//! The worker with the fake model: every job ends once, and rightly, whatever goes wrong beside it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::engine::{
    self, Adapters, Busy, Claimant, Engine, Enough, Event, Failed, Finish, Finished, Gbnf, Grammar,
    Job, Refused, Sampling, Scaled, Tuning,
    fake::{Fake, FakeVocab, Fault, moved},
    model::{DecodeError, Row, Vocab},
};

mod adapters;
mod images;
mod load;
mod overflow;
mod reuse;
mod state;
mod turns;

const LONG: Duration = Duration::from_mins(1);

fn job(prompt: &str) -> Job {
    Job {
        prompt: FakeVocab.tokenize(prompt, false, false),
        media: Vec::new(),
        max_tokens: 1000,
        shift: None,
        forgotten: 0,
        sampling: Sampling::default(),
        grammar: None,
        stop: Vec::new(),
        enough: Enough::default(),
        visible: Vec::new(),
        stop_tokens: Vec::new(),
        prediction: Vec::new(),
        ignore_eos: false,
        score_prompt: false,
        min_tokens: 0,
        logprobs: None,
        tenant: Some(0),
        adapters: Adapters::default(),
        claimant: Claimant::default(),
        queue_wait: LONG,
        deadline: LONG,
    }
}

/// The model's first adapter at a scale.
fn worn(scale: u8) -> Adapters {
    let scale = f32::from(scale);
    Adapters::new([(Scaled { adapter: 0, scale }, "digest")])
}

/// What the fake model answers in place of `line` when the last `tokens` of the prompt, and all of the answer, are
/// computed with its first adapter.
fn adapted(line: &str, scale: u8, tokens: usize) -> String {
    let letters = line.bytes().enumerate().map(|(at, byte)| {
        let token = moved(i32::from(byte), usize::from(scale) * (tokens + at));
        u8::try_from(token).unwrap()
    });
    String::from_utf8(letters.collect()).unwrap()
}

fn start(sequences: u32, queue: u32) -> (Engine, JoinHandle<()>) {
    start_with(sequences, queue, Box::new(|_| None))
}

fn start_with(sequences: u32, queue: u32, fault: Fault) -> (Engine, JoinHandle<()>) {
    let tuning = Tuning {
        queue,
        ..Tuning::default()
    };
    start_tuned(tuning, Fake::new(sequences, 256).with_fault(fault))
}

fn start_tuned(tuning: Tuning, fake: Fake) -> (Engine, JoinHandle<()>) {
    let build = move || Ok::<_, Infallible>(fake);
    engine::start(tuning, build).unwrap_or_else(|never| match never {})
}

/// All events of a job, which must be whole: nothing after the end.
fn collect(mut events: UnboundedReceiver<Event>) -> (String, Result<Finished, Failed>) {
    let mut text = String::new();
    let mut end = None;
    while let Some(event) = events.blocking_recv() {
        assert!(end.is_none(), "{event:?} after the end");
        match event {
            Event::Started { .. } | Event::Prompt(_) => {}
            Event::Text(piece) => text.push_str(&piece.text),
            Event::End(outcome) => end = Some(outcome),
        }
    }
    (text, end.expect("every job ends"))
}

fn ask(engine: &Engine, job: Job) -> (String, Result<Finished, Failed>) {
    collect(engine.submit(job).unwrap())
}

/// Waits, by asking the engine something small, until it holds no other job.
fn settle(engine: &Engine) {
    while engine.busy() != Busy::default() {
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_ends_with_the_models_end_token_and_counts_it() {
    let (engine, _thread) = start(1, 0);
    let (text, end) = ask(&engine, job("hello\n"));
    let end = end.unwrap();
    assert_eq!((text.as_str(), end.reason), ("hello", Finish::Eos));
    assert_eq!(
        (end.usage.prompt_tokens, end.usage.completion_tokens),
        (6, 6)
    );
}

#[test]
fn a_prompt_longer_than_a_batch_is_computed_in_parts() {
    let (engine, _thread) = start(2, 4);
    let long = format!("{}\n{}\n", "x".repeat(150), "y".repeat(20));
    assert_eq!(ask(&engine, job(&long)).0, "y".repeat(20));
}

#[test]
fn max_tokens_and_the_context_both_end_an_answer_by_length() {
    let (engine, _thread) = start(1, 0);
    let (text, end) = ask(
        &engine,
        Job {
            max_tokens: 3,
            ..job("hello\n")
        },
    );
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("hel", Finish::Length)
    );
    let (text, end) = ask(&engine, job(&format!("{}\n", "z".repeat(200))));
    assert_eq!(
        (text.len(), end.unwrap().reason),
        (256 - 201, Finish::Length)
    );
    let (text, end) = ask(
        &engine,
        Job {
            max_tokens: 0,
            ..job("hello\n")
        },
    );
    assert_eq!(
        (text.as_str(), end.unwrap().usage.completion_tokens),
        ("", 0)
    );
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let (engine, _thread) = start(1, 0);
    let (text, end) = ask(
        &engine,
        Job {
            stop: vec!["lo w".into()],
            ..job("hello world\n")
        },
    );
    assert_eq!(
        (text.as_str(), end.unwrap().reason),
        ("hel", Finish::StopString("lo w".into()))
    );
}

#[test]
fn what_a_tenant_computed_is_reused_by_that_tenant_alone() {
    let (engine, _thread) = start(1, 0);
    let prompt = "the same beginning\nagain\n";
    let cached = |tenant: u64| {
        ask(
            &engine,
            Job {
                tenant: Some(tenant),
                ..job(prompt)
            },
        )
        .1
        .unwrap()
        .usage
        .cached_tokens
    };
    assert_eq!(cached(1), 0);
    assert_eq!(cached(1), 24, "all but the last token of the prompt");
    assert_eq!(cached(2), 0);
}

#[test]
fn a_short_prompt_finds_its_cache_again_after_a_long_answer_but_takes_no_long_history() {
    let (engine, _thread) = start(2, 0);
    let cached = |prompt: &str| {
        let usage = ask(&engine, job(prompt)).1.unwrap().usage;
        usage.cached_tokens
    };
    let question = format!("{}\n", "q".repeat(40));
    assert_eq!(cached(&question), 0);
    assert_eq!(
        cached(&question),
        40,
        "the answer was as long as the prompt"
    );
    // The same beginning as the history above, but hardly anything of it: the empty sequence is taken.
    assert_eq!(cached(&format!("{}\n", "q".repeat(5) + &"z".repeat(60))), 0);
    assert_eq!(cached(&question), 40);
}

#[test]
fn impossible_jobs_are_refused_at_the_border() {
    let (engine, _thread) = start(1, 0);
    let refusal = |job| engine.submit(job).map(drop).unwrap_err();
    assert_eq!(refusal(job("")), Refused::Empty);
    assert_eq!(
        refusal(job(&"x".repeat(256))),
        Refused::TooLong {
            prompt: 256,
            context: 256
        }
    );
    assert_eq!(
        refusal(Job {
            prompt: vec![7, 258],
            ..job("")
        }),
        Refused::BadToken(258)
    );
    assert_eq!(
        refusal(Job {
            prompt: vec![-1],
            ..job("")
        }),
        Refused::BadToken(-1)
    );
}

#[test]
fn a_grammar_that_the_model_refuses_ends_its_own_job_only() {
    let (engine, _thread) = start(2, 4);
    let other = engine.submit(job("fine\n")).unwrap();
    let grammar = Some(Grammar::Gbnf(Gbnf {
        gbnf: "bad".into(),
        ..Gbnf::default()
    }));
    let end = ask(
        &engine,
        Job {
            grammar,
            ..job("x\n")
        },
    )
    .1;
    assert_eq!(
        end,
        Err(Failed::Unacceptable("the grammar cannot be parsed".into()))
    );
    assert_eq!(collect(other).0, "fine");
}

/// An engine whose first decode waits until it is let go.
fn gated(sequences: u32, queue: u32) -> (Engine, JoinHandle<()>, std::sync::mpsc::Sender<()>) {
    let (open, gate) = std::sync::mpsc::channel();
    let mut passed = false;
    let fault = move |_: &[Row]| {
        if !passed {
            passed = gate.recv().is_ok();
        }
        None
    };
    let (engine, thread) = start_with(sequences, queue, Box::new(fault));
    (engine, thread, open)
}

#[test]
fn the_queue_is_bounded_and_its_places_come_back() {
    let (engine, _thread, open) = gated(1, 2);
    let held: Vec<_> = (0..3).map(|_| engine.submit(job("a\n")).unwrap()).collect();
    assert_eq!(
        engine.submit(job("a\n")).map(drop),
        Err(Refused::Full {
            queued: 2,
            wait: None
        })
    );
    open.send(()).unwrap();
    for events in held {
        assert_eq!(collect(events).0, "a");
    }
    assert_eq!(ask(&engine, job("b\n")).0, "b");
}

#[test]
fn a_dropped_receiver_frees_the_sequence_running_or_waiting() {
    let (engine, _thread, open) = gated(1, 8);
    let running = engine.submit(job("abandoned\n")).unwrap();
    let waiting = engine.submit(job("abandoned too\n")).unwrap();
    let kept = engine.submit(job("kept\n")).unwrap();
    drop((running, waiting));
    open.send(()).unwrap();
    assert_eq!(collect(kept).0, "kept");
    settle(&engine);
}

#[test]
fn who_waits_longer_than_its_patience_is_told_so() {
    let (engine, _thread, open) = gated(1, 8);
    let first = engine.submit(job("first\n")).unwrap();
    let late = engine
        .submit(Job {
            queue_wait: Duration::ZERO,
            ..job("late\n")
        })
        .unwrap();
    open.send(()).unwrap();
    assert_eq!(collect(late).1, Err(Failed::QueueWait(Duration::ZERO)));
    assert_eq!(collect(first).0, "first");
}

#[test]
fn who_runs_longer_than_its_deadline_is_ended() {
    let (engine, _thread) = start(1, 0);
    let end = ask(
        &engine,
        Job {
            deadline: Duration::ZERO,
            ..job("slow\n")
        },
    )
    .1;
    assert_eq!(end, Err(Failed::Deadline(Duration::ZERO)));
}

/// A fault for every batch that holds this byte.
fn poison(byte: u8, error: DecodeError) -> Fault {
    Box::new(move |rows| {
        rows.iter()
            .any(|row| row.token == i32::from(byte))
            .then(|| error.clone())
    })
}

#[test]
fn a_failed_batch_ends_the_guilty_job_and_no_other() {
    for error in [
        DecodeError::Full,
        DecodeError::Refused("no".into()),
        DecodeError::Broken("gone".into()),
    ] {
        let (engine, _thread) = start_with(3, 8, poison(b'!', error.clone()));
        let jobs =
            ["one line\n", "two!\n", "three\n"].map(|text| engine.submit(job(text)).unwrap());
        let [one, two, three] = jobs.map(collect);
        assert_eq!(
            (one.0.as_str(), three.0.as_str()),
            ("one line", "three"),
            "{error:?}"
        );
        assert_eq!(two.1, Err(Failed::Decode(error.to_string())));
    }
}

#[test]
fn a_panic_in_a_step_ends_its_jobs_and_not_the_engine() {
    let armed = Arc::new(AtomicBool::new(true));
    let trap = Arc::clone(&armed);
    let fault = move |_: &[Row]| {
        assert!(!trap.swap(false, Ordering::Relaxed), "boom");
        None
    };
    let (engine, _thread) = start_with(2, 8, Box::new(fault));
    assert!(matches!(ask(&engine, job("x\n")).1, Err(Failed::Decode(_))));
    assert_eq!(ask(&engine, job("y\n")).0, "y");
}

#[test]
fn halting_ends_every_job_and_the_thread() {
    let (engine, thread, open) = gated(1, 8);
    let jobs: Vec<_> = (0..4).map(|_| engine.submit(job("a\n")).unwrap()).collect();
    engine.halt();
    open.send(()).unwrap();
    for events in jobs {
        assert_eq!(collect(events).1, Err(Failed::Stopped));
    }
    thread.join().unwrap();
    assert_eq!(engine.submit(job("a\n")).map(drop), Err(Refused::Stopped));
}

#[test]
fn the_thread_ends_with_the_last_handle() {
    let (engine, thread) = start(1, 1);
    drop(engine);
    thread.join().unwrap();
}

#[test]
fn a_prompt_is_scored_once_though_it_is_computed_twice() {
    let mut broke = false;
    // The other stream's first token of its own: by then a part of the prompt is scored, and all is lost.
    let fault: Fault = Box::new(move |rows| {
        let breaks = rows.len() == 1 && !broke;
        broke |= breaks;
        breaks.then(|| DecodeError::Broken("once".into()))
    });
    let (engine, _thread) = start_with(2, 4, fault);
    let prompt = "never foreseen ".repeat(10);
    let mut scored = engine
        .submit(Job {
            score_prompt: true,
            logprobs: Some(0),
            tenant: None,
            max_tokens: 0,
            ..job(&prompt)
        })
        .unwrap();
    let (_, failed) = ask(&engine, job("ab\n"));
    assert!(failed.is_err());
    let mut tokens = Vec::new();
    loop {
        match scored.blocking_recv().unwrap() {
            Event::Prompt(more) => tokens.extend(more.into_iter().map(|token| token.token)),
            Event::End(end) => break assert_eq!(end.unwrap().reason, Finish::Length),
            _ => {}
        }
    }
    let all = FakeVocab.tokenize(&prompt, false, false);
    assert_eq!(tokens, all[1..]);
}

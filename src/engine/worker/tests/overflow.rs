//! A context that is full: the answer ends there, or goes on with a part of it forgotten.

use super::*;
use crate::engine::Shift;

fn endless(prompt: &str, keep: Option<u32>, tokens: u32) -> Job {
    Job {
        max_tokens: tokens,
        ignore_eos: true,
        shift: Some(Shift { keep, discard: 0 }),
        ..job(prompt)
    }
}

fn tuning() -> Tuning {
    Tuning {
        queue: 64,
        cache_bytes: 1 << 20,
        shifts: true,
        ..Tuning::default()
    }
}

#[test]
fn an_answer_of_several_contexts_goes_on_and_counts_what_was_forgotten() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 256));
    let (text, end) = ask(&engine, endless("hello world\n", Some(0), 1000));
    let end = end.unwrap();
    assert!(text.starts_with("hello world"), "{text}");
    assert_eq!(
        (end.reason, end.usage.completion_tokens),
        (Finish::Length, 1000)
    );
    assert_eq!(end.usage.prompt_tokens, 12);
    let left = 12 + 1000 - end.usage.forgotten_tokens;
    assert!((128..=256).contains(&left), "{left}");
}

#[test]
fn neighbours_of_a_shifted_sequence_answer_as_alone() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(3, 256));
    let first = engine.submit(endless("abc\n", None, 900)).unwrap();
    let second = engine.submit(endless("defgh\n", Some(3), 900)).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&engine, job("hello world\n")).0, "hello world");
    }
    for events in [first, second] {
        assert_eq!(collect(events).1.unwrap().usage.completion_tokens, 900);
    }
}

#[test]
fn only_what_was_kept_of_a_shifted_sequence_is_a_beginning() {
    for sequences in [1, 2] {
        let (engine, _thread) = start_tuned(tuning(), Fake::new(sequences, 256));
        let prompt = format!("{}\nhello\n", "x".repeat(120));
        let kept = 100;
        let end = ask(&engine, endless(&prompt, Some(kept), 600)).1.unwrap();
        assert!(end.usage.forgotten_tokens > 300);
        let cached = |job: Job| {
            let (text, end) = ask(&engine, job);
            assert_eq!(text, "hello");
            end.unwrap().usage.cached_tokens
        };
        assert_eq!(cached(job(&prompt)), kept);
        assert_eq!(cached(job(&prompt)), 126);
    }
}

#[test]
fn a_state_that_cannot_shift_is_computed_again_without_what_was_forgotten() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 256).recurrent());
    let (text, end) = ask(&engine, endless("hello world\n", None, 700));
    assert!(text.starts_with("hello world"), "{text}");
    assert_eq!(end.unwrap().usage.completion_tokens, 700);
    assert_eq!(ask(&engine, job("hello world\n")).0, "hello world");
}

#[test]
fn guesses_and_faults_beside_a_shift_change_nothing() {
    let lookup = Tuning {
        lookup: true,
        ..tuning()
    };
    let mut steps = 0;
    let fake = Fake::new(1, 256).with_fault(Box::new(move |rows| {
        steps += 1;
        // The context breaks once in a while, also right after a shift.
        (steps % 97 == 0 && rows.len() == 1).then_some(DecodeError::Abandoned)
    }));
    let (engine, _thread) = start_tuned(lookup, fake);
    let (text, end) = ask(&engine, endless("abababababababab\n", None, 800));
    assert!(text.starts_with("abababababababab"), "{text}");
    assert_eq!(end.unwrap().usage.completion_tokens, 800);
}

//! Images among text: each is computed in its place, alone in its batch, once, and never in halves.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::engine::{
    Token,
    media::{Attention, Image, Layout, Prompt},
};

fn image(name: u8, rows: usize, attention: Attention) -> Arc<Image> {
    let numbers = vec![0.0; rows];
    Arc::new(Image::new(&[name; 32], 0, Layout::Line, attention, 1, numbers).unwrap())
}

/// Text, an image, text, an image and so on; the answer repeats the last line of text.
fn told(parts: &[(&str, Option<&Arc<Image>>)]) -> Job {
    let mut prompt = Prompt::default();
    for (text, image) in parts {
        prompt.text(&FakeVocab.tokenize(text, false, false));
        if let Some(image) = image {
            prompt.image(image);
        }
    }
    Job {
        prompt: prompt.tokens,
        media: prompt.media,
        ..job("")
    }
}

fn tuning() -> Tuning {
    Tuning {
        queue: 64,
        cache_bytes: 1 << 20,
        ..Tuning::default()
    }
}

fn usage(engine: &Engine, job: Job) -> (String, u32, u32) {
    let (text, end) = ask(engine, job);
    let usage = end.unwrap().usage;
    (text, usage.prompt_tokens, usage.cached_tokens)
}

#[test]
fn an_image_takes_its_places_and_is_counted() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 256));
    let cat = image(1, 40, Attention::Causal);
    let (text, prompt, _) = usage(
        &engine,
        told(&[("look: ", Some(&cat)), ("\nhello\n", None)]),
    );
    assert_eq!((text.as_str(), prompt), ("hello", 6 + 40 + 7));
}

#[test]
fn an_image_may_end_a_prompt_and_begin_one() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 256));
    let cat = image(1, 20, Attention::Causal);
    assert_eq!(
        usage(&engine, told(&[("", Some(&cat)), ("\nhello\n", None)])).0,
        "hello"
    );
    // The fake model answers what has no line with a newline, and then with the line before it.
    let last = told(&[("hello", Some(&cat))]);
    assert!(
        ask(
            &engine,
            Job {
                max_tokens: 1,
                ..last
            }
        )
        .1
        .is_ok()
    );
}

#[test]
fn the_same_beginning_with_the_same_image_is_not_computed_again() {
    let work = Arc::new(AtomicUsize::new(0));
    let fake = Fake::new(2, 512).counting(Arc::clone(&work));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let cat = image(1, 60, Attention::Causal);
    let turn = |question: &str| told(&[("look: ", Some(&cat)), ("\n", None), (question, None)]);
    usage(&engine, turn("one\n"));
    let before = work.load(Ordering::Relaxed);
    let (text, _, cached) = usage(&engine, turn("two\n"));
    assert_eq!((text.as_str(), cached), ("two", 6 + 60 + 1));
    assert!(work.load(Ordering::Relaxed) - before < 20);
}

#[test]
fn another_image_in_the_same_place_is_another_prompt() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 512));
    let (cat, dog) = (
        image(1, 60, Attention::Causal),
        image(2, 60, Attention::Causal),
    );
    let with = |image| told(&[("look: ", Some(image)), ("\nhello\n", None)]);
    usage(&engine, with(&cat));
    assert_eq!(usage(&engine, with(&dog)).2, 6);
    let swapped = |a, b| told(&[("1: ", Some(a)), ("2: ", Some(b)), ("\nhello\n", None)]);
    usage(&engine, swapped(&cat, &dog));
    assert_eq!(usage(&engine, swapped(&dog, &cat)).2, 3);
}

#[test]
fn nothing_is_shared_from_inside_of_an_image() {
    // Cut by the context: the second prompt ends where the first one's image is halfway.
    for attention in [Attention::Causal, Attention::Whole] {
        let (engine, _thread) = start_tuned(tuning(), Fake::new(2, 512));
        let cat = image(1, 12, attention);
        let whole = told(&[("look: ", Some(&cat)), ("\nhello\n", None)]);
        usage(&engine, whole);
        let alone = told(&[("look: ", Some(&cat))]);
        let (_, end) = ask(
            &engine,
            Job {
                max_tokens: 1,
                ..alone
            },
        );
        assert_eq!(
            end.unwrap().usage.cached_tokens,
            6,
            "the last token is computed, and so its image"
        );
    }
}

#[test]
fn an_image_that_must_be_whole_is_computed_at_once_beside_running_streams() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(3, 512));
    let line = "y".repeat(100);
    let streams: Vec<_> = (0..2)
        .map(|_| engine.submit(job(&format!("{line}\n"))).unwrap())
        .collect();
    // The fake refuses what is longer than a ubatch, which is 16 rows.
    let whole = image(1, 16, Attention::Whole);
    let told = told(&[("look: ", Some(&whole)), ("\nhello\n", None)]);
    assert_eq!(usage(&engine, told).0, "hello");
    for stream in streams {
        assert_eq!(collect(stream).0, line);
    }
}

#[test]
fn requests_with_one_image_that_come_together_compute_it_once() {
    let work = Arc::new(AtomicUsize::new(0));
    let fake = Fake::new(4, 512).counting(Arc::clone(&work));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let cat = image(1, 200, Attention::Causal);
    let ask = |question: &str| told(&[("look: ", Some(&cat)), ("\n", None), (question, None)]);
    let jobs: Vec<_> = ["one\n", "two\n", "three\n"]
        .map(|question| engine.submit(ask(question)).unwrap())
        .into();
    for (events, line) in jobs.into_iter().zip(["one", "two", "three"]) {
        assert_eq!(collect(events).0, line);
    }
    assert!(work.load(Ordering::Relaxed) < 2 * 200, "{work:?}");
}

#[test]
fn a_model_that_cannot_be_cut_goes_back_to_before_the_image() {
    let fake = Fake::new(2, 512).recurrent();
    let (engine, _thread) = start_tuned(
        Tuning {
            checkpoint_every: 16,
            ..tuning()
        },
        fake,
    );
    let cat = image(1, 100, Attention::Causal);
    let beginning = "x".repeat(90);
    let with = |end: &str| told(&[(&beginning, Some(&cat)), ("\n", None), (end, None)]);
    usage(&engine, with("one\n"));
    let (text, _, cached) = usage(&engine, with("two\n"));
    assert_eq!(text, "two");
    assert!(cached >= 80 && !(91..190).contains(&cached), "{cached}");
}

#[test]
fn reproducible_or_not_the_answer_is_the_same() {
    for reproducible in [false, true] {
        let tuning = Tuning {
            reproducible,
            ..tuning()
        };
        let (engine, _thread) = start_tuned(tuning, Fake::new(2, 512));
        let cat = image(1, 50, Attention::Causal);
        let ask = |question: &str| told(&[("look: ", Some(&cat)), ("\n", None), (question, None)]);
        assert_eq!(usage(&engine, ask("hello there\n")).0, "hello there");
        assert_eq!(usage(&engine, ask("hello again\n")).0, "hello again");
    }
}

#[test]
fn a_placeholder_without_its_image_is_no_token() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 256));
    let mut job = job("hello\n");
    job.prompt[2] = -5;
    assert_eq!(engine.submit(job).unwrap_err(), Refused::BadToken(-5));
    let mut told = told(&[
        ("", Some(&image(1, 4, Attention::Causal))),
        ("\nhello\n", None),
    ]);
    let first: Token = told.prompt[0];
    told.media.clear();
    assert_eq!(engine.submit(told).unwrap_err(), Refused::BadToken(first));
}

#[test]
fn an_abandoned_image_frees_its_sequence_and_is_computed_whole_by_the_next() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 512));
    let cat = image(1, 300, Attention::Causal);
    let ask = || told(&[("look: ", Some(&cat)), ("\nhello\n", None)]);
    for _ in 0..20 {
        drop(engine.submit(ask()).unwrap());
    }
    assert_eq!(usage(&engine, ask()).0, "hello");
    settle(&engine);
}

//! Jobs with different adapters beside each other: none is computed with another's, nor waits for ever.

use std::sync::{Mutex, mpsc};

use super::*;

fn with(adapters: Adapters, prompt: &str) -> Job {
    Job {
        adapters,
        ..job(prompt)
    }
}

fn tuning() -> Tuning {
    Tuning {
        queue: 64,
        cache_bytes: 1 << 20,
        max_gap: Some(Duration::ZERO), // another set's turn after each step
        ..Tuning::default()
    }
}

#[test]
fn jobs_with_different_adapters_answer_side_by_side_as_they_do_alone() {
    let (open, gate) = mpsc::channel();
    let mut passed = false;
    let fake = Fake::new(6, 256).with_fault(Box::new(move |_| {
        passed = passed || gate.recv().is_ok();
        None
    }));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let scales = [0, 1, 2, 0, 1, 3];
    let running: Vec<_> = scales
        .iter()
        .map(|&scale| engine.submit(with(worn(scale), "hello world\n")).unwrap())
        .collect();
    open.send(()).unwrap();
    for (events, scale) in running.into_iter().zip(scales) {
        assert_eq!(collect(events).0, adapted("hello world", scale, 12));
    }
}

#[test]
fn batches_hold_one_set_of_adapters_and_sets_take_turns() {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let (open, gate) = mpsc::channel();
    let mut passed = false;
    let fake = Fake::new(4, 256).with_fault(Box::new(move |rows| {
        passed = passed || gate.recv().is_ok();
        let mut sequences: Vec<_> = rows.iter().map(|row| row.sequence).collect();
        sequences.dedup();
        seen.lock().unwrap().push(sequences);
        None
    }));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let running: Vec<_> = [1, 2, 1, 2]
        .iter()
        .map(|&scale| engine.submit(with(worn(scale), "abcdefgh\n")).unwrap())
        .collect();
    open.send(()).unwrap();
    let sequences: Vec<_> = running.into_iter().map(collect).collect();
    assert_eq!(sequences.len(), 4);
    let batches = batches.lock().unwrap();
    let mut longest = 0;
    let mut same = 0;
    for pair in batches.windows(2) {
        let parity = |batch: &[u32]| batch[0] % 2;
        assert!(
            pair[1].iter().all(|one| one % 2 == parity(&pair[1])),
            "{batches:?}"
        );
        same = if parity(&pair[0]) == parity(&pair[1]) {
            same + 1
        } else {
            0
        };
        longest = longest.max(same);
    }
    assert!(longest <= 1, "{batches:?}");
}

#[test]
fn what_one_set_has_computed_is_not_offered_to_another_and_comes_back_to_its_own() {
    let (engine, _thread) = start_tuned(tuning(), Fake::new(1, 1024));
    let prompt = format!("{}\nhello\n", "x".repeat(500));
    let length = prompt.len();
    let cached = |adapters: Adapters, scale, adapted_tokens| {
        let (text, end) = ask(&engine, with(adapters, &prompt));
        assert_eq!(text, adapted("hello", scale, adapted_tokens));
        end.unwrap().usage.cached_tokens as usize
    };
    assert_eq!(cached(Adapters::default(), 0, 0), 0);
    assert_eq!(cached(worn(1), 1, length), 0);
    assert_eq!(cached(worn(2), 2, length), 0);
    assert_eq!(cached(worn(1).after(100), 1, length - 100), 0);
    // Each was put aside when the next took the only sequence.
    assert_eq!(cached(worn(1), 1, length), length - 1);
    assert_eq!(cached(Adapters::default(), 0, 0), length - 1);
    assert_eq!(cached(worn(1).after(100), 1, length - 100), length - 1);
    assert_eq!(cached(worn(1).after(101), 1, length - 101), 0);
}

#[test]
fn streams_of_one_set_go_on_beside_a_long_prompt_of_another() {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let (open, gate) = mpsc::channel();
    let mut generated = 0;
    let fake = Fake::new(2, 4096).with_fault(Box::new(move |rows| {
        generated += u32::from(rows.len() == 1);
        if generated == 9 && rows.len() == 1 {
            gate.recv().unwrap(); // until there is something beside it
        }
        seen.lock().unwrap().push((rows[0].sequence, rows.len()));
        None
    }));
    let (engine, _thread) = start_tuned(tuning(), fake);
    let mut stream = engine
        .submit(with(worn(1), &format!("{}\n", "s".repeat(2000))))
        .unwrap();
    // It runs.
    while !matches!(stream.blocking_recv(), Some(Event::Text(_))) {}
    let begun = batches.lock().unwrap().len();
    let long = format!("{}\nend\n", "p".repeat(1000));
    let prompt = engine.submit(with(worn(2), &long)).unwrap();
    open.send(()).unwrap();
    assert_eq!(collect(prompt).0, adapted("end", 2, long.len()));
    let batches = batches.lock().unwrap();
    let of_stream = batches[begun..]
        .iter()
        .filter(|(sequence, _)| *sequence == 0);
    let of_prompt = batches[begun..]
        .iter()
        .filter(|(sequence, _)| *sequence == 1);
    let (of_stream, of_prompt) = (of_stream.count(), of_prompt.count());
    assert!(
        of_stream + 2 >= of_prompt.min(200),
        "{of_stream} {of_prompt}"
    );
    drop(stream);
}

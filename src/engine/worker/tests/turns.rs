//! Whose turn it is: streams before prompts, short prompts before long ones, and nobody for ever.

use std::sync::mpsc;

use super::*;

/// The sequences and positions of a batch's rows.
type Batch = Vec<(u32, u32)>;

/// A model that tells each batch once the gate is open.
fn observed(sequences: u32) -> (Fake, mpsc::Sender<()>, mpsc::Receiver<Batch>) {
    let (open, gate) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let mut closed = true;
    let fake = Fake::new(sequences, 256).with_fault(Box::new(move |rows| {
        if std::mem::take(&mut closed) {
            gate.recv().unwrap();
        }
        tell.send(
            rows.iter()
                .map(|row| (row.sequence, row.position))
                .collect(),
        )
        .unwrap();
        None
    }));
    (fake, open, told)
}

fn untouched(prompt: &str) -> Job {
    Job {
        max_tokens: 1,
        tenant: None,
        ..job(prompt)
    }
}

#[test]
fn a_long_prompt_beside_a_stream_is_not_for_ever_behind_short_ones() {
    let tuning = Tuning {
        queue: 64,
        ..Tuning::default()
    };
    let (fake, open, told) = observed(3);
    let (engine, _thread) = start_tuned(tuning, fake);
    let stream = engine
        .submit(job(&format!("{}\n", "s".repeat(120))))
        .unwrap();
    let long = engine.submit(untouched(&"l".repeat(200))).unwrap();
    let short = (0..60).map(|_| engine.submit(untouched("a short one\n")).unwrap());
    let short: Vec<_> = short.collect();
    open.send(()).unwrap();
    for events in short.into_iter().chain([long, stream]) {
        collect(events).1.unwrap();
    }
    drop(engine);
    let batches: Vec<_> = told.iter().collect();
    let read = |batch: &Batch| batch.iter().any(|&(_, position)| position == 199);
    let first_of_a_short = |batch: &Batch| batch.contains(&(2, 0));
    let end_of_long = batches.iter().position(read).unwrap();
    let after = batches[end_of_long..]
        .iter()
        .filter(|batch| first_of_a_short(batch));
    assert!(after.count() > 0, "all short ones came before it");
}

#[test]
fn no_batch_mixes_streams_with_prompts_or_prompts_of_unequal_parts() {
    let (fake, open, told) = observed(4);
    let (engine, _thread) = start_tuned(
        Tuning {
            queue: 64,
            ..Tuning::default()
        },
        fake,
    );
    let lines = [
        "s",
        "a longer line",
        "l",
        "something else",
        "another",
        "and one more",
    ];
    let jobs = (20..).step_by(7).zip(lines).map(|(count, line)| {
        let prompt = format!("{}\n{}\n", line.repeat(count / line.len()), "x".repeat(30));
        engine
            .submit(Job {
                tenant: None,
                ..job(&prompt)
            })
            .unwrap()
    });
    let jobs: Vec<_> = jobs.collect();
    open.send(()).unwrap();
    for events in jobs {
        collect(events).1.unwrap();
    }
    drop(engine);
    for batch in told {
        let mut parts: Vec<usize> = Vec::new();
        for sequence in 0..4 {
            let rows = batch.iter().filter(|row| row.0 == sequence).count();
            parts.extend((rows > 0).then_some(rows));
        }
        assert!(parts.windows(2).all(|pair| pair[0] == pair[1]), "{batch:?}");
    }
}

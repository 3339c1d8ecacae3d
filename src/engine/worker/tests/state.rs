//! States beyond their sequence: copied and put back at a client's word, and found on the disk after a restart.

use std::{path::Path, sync::mpsc};

use tempfile::TempDir;

use super::*;
use crate::engine::{
    start_in,
    state::{FileName, Folder, Identity, NotDone, Places, Shelf, SlotError},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn places(folder: &Path) -> Places {
    Places {
        identity: Identity::new([("model", "fake".into())]),
        archive: Some(Shelf {
            folder: Folder::open(folder.join("archive")).unwrap(),
            bytes: 1 << 20,
            within: LONG,
        }),
        slots: Some(folder.join("slots")),
    }
}

fn start_at(folder: &Path, fake: Fake) -> (Engine, JoinHandle<()>) {
    let tuning = Tuning {
        queue: 64,
        cache_bytes: 1 << 20,
        checkpoint_every: 32,
        ..Tuning::default()
    };
    let built = start_in(places(folder), tuning, move || Ok::<_, Infallible>(fake));
    built.unwrap_or_else(|never: Infallible| match never {})
}

fn end((engine, thread): (Engine, JoinHandle<()>)) {
    drop(engine);
    thread.join().unwrap();
}

fn history(letter: &str) -> Job {
    job(&format!("{}\nagain\n", letter.repeat(200)))
}

fn cached(engine: &Engine, job: Job) -> u32 {
    let (text, end) = ask(engine, job);
    assert_eq!(text, "again");
    end.unwrap().usage.cached_tokens
}

fn of(tenant: u64, job: Job) -> Job {
    Job {
        tenant: Some(tenant),
        ..job
    }
}

#[test]
fn what_was_computed_is_found_on_the_disk_after_a_restart_by_its_owner_only() {
    for recurrent in [false, true] {
        let fake = |sequences| {
            let fake = Fake::new(sequences, 512);
            if recurrent { fake.recurrent() } else { fake }
        };
        let folder = tempfile::tempdir().unwrap();
        // More histories than sequences: some lie in host memory at the end.
        let first = start_at(folder.path(), fake(2));
        for letter in ["a", "b", "c", "d"] {
            assert_eq!(cached(&first.0, history(letter)), 0);
        }
        end(first);
        let second = start_at(folder.path(), fake(2));
        assert_eq!(cached(&second.0, of(9, history("a"))), 0);
        for letter in ["a", "b", "c", "d"] {
            let cached = cached(&second.0, history(letter));
            assert!(cached >= 190, "{letter}: {cached}, recurrent: {recurrent}");
        }
        end(second);
    }
}

#[test]
fn requests_that_come_together_wait_for_one_file_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = start_at(folder.path(), Fake::new(2, 512));
    assert_eq!(cached(&first.0, history("a")), 0);
    end(first);
    let (engine, thread) = start_at(folder.path(), Fake::new(2, 512));
    let jobs: Vec<_> = (0..4)
        .map(|_| engine.submit(history("a")).unwrap())
        .collect();
    let other = engine.submit(history("z")).unwrap();
    let found = jobs.into_iter().map(|events| collect(events).1.unwrap());
    assert!(found.into_iter().all(|end| end.usage.cached_tokens > 190));
    assert_eq!(collect(other).1.unwrap().usage.cached_tokens, 0);
    end((engine, thread));
}

#[test]
fn a_file_that_went_bad_costs_only_the_computation() {
    let folder = tempfile::tempdir().unwrap();
    let first = start_at(folder.path(), Fake::new(1, 512));
    assert_eq!(cached(&first.0, history("a")), 0);
    end(first);
    let second = start_at(folder.path(), Fake::new(1, 512));
    for entry in std::fs::read_dir(folder.path().join("archive")).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("lock") {
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - 40;
            bytes[last] ^= 8;
            std::fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(cached(&second.0, history("a")), 0);
    end(second);
}

fn slot() -> (TempDir, Engine, FileName) {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _thread) = start_at(folder.path(), Fake::new(2, 512));
    (folder, engine, FileName::parse("one").unwrap())
}

#[test]
fn a_saved_sequence_is_taken_up_after_it_was_erased_and_restored_elsewhere() {
    let (_folder, engine, name) = slot();
    assert_eq!(cached(&engine, history("a")), 0);
    let slots = engine.slots().unwrap();
    let held = |at: usize| engine.sequences()[at].kept;
    let at = u32::from(held(0) == 0);
    let saved = block_on(slots.save(&engine, at, 0, &name)).unwrap();
    assert!(saved.tokens > 200 && saved.bytes > 4 * 200, "{saved:?}");
    assert_eq!(block_on(engine.forget(at, 0)), Ok(saved.tokens));
    assert_eq!(cached(&engine, history("a")), 0);
    assert_eq!(
        block_on(engine.forget(0, 0))
            .and(block_on(engine.forget(1, 0)))
            .map(drop),
        Ok(())
    );
    let restored = block_on(slots.restore(&engine, 1 - at, 0, &name)).unwrap();
    assert_eq!(
        (restored.tokens, restored.bytes),
        (saved.tokens, saved.bytes)
    );
    assert_eq!(held(1 - at as usize), saved.tokens);
    assert!(cached(&engine, history("a")) > 200);
}

#[test]
fn one_key_neither_saves_nor_erases_nor_restores_what_is_anothers() {
    let (folder, engine, name) = slot();
    assert_eq!(cached(&engine, history("a")), 0);
    let at = u32::from(engine.sequences()[0].kept == 0);
    let slots = engine.slots().unwrap();
    let refused = |outcome| matches!(outcome, Err(SlotError::NotDone(NotDone::NotTheirs(_))));
    assert!(refused(block_on(slots.save(&engine, at, 1, &name))));
    assert_eq!(block_on(engine.forget(at, 1)), Err(NotDone::NotTheirs(at)));
    block_on(slots.save(&engine, at, 0, &name)).unwrap();
    let other = block_on(slots.restore(&engine, at, 1, &name));
    assert!(matches!(other, Err(SlotError::NoFile)), "{other:?}");
    // Not even if the file is moved.
    let path = |key: u64| folder.path().join("slots").join(format!("{key:016x}"));
    std::fs::create_dir(path(1)).unwrap();
    std::fs::rename(path(0).join("one"), path(1).join("one")).unwrap();
    let other = block_on(slots.restore(&engine, at, 1, &name));
    assert!(matches!(other, Err(SlotError::NoFile)), "{other:?}");
    assert!(cached(&engine, history("a")) > 200, "nothing was lost");
}

#[test]
fn an_errand_waits_for_the_job_that_has_the_sequence_and_is_forgotten_with_its_sender() {
    let (open, gate) = mpsc::channel();
    let mut passed = false;
    let fault = move |_: &[Row]| {
        passed = passed || gate.recv().is_ok();
        None
    };
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new(1, 512).with_fault(Box::new(fault));
    let (engine, thread) = start_at(folder.path(), fake);
    let events = engine.submit(history("a")).unwrap();
    let (copied, erased) = std::thread::scope(|scope| {
        let copied = scope.spawn(|| block_on(engine.copy(0, 0)));
        // Given up before it could be done.
        let patience = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let erased = patience.unwrap().block_on(async {
            tokio::time::timeout(Duration::from_millis(1), engine.forget(0, 0)).await
        });
        open.send(()).unwrap();
        (copied.join().unwrap(), erased)
    });
    assert!(erased.is_err());
    assert!(copied.unwrap().tokens() > 200);
    assert_eq!(collect(events).0, "again");
    assert!(cached(&engine, history("a")) > 200);
    assert_eq!(
        block_on(engine.copy(7, 0)).unwrap_err(),
        NotDone::NoSequence {
            sequence: 7,
            last: 0
        }
    );
    end((engine, thread));
}

#[test]
fn a_state_that_the_engine_does_not_take_leaves_the_sequence_empty_and_the_rest_at_work() {
    // Every second state is forgotten.
    let folder = tempfile::tempdir().unwrap();
    let (engine, _thread) = start_at(folder.path(), Fake::new(1, 512).forgetful(2));
    assert_eq!(cached(&engine, history("a")), 0);
    let saved = block_on(engine.copy(0, 0)).unwrap();
    // What was there cannot be put aside, and the state is taken; then the other way round.
    assert!(block_on(engine.put(0, 0, saved.clone())).is_ok());
    block_on(engine.forget(0, 0)).unwrap();
    assert_eq!(block_on(engine.put(0, 0, saved)), Err(NotDone::NotTaken));
    assert_eq!(engine.sequences()[0].kept, 0);
    assert_eq!(cached(&engine, history("a")), 0);
}

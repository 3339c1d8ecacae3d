//! Hours of random load in seconds: whatever comes together, every job ends once and rightly, and nothing leaks.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::engine::{
    Token, Worth,
    draft::{Drafter, Guesses, Wish},
    fake::answer,
    start_in,
    state::{Folder, NotDone, Places, Saved, Shelf},
};

/// What one client does in a random run.
#[derive(Debug, Clone)]
struct Client {
    line: String,
    prefix: usize,
    tenant: Option<u64>,
    key: u64,
    /// Goes away after this many events.
    leaves_after: Option<usize>,
    /// Comes only after the one before it has ended.
    waits: bool,
    max_tokens: u32,
    /// What it asks of a sequence beforehand.
    errand: Option<(Errand, u32)>,
    /// Of the only adapter.
    scale: u8,
    /// Whether the adapter acts on the second half of the prompt only.
    late: bool,
}

impl Client {
    fn prompt(&self) -> String {
        format!("{}{}\n", "shared prefix\n".repeat(self.prefix), self.line)
    }

    /// Tokens of the prompt that are computed without the adapter.
    fn plain(&self) -> usize {
        if self.late {
            self.prompt().len() / 2
        } else {
            0
        }
    }

    fn adapters(&self) -> Adapters {
        worn(self.scale).after(self.plain())
    }

    /// The answer to its end.
    fn answer(&self) -> String {
        adapted(&self.line, self.scale, self.prompt().len() - self.plain())
    }
}

#[derive(Debug, Clone, Copy)]
enum Errand {
    /// A copy, for its own tenant.
    Copy,
    /// The last copy of its tenant's.
    Put,
    Forget,
    /// Asked, and gone before it is done.
    Leave,
}

/// How the engine is set up.
#[derive(Debug, Clone)]
struct Setup {
    sequences: u32,
    recurrent: bool,
    /// Rows that a recurrent state can take back.
    takes_back: usize,
    drafter: Drafting,
    forgetful: usize,
    tuning: Tuning,
    faults: Vec<u8>,
    /// Its prompts outlive it.
    files: bool,
}

/// What the drafter is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drafting {
    None,
    /// Knows what comes.
    Right,
    /// Says anything, also what is no token.
    Wrong,
    /// Works for so many times, and then no more.
    Failing(usize),
}

/// Guesses without computing.
struct Guesser {
    kind: Drafting,
    times: usize,
}

impl Drafter for Guesser {
    fn seconds(&self, _: usize, _: usize) -> f64 {
        0.0
    }

    fn seconds_behind(&self, _: &Wish<'_>) -> Option<f64> {
        Some(0.0)
    }

    fn guess(
        &mut self,
        wishes: &[Wish<'_>],
        most: usize,
        _: Duration,
        _: &dyn Fn() -> bool,
    ) -> Result<Vec<Guesses>, DecodeError> {
        self.times += 1;
        if let Drafting::Failing(times) = self.kind
            && self.times > times
        {
            return Err(DecodeError::Refused("no more".into()));
        }
        assert!(wishes.is_sorted_by_key(|wish| wish.sequence) && most > 0);
        let guess = |wish: &Wish<'_>| {
            let mut known = wish.tokens.to_vec();
            let guess = |at: usize| {
                if self.kind == Drafting::Wrong {
                    return Token::try_from(self.times * 7 + at * 90).unwrap_or(0);
                }
                let next = answer(&known);
                known.push(next);
                next
            };
            Guesses {
                ready: !self.times.is_multiple_of(7),
                tokens: (0..most - self.times % 2).map(guess).collect(),
            }
        };
        Ok(wishes.iter().map(guess).collect())
    }
}

fn clients() -> impl Strategy<Value = Vec<Client>> {
    let client = (
        "([a-y!]{0,30}|[ab]{60,90})",
        0usize..8,
        prop::option::weighted(0.9, 0u64..2),
        0u64..3,
        prop::option::weighted(0.3, 0usize..8),
        prop::bool::weighted(0.3),
        prop_oneof![Just(1000_u32), 0u32..20],
    );
    let act = prop_oneof![
        Just(Errand::Copy),
        Just(Errand::Put),
        Just(Errand::Forget),
        Just(Errand::Leave)
    ];
    let adapter = (prop_oneof![Just(0_u8), 0_u8..3], any::<bool>());
    let errand = prop::option::weighted(0.4, (act, 0u32..7));
    let client = (client, errand, adapter);
    let client = client.prop_map(
        |((line, prefix, tenant, key, leaves_after, waits, max_tokens), errand, (scale, late))| {
            Client {
                line,
                prefix,
                tenant,
                key,
                leaves_after,
                waits,
                max_tokens,
                errand,
                scale,
                late,
            }
        },
    );
    prop::collection::vec(client, 1..32)
}

fn setups() -> impl Strategy<Value = Setup> {
    let tuning = (
        prop_oneof![Just(0_usize), 200usize..4000],
        16usize..64,
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.2),
    );
    let tuning = tuning.prop_map(
        |(cache_bytes, checkpoint_every, lookup, assumed, reproducible)| Tuning {
            queue: 64,
            worth: if assumed {
                Worth::Assumed
            } else {
                Worth::Measured
            },
            cache_bytes,
            checkpoint_every,
            lookup,
            reproducible,
            ..Tuning::default()
        },
    );
    let faults = prop::collection::vec(0u8..20, 0..64);
    let drafter = prop_oneof![
        Just(Drafting::None),
        Just(Drafting::Right),
        Just(Drafting::Wrong),
        (0usize..20).prop_map(Drafting::Failing),
    ];
    let guessing = (0usize..5, drafter);
    // Files cost time, which other cases use better.
    let files = prop::bool::weighted(0.1);
    (
        1u32..6,
        any::<bool>(),
        guessing,
        0usize..6,
        tuning,
        faults,
        files,
    )
        .prop_map(
            |(sequences, recurrent, (takes_back, drafter), forgetful, tuning, faults, files)| {
                Setup {
                    sequences,
                    recurrent,
                    takes_back,
                    drafter,
                    forgetful: if forgetful == 1 { 0 } else { forgetful },
                    tuning,
                    faults,
                    files,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn under_load_cancellation_faults_and_reuse_every_job_ends_once_and_rightly(
        clients in clients(), setup in setups(),
    ) {
        // Now and then a batch fails for no fault of its jobs, or breaks the context, or is given up.
        let mut faults = setup.faults.clone().into_iter();
        let fault = move |rows: &[Row]| match faults.next() {
            Some(0) if rows.len() > 1 => Some(DecodeError::Broken("by chance".into())),
            Some(1) => Some(DecodeError::Abandoned),
            _ => rows.iter().any(|row| row.token == i32::from(b'!')).then_some(DecodeError::Full),
        };
        let mut fake = Fake::new(setup.sequences, 320)
            .with_fault(Box::new(fault))
            .forgetful(setup.forgetful);
        if setup.recurrent {
            fake = fake.recurrent().taking_back(setup.takes_back);
        }
        if setup.drafter != Drafting::None {
            fake = fake.with_drafter(Box::new(Guesser { kind: setup.drafter, times: 0 }));
        }
        let folder = setup.files.then(|| tempfile::tempdir().unwrap());
        let folder = folder.as_ref().map(TempDir::path);
        let (engine, thread) = start_filing(folder, setup.tuning.clone(), fake);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut running = Vec::new();
        let mut copies = [const { None }; 2];
        for client in clients {
            if client.waits {
                settle_or_leave(&mut running)?;
            }
            if let (Some((act, sequence)), Some(tenant)) = (client.errand, client.tenant) {
                let copy = &mut copies[usize::try_from(tenant).unwrap()];
                runtime.block_on(ask_of(&engine, (act, sequence, tenant), copy))?;
            }
            let job = Job {
                adapters: client.adapters(),
                tenant: client.tenant,
                claimant: Claimant {
                    key: client.key,
                    ..Claimant::default()
                },
                max_tokens: client.max_tokens,
                ..job(&client.prompt())
            };
            running.push((client, engine.submit(job).unwrap()));
        }
        settle_or_leave(&mut running)?;
        settle(&engine);
        let kept = engine.kept();
        prop_assert!(kept.bytes <= setup.tuning.cache_bytes as u64, "{kept:?} {}", setup.tuning.cache_bytes);
        prop_assert!(kept.tokens <= setup.sequences * 320, "{kept:?}");
        drop(engine);
        thread.join().unwrap();
        let Some(folder) = folder else {
            return Ok(());
        };
        // What lies on the disk now is whole, within its budget, and answers rightly.
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap());
        let bytes: u64 = files.map(|file| file.len()).sum();
        prop_assert!(bytes <= ON_DISK, "{bytes}");
        let fake = Fake::new(setup.sequences, 320);
        let fake = if setup.recurrent { fake.recurrent() } else { fake };
        let (engine, thread) = start_filing(Some(folder), setup.tuning.clone(), fake);
        for prefix in 0..8 {
            let events = engine.submit(job(&format!("{}again\n", "shared prefix\n".repeat(prefix)))).unwrap();
            prop_assert_eq!(collect(events).0, "again");
        }
        drop(engine);
        thread.join().unwrap();
    }
}

#[test]
fn an_answer_goes_on_when_its_drafter_fails_and_a_right_one_is_counted() {
    let answer = |kind| {
        let fake = Fake::new(1, 256).with_drafter(Box::new(Guesser { kind, times: 0 }));
        let tuning = Tuning {
            worth: Worth::Assumed,
            ..Tuning::default()
        };
        let (engine, _thread) = start_tuned(tuning, fake);
        let (text, end) = ask(&engine, job(&format!("{}\n", "abc".repeat(20))));
        assert_eq!(text, "abc".repeat(20));
        end.unwrap().usage
    };
    let right = answer(Drafting::Right);
    assert!(
        right.accepted_tokens > 30 && right.rejected_tokens == 0,
        "{right:?}"
    );
    let wrong = answer(Drafting::Wrong);
    assert!(
        wrong.accepted_tokens == 0 && wrong.rejected_tokens > 5,
        "{wrong:?}"
    );
    let failing = answer(Drafting::Failing(1));
    assert!((1..=16).contains(&failing.accepted_tokens), "{failing:?}");
}

const ON_DISK: u64 = 3000;

fn start_filing(folder: Option<&Path>, tuning: Tuning, fake: Fake) -> (Engine, JoinHandle<()>) {
    let archive = folder.map(|folder| Shelf {
        folder: Folder::open(folder.into()).unwrap(),
        bytes: ON_DISK,
        within: LONG,
    });
    let places = Places {
        archive,
        ..Places::default()
    };
    let built = start_in(places, tuning, move || Ok::<_, Infallible>(fake));
    built.unwrap_or_else(|never| match never {})
}

/// An errand ends well or is refused for one of the reasons that there are.
async fn ask_of(
    engine: &Engine,
    (act, sequence, tenant): (Errand, u32, u64),
    copy: &mut Option<Saved>,
) -> Result<(), TestCaseError> {
    let outcome = match (act, &copy) {
        (Errand::Copy, _) => engine.copy(sequence, tenant).await.map(|saved| {
            let tokens = saved.tokens();
            *copy = Some(saved);
            u32::try_from(tokens).unwrap()
        }),
        (Errand::Put, Some(saved)) => engine.put(sequence, tenant, saved.clone()).await,
        (Errand::Forget, _) => engine.forget(sequence, tenant).await,
        (Errand::Put, None) | (Errand::Leave, _) => {
            let moment = Duration::from_micros(100);
            let _ = tokio::time::timeout(moment, engine.copy(sequence, tenant)).await;
            return Ok(());
        }
    };
    match outcome {
        Ok(tokens) => prop_assert!(tokens <= 320),
        Err(NotDone::NoSequence { last, .. }) => prop_assert!(sequence > last),
        Err(NotDone::NotTheirs(at)) => prop_assert_eq!(at, sequence),
        Err(NotDone::NotGiven | NotDone::NotTaken) => {}
        Err(other) => prop_assert!(false, "{other:?}"),
    }
    Ok(())
}

/// Every client reads to its end, or goes away; each that stays got its whole answer.
fn settle_or_leave(
    running: &mut Vec<(Client, UnboundedReceiver<Event>)>,
) -> Result<(), TestCaseError> {
    for (client, mut events) in running.drain(..) {
        if let Some(count) = client.leaves_after {
            for _ in 0..count {
                let _ = events.blocking_recv();
            }
            continue;
        }
        let (text, end) = collect(events);
        match end {
            Ok(end) => {
                let whole = client.line.len() < client.max_tokens as usize;
                let reason = if whole { Finish::Eos } else { Finish::Length };
                prop_assert_eq!(end.reason, reason);
                let length = client.line.len().min(client.max_tokens as usize);
                prop_assert_eq!(text, &client.answer()[..length]);
                prop_assert!(end.usage.cached_tokens < end.usage.prompt_tokens);
            }
            // A batch of several rows of one sequence may have been the one that broke by chance.
            Err(Failed::Decode(why)) => {
                prop_assert!(client.line.contains('!') || why == "by chance");
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
    Ok(())
}

//! The border between the rest of the program and the one thread that owns model and context.
//!
//! A [`Job`] goes in, [`Event`]s come back, and exactly one [`Event::End`] closes every job.
//! Dropping the receiver of the events is the only way to cancel. Models that embed or rank have a border of their
//! own in [`embed`].

mod adapters;
mod budget;
pub mod constrain;
pub mod draft;
pub mod embed;
pub(crate) mod enough;
pub mod fake;
pub mod fit;
pub mod gguf;
mod job;
pub mod llama;
pub(crate) mod lookup;
pub mod media;
pub mod model;
pub(crate) mod odds;
pub mod overflow;
pub(crate) mod pace;
pub(crate) mod plan;
pub(crate) mod prefix;
mod pulse;
pub(crate) mod queue;
mod reply;
pub mod rpc;
pub mod sample;
pub mod senses;
pub(crate) mod sequences;
mod shared;
pub(crate) mod slot;
pub mod state;
pub(crate) mod store;
mod tally;
pub mod task;
pub(crate) mod text;
pub mod threads;
mod watch;
pub(crate) mod worker;

use std::{
    sync::{Arc, mpsc::SyncSender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::WaitForCancellationFutureOwned;

use state::{Archive, ArchiveName, Errand, Fetched, Identity, Places, Shelf, Slots};

pub use adapters::{Adapters, Scaled, Set};
pub use budget::Budget;
pub use enough::Enough;
pub use job::{
    Alternative, Claimant, Event, Failed, Finish, Finished, Job, Piece, Refused, Scored, Times,
    Usage,
};
pub use overflow::Shift;
pub use pulse::Pulse;
pub(crate) use reply::Reply;
pub use sample::{Gbnf, Grammar, Hold, Sampling, Trigger};
pub use sequences::Sequence;
pub(crate) use shared::Shared;
pub use tally::Done;
pub use watch::Watch;

/// A token id of the model's vocabulary.
pub type Token = i32;

/// Sizes the engine was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of context for each sequence.
    pub context: u32,
    pub sequences: u32,
    pub vocab: u32,
    /// Jobs that may wait.
    pub queue: u32,
    /// Host memory that states of sequences may take.
    pub cache_bytes: u64,
    /// Whether a job may go on when its context is full.
    pub shifts: bool,
}

/// How busy the engine is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    pub queued: u32,
    pub running: u32,
}

/// What the engine keeps of what it has computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// In all sequences together, running or free.
    pub tokens: u32,
    /// States in host memory.
    pub bytes: u64,
    /// Sequences that were put aside there.
    pub aside: u32,
}

/// How the engine schedules, and what it keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Jobs that may wait.
    pub queue: u32,
    /// Longest gap between two tokens of a stream that prompts beside it may cause; `None`: as it suits the machine.
    pub max_gap: Option<Duration>,
    /// Host memory for states of sequences, in bytes; 0: none are kept but those in the sequences themselves.
    pub cache_bytes: usize,
    /// Tokens between two checkpoints of a prompt, where the model's state cannot be cut.
    pub checkpoint_every: usize,
    /// Guess tokens from the sequence's own earlier ones.
    pub lookup: bool,
    /// Most tokens guessed at once for one sequence, by whomever.
    pub most_guesses: usize,
    pub worth: Worth,
    /// The same request gets the same bits, whatever runs beside it or is cached.
    pub reproducible: bool,
    /// Jobs may go on when their context is full.
    pub shifts: bool,
}

/// Which guesses are worth their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Those that pay, by how long steps take on this machine.
    Measured,
    /// All that may come true, whatever they cost: for whoever wants to see what becomes of them.
    Assumed,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            queue: 0,
            max_gap: None,
            cache_bytes: 0,
            checkpoint_every: 4096,
            lookup: false,
            most_guesses: lookup::MOST as usize,
            worth: Worth::Measured,
            reproducible: false,
            shifts: false,
        }
    }
}

/// A cheap handle to the engine thread. The thread ends when the last one is dropped, or by [`Engine::halt`].
#[derive(Clone)]
pub struct Engine {
    inbox: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    slots: Option<Arc<Slots>>,
}

/// What reaches the engine thread.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are jobs")]
pub(crate) enum Message {
    Job(Submitted),
    Errand(Errand),
    Fetched(Fetched),
}

/// A job on its way to the engine thread.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) job: Job,
    pub(crate) reply: Reply,
    pub(crate) at: Instant,
    /// A file that is being read for it.
    pub(crate) awaits: Option<ArchiveName>,
}

/// Starts the engine thread. `build` runs on it, because llama.cpp's worker team belongs to the thread
/// that decodes; this returns once the model is built.
pub fn start<M: model::Model, E: Send + 'static>(
    tuning: Tuning,
    build: impl FnOnce() -> Result<M, E> + Send + 'static,
) -> Result<(Engine, JoinHandle<()>), E> {
    start_in(Places::default(), tuning, build)
}

/// [`start`] with folders for states.
pub fn start_in<M: model::Model, E: Send + 'static>(
    places: Places,
    tuning: Tuning,
    build: impl FnOnce() -> Result<M, E> + Send + 'static,
) -> Result<(Engine, JoinHandle<()>), E> {
    spawn("engine", move |first| {
        let model = match build() {
            Ok(model) => model,
            Err(error) => return drop(first.send(Err(error))),
        };
        let (inbox, arrivals) = mpsc::unbounded_channel(); // bounded by `held`
        let shared = Arc::new(Shared::new(Shape {
            context: model.context(),
            sequences: model.sequences(),
            vocab: model.vocab().size(),
            queue: tuning.queue,
            cache_bytes: tuning.cache_bytes as u64,
            shifts: tuning.shifts,
        }));
        let Places {
            identity,
            archive,
            slots,
        } = places;
        let archive = archive.and_then(|shelf| open(shelf, &identity, inbox.downgrade()));
        let slots = slots.map(|folder| Arc::new(Slots::new(folder, identity)));
        let engine = Engine {
            inbox,
            shared: Arc::clone(&shared),
            slots,
        };
        if first.send(Ok(engine)).is_ok() {
            worker::Worker::new(model, tuning, arrivals, shared, archive).run();
        }
    })
}

/// What is read from the disk comes in like a job. Without the disk everything else goes on.
fn open(
    shelf: Shelf,
    identity: &Identity,
    inbox: mpsc::WeakUnboundedSender<Message>,
) -> Option<Archive> {
    let deliver = move |fetched| {
        if let Some(inbox) = inbox.upgrade() {
            let _ = inbox.send(Message::Fetched(fetched)); // nobody waits any more
        }
    };
    Archive::open(shelf, identity.clone(), deliver)
        .inspect_err(
            |error| tracing::warn!(%error, "computed prompts of earlier runs cannot be looked at"),
        )
        .ok()
}

/// Starts a thread with `body`, which first sends what is returned here, or why there is none.
fn spawn<T: Send + 'static, E: Send + 'static>(
    name: &str,
    body: impl FnOnce(SyncSender<Result<T, E>>) + Send + 'static,
) -> Result<(T, JoinHandle<()>), E> {
    let (first, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name.into())
        .spawn(move || body(first));
    let thread =
        thread.unwrap_or_else(|error| panic!("the thread `{name}` cannot be started: {error}"));
    match outcome.recv() {
        Ok(Ok(engine)) => Ok((engine, thread)),
        Ok(Err(error)) => Err(error),
        // Nothing was sent: `body` panicked. The panic goes on here.
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread sends before it ends"),
        },
    }
}

impl Engine {
    /// Queues a job and returns its events. Dropping the receiver cancels the job.
    pub fn submit(&self, job: Job) -> Result<mpsc::UnboundedReceiver<Event>, Refused> {
        let shape = self.shared.shape;
        if job.prompt.is_empty() {
            return Err(Refused::Empty);
        }
        // At least one place is left for the answer.
        if job.prompt.len() >= shape.context as usize {
            return Err(Refused::TooLong {
                prompt: job.prompt.len(),
                context: shape.context,
            });
        }
        if let Some(token) = media::stray(&job.prompt, &job.media, shape.vocab) {
            return Err(Refused::BadToken(token));
        }
        if self.shared.halt.is_cancelled() {
            return Err(Refused::Stopped);
        }
        let place = self.shared.place()?;
        let (events, receiver) = mpsc::unbounded_channel(); // bounded by the job's `max_tokens`
        let reply = Reply::new(events, place);
        let submitted = Submitted {
            job,
            reply,
            at: Instant::now(),
            awaits: None,
        };
        match self.inbox.send(Message::Job(submitted)) {
            Ok(()) => Ok(receiver),
            Err(_) => Err(Refused::Stopped),
        }
    }

    pub fn shape(&self) -> Shape {
        self.shared.shape
    }

    pub fn busy(&self) -> Busy {
        self.shared.busy()
    }

    /// After the latest step.
    pub fn kept(&self) -> Kept {
        self.shared.kept()
    }

    /// Each sequence, after the latest step.
    pub fn sequences(&self) -> Vec<Sequence> {
        self.shared.sequences.read()
    }

    /// Where clients may save sequences; `None`: nowhere.
    pub fn slots(&self) -> Option<&Arc<Slots>> {
        self.slots.as_ref()
    }

    /// For those who look after the engine thread and give it nothing to do.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.shared)
    }

    /// Ends every job, running or waiting, with [`Failed::Stopped`], and then the engine thread.
    pub fn halt(&self) {
        self.watch().halt();
    }

    /// Gives the engine thread up: whoever waits for events is to wait no longer.
    pub fn give_up(&self) {
        self.watch().give_up();
    }

    /// Ends when the engine thread was given up.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.watch().lost()
    }

    /// Returns when the engine thread takes no more jobs: halted, or dead.
    pub async fn stopped(&self) {
        self.inbox.closed().await;
    }
}

//! The border between the rest of the program and the one thread that owns model and context.
//!
//! A [`Job`] goes in, [`Event`]s come back, and exactly one [`Event::End`] closes every job.
//! Dropping the receiver of the events is the only way to cancel. Models that embed or rank have a border of their
//! own in [`embed`].

mod budget;
pub mod constrain;
pub mod embed;
pub(crate) mod enough;
pub mod fake;
pub mod fit;
pub mod gguf;
pub mod llama;
pub(crate) mod lookup;
pub mod media;
pub mod model;
pub(crate) mod pace;
pub(crate) mod plan;
pub(crate) mod prefix;
mod pulse;
pub(crate) mod queue;
mod reply;
pub mod sample;
pub(crate) mod sequences;
pub(crate) mod slot;
pub(crate) mod store;
mod tally;
pub mod task;
pub(crate) mod text;
pub mod threads;
pub mod vision;
mod watch;
pub(crate) mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub use budget::Budget;
pub use enough::Enough;
pub use pulse::Pulse;
use reply::Place;
pub(crate) use reply::Reply;
pub use sample::{Gbnf, Grammar, Sampling, Trigger};
pub use sequences::Sequence;
pub use tally::Done;
use tally::Tally;
pub use watch::Watch;

/// A token id of the model's vocabulary.
pub type Token = i32;

/// One admitted request: everything the engine needs to answer it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Not empty, shorter than the context, every id inside the vocabulary or a placeholder of `media`.
    pub prompt: Vec<Token>,
    /// The images behind the prompt's placeholders, as [`media::Prompt`] puts them there.
    pub media: Vec<media::Placed>,
    /// Most tokens to generate; cut to what is left of the context.
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub grammar: Option<Grammar>,
    /// Texts that end generation; they are not part of the answer.
    pub stop: Vec<String>,
    /// What else ends generation.
    pub enough: Enough,
    /// Tokens that end generation beside the model's own.
    pub stop_tokens: Vec<Token>,
    /// What the answer may well be: a guess that costs nothing but time if it is wrong.
    pub prediction: Vec<Token>,
    /// Control tokens whose text is part of the answer (tool-call markers and such).
    pub visible: Vec<Token>,
    /// Go on after the model's end-of-generation tokens.
    pub ignore_eos: bool,
    /// Report log-probabilities, with this many alternatives (0–20) for each token.
    pub logprobs: Option<u8>,
    /// Whose cached prefixes may be reused: requests of different tenants never share. `None`: nobody's, and
    /// nobody may reuse this one's.
    pub tenant: Option<u64>,
    pub claimant: Claimant,
    /// How long the job may wait for a free sequence.
    pub queue_wait: Duration,
    /// How long the job may run once it has a sequence.
    pub deadline: Duration,
}

/// Whose a job is: waiting jobs of different keys have their turns in proportion to their shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    pub key: u64,
    /// Of the turns, measured by those of others; at least 1.
    pub share: u32,
    /// Jobs of this key that may wait at once.
    pub places: u32,
}

impl Default for Claimant {
    /// Everybody together.
    fn default() -> Self {
        Self {
            key: 0,
            share: 1,
            places: u32::MAX,
        }
    }
}

/// What a job tells its caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The job has a sequence.
    Started {
        /// Of its prompt, already in the cache.
        cached_tokens: u32,
        /// From submission to the sequence.
        queued: Duration,
    },
    /// Text that will not change any more, and the tokens it came from.
    Text(Piece),
    /// Always the last event, always exactly once.
    End(Result<Finished, Failed>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// Whole UTF-8; may be empty when only token counts moved.
    pub text: String,
    /// Filled only when the job asked for `logprobs`; their bytes joined are `text`.
    pub tokens: Vec<Scored>,
    /// Tokens generated so far, this piece included.
    pub completion_tokens: u32,
}

/// A generated token with its log-probability before any sampler changed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub token: Token,
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// The most likely alternatives, best first (the chosen token may be among them).
    pub top: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    pub token: Token,
    pub bytes: Vec<u8>,
    pub logprob: f32,
}

/// How a job ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub reason: Finish,
    pub usage: Usage,
    pub times: Times,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer.
    Eos,
    /// This stop string appeared.
    StopString(String),
    /// `max_tokens` or the context was reached.
    Length,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub completion_tokens: u32,
    /// Guessed tokens that were computed ahead, and came true or not.
    pub accepted_tokens: u32,
    pub rejected_tokens: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// From submission to a free sequence.
    pub queued: Duration,
    /// From the sequence to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// How a job that was accepted ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    #[error("no sequence became free within {0:?}")]
    QueueWait(Duration),
    /// As many jobs of the same key wait already as its share of the queue holds.
    #[error("{0} requests of this key are waiting already")]
    Share(u32),
    #[error("the request ran longer than {0:?}")]
    Deadline(Duration),
    /// The grammar or a sampler setting was refused by the engine: the request's own fault.
    #[error("{0}")]
    Unacceptable(String),
    #[error("decoding failed: {0}")]
    Decode(String),
    #[error("the server is shutting down")]
    Stopped,
}

/// Why a job was not accepted at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the queue is full")]
    Full {
        queued: u32,
        /// When those who wait now will have had their turn, by the latest completions; `None`: nothing is known yet.
        wait: Option<Duration>,
    },
    #[error("the server is shutting down")]
    Stopped,
    #[error("the prompt is empty")]
    Empty,
    #[error("the prompt has {prompt} tokens, the context holds {context}")]
    TooLong { prompt: usize, context: u32 },
    #[error("token {0} is not in the vocabulary")]
    BadToken(Token),
}

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
    /// The same request gets the same bits, whatever runs beside it or is cached.
    pub reproducible: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            queue: 0,
            max_gap: None,
            cache_bytes: 0,
            checkpoint_every: 1024,
            lookup: false,
            reproducible: false,
        }
    }
}

/// A cheap handle to the engine thread. The thread ends when the last one is dropped, or by [`Engine::halt`].
#[derive(Clone)]
pub struct Engine {
    inbox: mpsc::UnboundedSender<Submitted>,
    shared: Arc<Shared>,
}

/// A job on its way to the engine thread.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) job: Job,
    pub(crate) reply: Reply,
    pub(crate) at: Instant,
}

/// What both sides of the border may look at.
pub(crate) struct Shared {
    shape: Shape,
    pulse: Arc<Pulse>,
    /// Jobs accepted and not ended.
    held: Arc<AtomicU32>,
    running: AtomicU32,
    kept_tokens: AtomicU32,
    kept_bytes: AtomicU64,
    pub(crate) sequences: sequences::Gauges,
    kept_aside: AtomicU32,
    tally: Tally,
    /// Jobs ended so far, however; wraps.
    ended: Arc<AtomicU32>,
    /// Microseconds from one end to the next, by the latest; 0: unknown.
    completion_interval: AtomicU64,
    /// Cancelled: finish nothing more, end every job with [`Failed::Stopped`].
    halt: CancellationToken,
    /// Cancelled: the thread hangs inside llama.cpp and will end nothing itself.
    lost: CancellationToken,
}

impl Shared {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            pulse: Arc::new(Pulse::new()),
            held: Arc::new(AtomicU32::new(0)),
            running: AtomicU32::new(0),
            kept_tokens: AtomicU32::new(0),
            kept_bytes: AtomicU64::new(0),
            sequences: sequences::Gauges::new(shape.sequences),
            kept_aside: AtomicU32::new(0),
            tally: Tally::default(),
            ended: Arc::new(AtomicU32::new(0)),
            completion_interval: AtomicU64::new(0),
            halt: CancellationToken::new(),
            lost: CancellationToken::new(),
        }
    }

    fn busy(&self) -> Busy {
        let held = self.held.load(Ordering::Relaxed);
        let running = self.running.load(Ordering::Relaxed).min(held);
        Busy {
            queued: held - running,
            running,
        }
    }

    fn kept(&self) -> Kept {
        Kept {
            tokens: self.kept_tokens.load(Ordering::Relaxed),
            bytes: self.kept_bytes.load(Ordering::Relaxed),
            aside: self.kept_aside.load(Ordering::Relaxed),
        }
    }

    /// A place for one more job, if it may run or wait.
    fn place(&self) -> Result<Place, Refused> {
        let Shape {
            queue, sequences, ..
        } = self.shape;
        Place::take(&self.held, &self.ended, queue.saturating_add(sequences)).map_err(|held| {
            let queued = held.saturating_sub(sequences);
            Refused::Full {
                queued,
                wait: self.wait(queued),
            }
        })
    }

    pub(crate) fn set_completion_interval(&self, interval: Duration) {
        let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        self.completion_interval.store(micros, Ordering::Relaxed);
    }

    /// When `queued` jobs will have had their turn.
    fn wait(&self, queued: u32) -> Option<Duration> {
        match self.completion_interval.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros).saturating_mul(queued.max(1))),
        }
    }
}

/// Starts the engine thread. `build` runs on it, because llama.cpp's worker team belongs to the thread
/// that decodes; this returns once the model is built.
pub fn start<M: model::Model, E: Send + 'static>(
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
        }));
        let engine = Engine {
            inbox,
            shared: Arc::clone(&shared),
        };
        if first.send(Ok(engine)).is_ok() {
            worker::Worker::new(model, tuning, arrivals, shared).run();
        }
    })
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
        };
        match self.inbox.send(submitted) {
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

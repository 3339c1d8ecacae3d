//! The border between the rest of the program and the one thread that owns model and context.
//!
//! A [`Job`] goes in, [`Event`]s come back, and exactly one [`Event::End`] closes every job.
//! Dropping the receiver of the events is the only way to cancel.

pub mod fake;
pub mod gguf;
pub mod llama;
pub mod model;
pub(crate) mod plan;
pub mod sample;
pub(crate) mod slot;
pub(crate) mod text;
pub(crate) mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use sample::{Grammar, Sampling, Trigger};

/// A token id of the model's vocabulary.
pub type Token = i32;

/// One admitted request: everything the engine needs to answer it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Not empty, shorter than the context, every id inside the vocabulary.
    pub prompt: Vec<Token>,
    /// Most tokens to generate; cut to what is left of the context.
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub grammar: Option<Grammar>,
    /// Texts that end generation; they are not part of the answer.
    pub stop: Vec<String>,
    /// Control tokens whose text is part of the answer (tool-call markers and such).
    pub visible: Vec<Token>,
    /// Go on after the model's end-of-generation tokens.
    pub ignore_eos: bool,
    /// Report log-probabilities, with this many alternatives (0–20) for each token.
    pub logprobs: Option<u8>,
    /// Whose cached prefixes may be reused: requests of different tenants never share.
    pub tenant: u64,
    /// How long the job may wait for a free sequence.
    pub queue_wait: Duration,
    /// How long the job may run once it has a sequence.
    pub deadline: Duration,
}

/// What a job tells its caller.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The job has a sequence; this many tokens of its prompt were already in the cache.
    Started { cached_tokens: u32 },
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
    Full { queued: u32 },
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
}

/// How busy the engine is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Busy {
    pub queued: u32,
    pub running: u32,
}

/// A cheap handle to the engine thread.
#[derive(Clone)]
pub struct Engine {
    inbox: mpsc::Sender<Submitted>,
    shared: Arc<Shared>,
}

/// A job on its way to the engine thread.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) job: Job,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) at: Instant,
}

/// What both sides of the border may look at.
pub(crate) struct Shared {
    pub(crate) shape: Shape,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) queued: AtomicU32,
    pub(crate) running: AtomicU32,
    /// Cancelled: finish nothing more, end every job with [`Failed::Stopped`].
    pub(crate) halt: CancellationToken,
}

/// Starts the engine thread. `build` runs on it, so that the context belongs to the thread that decodes;
/// this returns once the model is built. `queue`: jobs that may wait.
pub fn start<M: model::Model, E: Send + 'static>(
    _queue: u32,
    _build: impl FnOnce() -> Result<M, E> + Send + 'static,
) -> Result<(Engine, std::thread::JoinHandle<()>), E> {
    todo!()
}

impl Engine {
    /// Queues a job and returns its events. Dropping the receiver cancels the job.
    pub fn submit(&self, _job: Job) -> Result<mpsc::UnboundedReceiver<Event>, Refused> {
        todo!()
    }

    pub fn shape(&self) -> Shape {
        self.shared.shape
    }

    pub fn busy(&self) -> Busy {
        Busy {
            queued: self.shared.queued.load(Ordering::Relaxed),
            running: self.shared.running.load(Ordering::Relaxed),
        }
    }

    /// The engine's sign of life. Holding it does not keep the engine alive.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.shared.pulse)
    }

    /// Ends every job, running or waiting, with [`Failed::Stopped`], within one step.
    pub fn halt(&self) {
        self.shared.halt.cancel();
    }
}

/// When the current step began, readable from any thread.
pub struct Pulse {
    start: Instant,
    /// Microseconds after `start`, or [`WAITING`].
    step_began: AtomicU64,
    steps: AtomicU64,
}

const WAITING: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            step_began: AtomicU64::new(WAITING),
            steps: AtomicU64::new(0),
        }
    }

    pub(crate) fn waiting(&self) {
        self.step_began.store(WAITING, Ordering::Relaxed);
    }

    pub(crate) fn stepping(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(WAITING - 1);
        self.step_began.store(now, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the engine has been inside one step; zero while it waits for work.
    pub fn step_age(&self) -> Duration {
        match self.step_began.load(Ordering::Relaxed) {
            WAITING => Duration::ZERO,
            began => self
                .start
                .elapsed()
                .saturating_sub(Duration::from_micros(began)),
        }
    }

    /// Steps begun since the start.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

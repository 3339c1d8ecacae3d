//! The border to the thread that owns a model which reads texts: tokens go in, vectors or scores come out.
//!
//! A [`Job`] is all texts of one request. It ends exactly once, and dropping the receiver is the only way to cancel.

pub mod fake;
mod pairing;
mod turns;
mod worker;

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

pub use self::pairing::Pairing;
use super::{
    Busy, Failed, Shape, Shared, Times, Token, Watch, model::DecodeError, reply::Place, spawn,
    task::Pooling,
};

/// The texts of one request.
#[derive(Debug, Clone)]
pub struct Job {
    /// None of them empty or longer than [`Facts::longest`], every id inside the vocabulary.
    pub texts: Vec<Vec<Token>>,
    /// How long the job may wait for its first turn.
    pub queue_wait: Duration,
    /// How long the job may take from then on.
    pub deadline: Duration,
}

/// What one text came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// [`Facts::width`] numbers: a vector, not normalised, or scores.
    Pooled(Vec<f32>),
    /// A vector for each token.
    Tokens(Vec<Vec<f32>>),
}

/// How a job ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One for each text, in their order.
    pub outputs: Vec<Output>,
    /// Tokens of all texts.
    pub tokens: u32,
    /// `decode` is zero.
    pub times: Times,
}

/// Why a job was not accepted at all. `text`: position of the text to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Busy(super::Refused),
    #[error("there is no text")]
    Nothing,
    #[error("text {text} has no tokens")]
    Empty { text: usize },
    #[error("text {text} has {tokens} tokens, and {longest} is the most")]
    TooLong {
        text: usize,
        tokens: usize,
        longest: u32,
    },
    #[error("token {token} of text {text} is not in the vocabulary")]
    BadToken { text: usize, token: Token },
}

/// What an encoder can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub pooling: Pooling,
    /// Tokens of the longest text that is read.
    pub longest: u32,
    /// The setting that would have to be larger for longer ones; `None`: the model reads no longer ones.
    pub limit: Option<&'static str>,
    /// Numbers of one pooled output.
    pub width: u32,
    pub vocab: u32,
    /// Most texts of a step.
    pub texts: u32,
    /// Tokens of a step at which no further text is added; a single text may be longer.
    pub rows: u32,
}

/// The device behind the thread.
pub trait Encoder: 'static {
    fn facts(&self) -> Facts;
    /// Reads all texts or none, each by itself. At most [`Facts::texts`], together at most [`Facts::rows`] tokens, or a
    /// single text. `abandoned` is asked now and then whether anybody still waits.
    fn encode(
        &mut self,
        texts: &[&[Token]],
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Output>, DecodeError>;
    /// Makes the encoder usable again after [`DecodeError::Broken`].
    fn reset(&mut self) -> Result<(), DecodeError>;
}

/// A cheap handle to the thread, which ends when the last one is dropped or by [`Watch::halt`].
#[derive(Clone)]
pub struct Engine {
    inbox: mpsc::UnboundedSender<Submitted>,
    shared: Arc<Shared>,
    facts: Facts,
}

pub(super) struct Submitted {
    job: Job,
    reply: Reply,
    at: Instant,
}

/// Where a job's end goes, and the place that it holds until then. Ends the job at the latest when it is dropped.
struct Reply {
    open: Option<(oneshot::Sender<Result<Encoded, Failed>>, Place)>,
}

impl Reply {
    fn end(mut self, outcome: Result<Encoded, Failed>) {
        self.close(outcome);
    }

    fn is_abandoned(&self) -> bool {
        self.open.as_ref().is_none_or(|(end, _)| end.is_closed())
    }

    fn close(&mut self, outcome: Result<Encoded, Failed>) {
        if let Some((end, place)) = self.open.take() {
            // First the place, so that a caller who sees the end can submit again.
            drop(place);
            let _ = end.send(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.close(Err(Failed::Stopped));
    }
}

/// Starts the thread. `build` runs on it, because llama.cpp's worker team belongs to the thread that decodes; this
/// returns once the encoder is built. `queue`: jobs that may wait.
pub fn start<M: Encoder, E: Send + 'static>(
    queue: u32,
    build: impl FnOnce() -> Result<M, E> + Send + 'static,
) -> Result<(Engine, JoinHandle<()>), E> {
    spawn("engine", move |first| {
        let encoder = match build() {
            Ok(encoder) => encoder,
            Err(error) => return drop(first.send(Err(error))),
        };
        let facts = encoder.facts();
        let (inbox, arrivals) = mpsc::unbounded_channel(); // bounded by `held`
        let shared = Arc::new(Shared::new(Shape {
            context: facts.longest,
            sequences: facts.texts,
            vocab: facts.vocab,
            queue,
            cache_bytes: 0,
            shifts: false,
        }));
        let engine = Engine {
            inbox,
            shared: Arc::clone(&shared),
            facts,
        };
        if first.send(Ok(engine)).is_ok() {
            worker::Worker::new(encoder, arrivals, shared).run();
        }
    })
}

impl Engine {
    /// Queues a job and returns its end. Dropping the receiver cancels the job.
    pub fn submit(&self, job: Job) -> Result<oneshot::Receiver<Result<Encoded, Failed>>, Refused> {
        self.check(&job.texts)?;
        if self.shared.halt.is_cancelled() {
            return Err(Refused::Busy(super::Refused::Stopped));
        }
        let place = self.shared.place().map_err(Refused::Busy)?;
        let (end, receiver) = oneshot::channel();
        let reply = Reply {
            open: Some((end, place)),
        };
        let submitted = Submitted {
            job,
            reply,
            at: Instant::now(),
        };
        match self.inbox.send(submitted) {
            Ok(()) => Ok(receiver),
            Err(_) => Err(Refused::Busy(super::Refused::Stopped)),
        }
    }

    fn check(&self, texts: &[Vec<Token>]) -> Result<(), Refused> {
        if texts.is_empty() {
            return Err(Refused::Nothing);
        }
        let Facts { longest, vocab, .. } = self.facts;
        for (text, tokens) in texts.iter().enumerate() {
            if tokens.is_empty() {
                return Err(Refused::Empty { text });
            }
            if tokens.len() > longest as usize {
                return Err(Refused::TooLong {
                    text,
                    tokens: tokens.len(),
                    longest,
                });
            }
            let outside = |token: &&Token| u32::try_from(**token).map_or(true, |id| id >= vocab);
            if let Some(&token) = tokens.iter().find(outside) {
                return Err(Refused::BadToken { text, token });
            }
        }
        Ok(())
    }

    pub fn facts(&self) -> Facts {
        self.facts
    }

    pub fn busy(&self) -> Busy {
        self.shared.busy()
    }

    /// For those who look after the thread and give it nothing to do.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.shared)
    }
}

/// The vector with the same direction and length 1; zeros stay zeros.
pub fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let sum: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    if sum > 0.0 {
        let length = sum.sqrt();
        for x in &mut vector {
            #[expect(clippy::cast_possible_truncation, reason = "back to what it came from")]
            {
                *x = (f64::from(*x) / length) as f32;
            }
        }
    }
    vector
}

#[cfg(test)]
mod tests;

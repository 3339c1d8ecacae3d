//! What a client asks of one sequence apart from an answer: a copy of its state, another state, nothing any more.

use tokio::sync::oneshot;

use super::Saved;
use crate::engine::{Engine, Message};

/// Done between two steps, as soon as no job has the sequence.
pub(crate) struct Errand {
    pub(crate) sequence: u32,
    /// Whose state may be seen, and whose the new one is.
    pub(crate) tenant: u64,
    pub(crate) act: Act,
}

/// What to do, and who waits for it. Whoever goes away wants it no more.
pub(crate) enum Act {
    Copy(Reply<Saved>),
    Put(Saved, Reply<u32>),
    Forget(Reply<u32>),
}

type Reply<T> = oneshot::Sender<Result<T, NotDone>>;

/// Why an errand came to nothing; the sequence is as it was, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    #[error("there is no sequence {sequence}; expected 0–{last}")]
    NoSequence { sequence: u32, last: u32 },
    #[error("sequence {0} holds nothing of this API key's")]
    NotTheirs(u32),
    #[error("it holds {tokens} tokens, the context {context}")]
    TooLong { tokens: usize, context: u32 },
    #[error("the engine could not give the sequence's state")]
    NotGiven,
    /// What was there is in host memory, if it may be kept.
    #[error("the engine did not take the state; the sequence is empty now")]
    NotTaken,
    #[error("the server is shutting down")]
    Stopped,
}

impl Errand {
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.act {
            Act::Copy(reply) => reply.is_closed(),
            Act::Put(_, reply) | Act::Forget(reply) => reply.is_closed(),
        }
    }

    pub(crate) fn refuse(self, why: NotDone) {
        match self.act {
            Act::Copy(reply) => drop(reply.send(Err(why))),
            Act::Put(_, reply) | Act::Forget(reply) => drop(reply.send(Err(why))),
        }
    }
}

impl Engine {
    /// A copy of what the sequence holds, once no job has it.
    pub async fn copy(&self, sequence: u32, tenant: u64) -> Result<Saved, NotDone> {
        self.ask(sequence, tenant, Act::Copy).await
    }

    /// Puts a state in place of what the sequence holds, once no job has it. Gives its tokens.
    pub async fn put(&self, sequence: u32, tenant: u64, saved: Saved) -> Result<u32, NotDone> {
        self.ask(sequence, tenant, |reply| Act::Put(saved, reply))
            .await
    }

    /// Forgets what the sequence holds, once no job has it, and every copy of a beginning of that. Gives its tokens.
    pub async fn forget(&self, sequence: u32, tenant: u64) -> Result<u32, NotDone> {
        self.ask(sequence, tenant, Act::Forget).await
    }

    async fn ask<T>(
        &self,
        sequence: u32,
        tenant: u64,
        act: impl FnOnce(Reply<T>) -> Act,
    ) -> Result<T, NotDone> {
        let last = self.shape().sequences.saturating_sub(1);
        if sequence > last {
            return Err(NotDone::NoSequence { sequence, last });
        }
        let (reply, answer) = oneshot::channel();
        let errand = Errand {
            sequence,
            tenant,
            act: act(reply),
        };
        self.inbox
            .send(Message::Errand(errand))
            .map_err(|_| NotDone::Stopped)?;
        answer.await.unwrap_or(Err(NotDone::Stopped))
    }
}

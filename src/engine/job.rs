//! What crosses the border to the engine: a request on its way in, and what it comes to.

use std::time::Duration;

use super::{Adapters, Enough, Grammar, Sampling, Shift, Token, media};

/// One admitted request: everything the engine needs to answer it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Not empty, shorter than the context, every id inside the vocabulary or a placeholder of `media`.
    pub prompt: Vec<Token>,
    /// The images behind the prompt's placeholders, as [`media::Prompt`] puts them there.
    pub media: Vec<media::Placed>,
    /// Most tokens to generate; cut to what is left of the context, unless that shifts.
    pub max_tokens: u32,
    /// How to go on when the context is full; `None`: the job ends. One with images does in any case.
    pub shift: Option<Shift>,
    /// Tokens that its prompt has lost already, because it was too long.
    pub forgotten: u32,
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
    /// Report those of the prompt's tokens as well; needs `logprobs`, a prompt of text alone, and no `tenant`, since what is
    /// cached has none.
    pub score_prompt: bool,
    /// Tokens of the answer before any that ends it, and before stop strings are looked for. A grammar that allows nothing
    /// else ends it all the same.
    pub min_tokens: u32,
    /// Whose cached prefixes may be reused: requests of different tenants never share. `None`: nobody's, and
    /// nobody may reuse this one's.
    pub tenant: Option<u64>,
    /// Which LoRA adapters it is computed with.
    pub adapters: Adapters,
    pub claimant: Claimant,
    /// How long the job may wait for a free sequence.
    pub queue_wait: Duration,
    /// How long the job may run once it has a sequence.
    pub deadline: Duration,
}

impl Job {
    /// Tokens of the prompt as it was asked.
    pub fn asked(&self) -> usize {
        self.prompt.len() + self.forgotten as usize
    }

    /// Whose what it computes is: of its tenant, and of what has the same adapters.
    pub(crate) fn owner(&self) -> Option<u64> {
        self.tenant.map(|tenant| self.adapters.owner(tenant))
    }
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
    /// The prompt's tokens after its first, in order, over as many events as it takes: all come before any text.
    Prompt(Vec<Scored>),
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

/// A token with its log-probability before any sampler changed it.
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
    /// The token that ended the answer and is no part of it, when log-probabilities are reported.
    pub last: Option<Scored>,
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
    /// Tokens of prompt and answer that were forgotten because the context was full.
    pub forgotten_tokens: u32,
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

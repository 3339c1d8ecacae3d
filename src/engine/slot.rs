//! One sequence: the tokens in its cache, and the job that uses it now.

use std::time::{Duration, Instant};

use super::{
    Event, Failed, Finish, Finished, Job, Piece, Reply, Submitted, Times, Token, Usage,
    model::{Row, Sampled, Vocab},
    text::{Released, Text},
};

/// One sequence of the model's cache.
pub(crate) struct Slot<S> {
    pub(crate) sequence: u32,
    /// Tokens of the sequence; those before `computed` are in the cache.
    pub(crate) tokens: Vec<Token>,
    pub(crate) computed: usize,
    /// Whose tokens these are.
    tenant: u64,
    last_used: Instant,
    pub(crate) active: Option<Active<S>>,
}

/// A job that has a sequence.
pub(crate) struct Active<S> {
    pub(crate) job: Job,
    pub(crate) sampler: S,
    reply: Reply,
    text: Text,
    cached: usize,
    generated: u32,
    submitted: Instant,
    started: Instant,
    first_token: Option<Instant>,
}

impl<S> Slot<S> {
    pub(crate) fn new(sequence: u32) -> Self {
        Self {
            sequence,
            tokens: Vec::new(),
            computed: 0,
            tenant: 0,
            last_used: Instant::now(),
            active: None,
        }
    }

    /// How many tokens of the prompt the cache already holds; the last one is always computed again,
    /// because its logits are needed.
    pub(crate) fn shared_prefix(&self, job: &Job) -> usize {
        if self.tenant != job.tenant {
            return 0;
        }
        let most = self.computed.min(job.prompt.len() - 1);
        let same = self.tokens.iter().zip(&job.prompt).take(most);
        same.take_while(|(a, b)| a == b).count()
    }

    /// Order of preference for a new job: most of its prompt, provided that this is much of the prompt or
    /// much of what the cache holds (a common greeting is no reason to give up somebody's long history);
    /// else an empty or the longest unused sequence.
    pub(crate) fn preference(&self, job: &Job) -> (usize, bool, Duration) {
        let shared = self.shared_prefix(job);
        let worth = shared * 2 >= self.computed.min(job.prompt.len());
        (
            if worth { shared } else { 0 },
            self.computed == 0,
            self.last_used.elapsed(),
        )
    }

    /// Gives the sequence to a job, of whose prompt the first `cached` tokens are in the cache.
    pub(crate) fn start(&mut self, submitted: Submitted, sampler: S, cached: usize) {
        let Submitted { job, reply, at } = submitted;
        self.tokens.clear();
        self.tokens.extend_from_slice(&job.prompt);
        self.computed = cached;
        self.tenant = job.tenant;
        reply.send(Event::Started {
            cached_tokens: small(cached),
        });
        self.active = Some(Active {
            text: Text::new(&job.stop),
            sampler,
            reply,
            cached,
            generated: 0,
            submitted: at,
            started: Instant::now(),
            first_token: None,
            job,
        });
    }

    /// The next `count` rows to compute; the row of the last known token asks for logits.
    pub(crate) fn rows(&self, count: usize) -> impl Iterator<Item = Row> {
        let last = self.tokens.len() - 1;
        (self.computed..self.computed + count).map(move |at| Row {
            token: self.tokens[at],
            position: small(at),
            sequence: self.sequence,
            logits: at == last,
        })
    }

    /// Tokens that must be computed before the next one can be sampled.
    pub(crate) fn wanted(&self) -> u32 {
        if self.active.is_some() {
            small(self.tokens.len() - self.computed)
        } else {
            0
        }
    }

    /// Takes a sampled token. Ends the job when it was the last one.
    pub(crate) fn take(&mut self, sampled: &Sampled, vocab: &dyn Vocab, context: u32) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.first_token.get_or_insert_with(Instant::now);
        active.generated += 1;
        let ends = !active.job.ignore_eos && vocab.is_eog(sampled.token);
        let mut bytes = Vec::new();
        if !ends {
            let special = active.job.visible.contains(&sampled.token);
            vocab.piece(sampled.token, special, &mut bytes);
        }
        let scored = active
            .job
            .logprobs
            .and_then(|_| scored(sampled, &bytes, vocab));
        if ends {
            return self.finish(Finish::Eos);
        }
        let released = active.text.push(&bytes, scored);
        let stop = released.stop.clone();
        active.send(released);
        self.tokens.push(sampled.token);
        if let Some(stop) = stop {
            self.finish(Finish::StopString(stop));
        } else if active.generated >= active.job.max_tokens || self.tokens.len() >= context as usize
        {
            self.finish(Finish::Length);
        }
    }

    /// Ends the job well and frees the sequence; its cache stays for the next one.
    pub(crate) fn finish(&mut self, reason: Finish) {
        let Some(mut active) = self.free() else {
            return;
        };
        let rest = active.text.finish();
        // After a stop string nothing is left; after the end of the answer held text is part of it.
        active.send(rest);
        let now = Instant::now();
        let first = active.first_token.unwrap_or(now);
        let finished = Finished {
            reason,
            usage: Usage {
                prompt_tokens: small(active.job.prompt.len()),
                cached_tokens: small(active.cached),
                completion_tokens: active.generated,
            },
            times: Times {
                queued: active.started - active.submitted,
                prefill: first - active.started,
                decode: now - first,
            },
        };
        active.reply.end(Ok(finished));
    }

    /// Ends the job badly and frees the sequence.
    pub(crate) fn fail(&mut self, why: Failed) {
        if let Some(active) = self.free() {
            active.reply.end(Err(why));
        }
    }

    /// Frees the sequence of a job whose caller went away.
    pub(crate) fn free(&mut self) -> Option<Active<S>> {
        self.last_used = Instant::now();
        self.tokens.truncate(self.computed);
        self.active.take()
    }

    /// The cache of this sequence is gone; a running job computes its tokens again.
    pub(crate) fn forget(&mut self) {
        self.computed = 0;
        if self.active.is_none() {
            self.tokens.clear();
        }
    }
}

impl<S> Active<S> {
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.started.elapsed() > self.job.deadline
    }

    fn send(&mut self, released: Released) {
        if released.text.is_empty() && released.scored.is_empty() {
            return;
        }
        self.reply.send(Event::Text(Piece {
            text: released.text,
            tokens: released.scored,
            completion_tokens: self.generated,
        }));
    }
}

fn scored(sampled: &Sampled, bytes: &[u8], vocab: &dyn Vocab) -> Option<super::Scored> {
    let (logprob, top) = sampled.scores.as_ref()?;
    let spell = |token| {
        let mut bytes = Vec::new();
        vocab.piece(token, true, &mut bytes);
        bytes
    };
    Some(super::Scored {
        token: sampled.token,
        bytes: bytes.to_vec(),
        logprob: *logprob,
        top: top
            .iter()
            .map(|&(token, logprob)| super::Alternative {
                token,
                bytes: spell(token),
                logprob,
            })
            .collect(),
    })
}

/// Token counts fit: the context is at most `u32::MAX` tokens.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

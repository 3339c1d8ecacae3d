//! One sequence: the tokens in its cache, and the job that uses it now.

mod answer;
mod work;

use std::{ops::Range, time::Instant};

use super::{
    Event, Job, Reply, Scored, Sequence, Submitted, Token, enough::Lines, lookup::Lookup,
    odds::Odds, prefix::Prefix, text::Text,
};
pub(super) use answer::not_finite;

/// One sequence of the model's cache.
pub(crate) struct Slot<S> {
    pub(crate) sequence: u32,
    /// What the cache holds.
    pub(crate) prefix: Prefix,
    /// The number of the job that had the sequence last.
    pub(crate) admission: u64,
    last_used: Instant,
    pub(crate) active: Option<Active<S>>,
}

/// A job that has a sequence.
pub(crate) struct Active<S> {
    pub(crate) job: Job,
    pub(crate) sampler: S,
    /// The prompt and what was generated.
    pub(crate) tokens: Vec<Token>,
    /// Tokens that may come next, computed together with the last known one.
    pub(crate) guesses: Vec<Token>,
    pub(crate) lookup: Option<Lookup>,
    /// How well the drafter has done; `None`: it is not asked.
    pub(crate) drafted: Option<Odds>,
    /// Guesses that the drafter was asked for in this step; 0: those there are are the lookup's.
    pub(crate) asked: usize,
    /// Places inside the prompt, rising, at which a step ends so that the state there can be kept.
    pub(crate) borders: Vec<usize>,
    /// Another sequence that computes the same beginning just now.
    pub(crate) follows: Option<Follow>,
    reply: Reply,
    text: Text,
    lines: Lines,
    /// Tokens of the prompt that need not be computed; `None`: not known yet.
    cached: Option<usize>,
    generated: u32,
    /// Tokens of the prompt as it came.
    prompt_tokens: u32,
    /// Tokens that were forgotten because the context was full.
    forgotten: u32,
    /// Tokens of the prompt that were scored.
    scored: usize,
    /// The token that ended the answer.
    last: Option<Scored>,
    pub(crate) drafts: Drafts,
    submitted: Instant,
    started: Instant,
    first_token: Option<Instant>,
}

/// Who computes the beginning of a prompt, and how much of it is the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follow {
    pub(crate) slot: usize,
    pub(crate) admission: u64,
    pub(crate) common: usize,
}

/// Guesses that were computed, and those that came true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drafts {
    pub(crate) made: u32,
    pub(crate) accepted: u32,
}

impl<S> Slot<S> {
    pub(crate) fn new(sequence: u32) -> Self {
        Self {
            sequence,
            prefix: Prefix::default(),
            admission: 0,
            last_used: Instant::now(),
            active: None,
        }
    }

    pub(crate) fn computed(&self) -> usize {
        self.prefix.tokens.len()
    }

    pub(crate) fn state(&self, context: u32) -> Sequence {
        let kept = small(self.computed());
        let Some(active) = &self.active else {
            return Sequence {
                kept,
                ..Sequence::default()
            };
        };
        Sequence {
            running: true,
            kept,
            prompt: active.prompt_tokens,
            cached: small(active.cached.unwrap_or(0)),
            generated: active.generated,
            left: small(active.left(context as usize)),
        }
    }

    /// When the sequence was given up; `None`: it holds nothing.
    pub(crate) fn last_used(&self) -> Option<Instant> {
        (self.computed() > 0).then_some(self.last_used)
    }

    /// What it holds is as good as used now.
    pub(crate) fn touch(&mut self) {
        self.last_used = Instant::now();
    }

    /// Gives the sequence to a job. Its cache holds a beginning of the prompt, or nothing that matters.
    pub(crate) fn start(&mut self, submitted: Submitted, sampler: S, admission: u64) {
        let Submitted { job, reply, at, .. } = submitted;
        self.prefix.tenant = job.owner();
        self.admission = admission;
        self.active = Some(Active {
            tokens: job.prompt.clone(),
            guesses: Vec::new(),
            lookup: None,
            drafted: None,
            asked: 0,
            borders: Vec::new(),
            follows: None,
            text: Text::new(&job.stop).after(job.min_tokens),
            lines: Lines::new(job.enough),
            sampler,
            reply,
            cached: None,
            generated: 0,
            prompt_tokens: small(job.prompt.len()),
            forgotten: job.forgotten,
            scored: 0,
            last: None,
            drafts: Drafts::default(),
            submitted: at,
            started: Instant::now(),
            first_token: None,
            job,
        });
    }

    /// What is in the cache now is all that need not be computed. Gives how much of how long a prompt that is, if the
    /// job begins only now.
    pub(crate) fn begin(&mut self) -> Option<(usize, usize)> {
        let computed = self.computed();
        let active = self.active.as_mut()?;
        if active.cached.is_some() {
            return None;
        }
        active.cached = Some(computed);
        active.reply.send(Event::Started {
            cached_tokens: small(computed),
            queued: active.started - active.submitted,
        });
        Some((computed, active.job.prompt.len()))
    }

    /// The device computed `count` known tokens.
    pub(crate) fn advance(&mut self, count: usize, grid: usize) {
        let Some(active) = &self.active else { return };
        let first = self.prefix.tokens.len();
        self.prefix
            .tokens
            .extend_from_slice(&active.tokens[first..first + count]);
        let computed = self.prefix.tokens.len();
        let prompt = active.job.prompt.len();
        // Generated tokens have other bits than those of a prompt.
        // What comes after forgotten tokens is not what a prompt would have there.
        let whole = active.forgotten == active.job.forgotten;
        if whole && (grid == 1 || computed <= prompt) {
            self.prefix.solid = computed;
        }
    }

    /// The tokens to forget before more can be computed.
    pub(crate) fn overflow(&self, context: usize) -> Option<Range<usize>> {
        let active = self.active.as_ref().filter(|active| active.shifts())?;
        if active.tokens.len() < context {
            return None;
        }
        let shift = active.job.shift?;
        let known = active.tokens.len() - 1;
        Some(shift.forgotten(known, active.job.prompt.len(), context))
    }

    /// Forgets tokens of the sequence, and of its job. What is left behind them is no beginning of any prompt.
    pub(crate) fn forget(&mut self, gone: Range<usize>) {
        let Some(active) = &mut self.active else {
            return;
        };
        let computed = self.prefix.tokens.len();
        if gone.end <= computed {
            self.prefix.tokens.drain(gone.clone());
            self.prefix.solid = self.prefix.solid.min(gone.start);
        } else {
            self.prefix.truncate(gone.start);
        }
        let prompt = &mut active.job.prompt;
        let end = gone.end.min(prompt.len());
        prompt.drain(gone.start.min(end)..end);
        active.job.adapters.shifted(gone.start);
        active.forgotten += small(gone.len());
        active.tokens.drain(gone);
        active.guesses.clear();
        if active.lookup.is_some() {
            active.lookup = Some(Lookup::new(&active.job.prediction, &active.tokens));
        }
    }

    /// Frees the sequence of a job whose caller went away.
    pub(crate) fn free(&mut self) -> Option<Active<S>> {
        self.last_used = Instant::now();
        self.active.take()
    }
}

impl<S> Active<S> {
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }

    /// Tokens that may still be generated.
    pub(crate) fn left(&self, context: usize) -> usize {
        let allowed = self.job.max_tokens - self.generated;
        (allowed as usize).min(context.saturating_sub(self.tokens.len()))
    }

    /// Whether it goes on when its context is full.
    fn shifts(&self) -> bool {
        self.job.shift.is_some() && self.job.media.is_empty()
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.started.elapsed() > self.job.deadline
    }
}

/// Token counts fit: the context is at most `u32::MAX` tokens.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

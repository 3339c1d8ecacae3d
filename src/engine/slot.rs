//! One sequence: the tokens in its cache, and the job that uses it now.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    Alternative, Event, Failed, Finish, Finished, Job, Piece, Reply, Scaled, Scored, Sequence, Set,
    Submitted, Times, Token, Usage,
    enough::Lines,
    lookup::Lookup,
    media::{self, Attention, ImageRows},
    model::{Row, Sampled, Scores, Vocab},
    odds::Odds,
    plan::Work,
    prefix::Prefix,
    text::{Released, Text},
};

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

/// More tokens than this at once are computed like a prompt, in turn with others.
const MOST_AT_ONCE: usize = 8;

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

    /// What is to be computed next; `None`: nothing, or it waits for another sequence. `grid` as in [`Cuts`].
    ///
    /// [`Cuts`]: super::prefix::Cuts
    pub(crate) fn work(&self, grid: usize) -> Option<Work> {
        let active = self.active.as_ref()?;
        let computed = self.computed();
        let pending = active.tokens.len() - computed;
        if active.follows.is_some() || pending == 0 {
            return None;
        }
        let prompt = active.job.prompt.len();
        if let Some(placed) = media::image_at(&active.job.media, computed) {
            return Some(Work::Image {
                left: small(placed.at + placed.image.rows() - computed),
                whole: placed.image.attention() == Attention::Whole,
                turn: self.admission,
            });
        }
        if self.is_scoring() {
            return Some(Work::Scored {
                left: small(prompt - computed),
                turn: self.admission,
            });
        }
        if computed >= prompt && grid > 1 {
            // One after the other, as they were computed when they were generated.
            return Some(Work::Decode {
                rows: 1,
                whole: true,
            });
        }
        if computed >= prompt && pending <= MOST_AT_ONCE {
            return Some(Work::Decode {
                rows: small(pending + active.guesses.len()),
                whole: !active.guesses.is_empty(),
            });
        }
        let mut end = active.tokens.len();
        if grid > 1 {
            end = (computed + grid - computed % grid).min(prompt);
        }
        if let Some(&border) = active.borders.iter().find(|&&border| border > computed) {
            end = end.min(border);
        }
        if let Some(image) = media::next_image(&active.job.media, computed) {
            end = end.min(image);
        }
        if let Some(border) = active.job.adapters.border(computed) {
            end = end.min(border);
        }
        Some(Work::Prefill {
            left: small(pending),
            until: small(end - computed),
            turn: self.admission,
        })
    }

    /// The adapters with which the next token is computed.
    pub(crate) fn adapters(&self) -> (Set, &[Scaled]) {
        let computed = self.computed();
        self.active.as_ref().map_or((Set::PLAIN, &[]), |active| {
            let adapters = &active.job.adapters;
            (adapters.set_at(computed), adapters.scaled_at(computed))
        })
    }

    /// Whether what is computed next is a prompt whose every token is wanted with its log-probability.
    pub(crate) fn is_scoring(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|it| it.job.score_prompt && self.computed() < it.job.prompt.len())
    }

    /// Takes what the rows of the prompt's tokens from `place` on say of the tokens after them.
    pub(crate) fn score(
        &mut self,
        place: usize,
        scores: impl IntoIterator<Item = Option<Scores>>,
        vocab: &dyn Vocab,
    ) {
        let Some(active) = &mut self.active else {
            return;
        };
        let mut told = Vec::new();
        for (place, scores) in (place..).zip(scores) {
            // A step that failed is done again.
            if place < active.scored {
                continue;
            }
            let Some(&token) = active.job.prompt.get(place + 1) else {
                break;
            };
            let Some(scores) = scores else {
                return self.fail(not_finite());
            };
            active.scored = place + 1;
            told.push(scored(token, &spell(token, vocab), &scores, vocab));
        }
        if !told.is_empty() {
            active.reply.send(Event::Prompt(told));
        }
    }

    /// The next `count` rows to compute; the row of the last known token asks for logits, and every guess after it.
    pub(crate) fn rows(&self, count: usize) -> impl Iterator<Item = Row> {
        let known = self
            .active
            .as_ref()
            .map_or(&[][..], |active| &active.tokens);
        let guesses = self
            .active
            .as_ref()
            .map_or(&[][..], |active| &active.guesses);
        // Of a prompt that is scored every row asks.
        let first_output = if self.is_scoring() {
            0
        } else {
            known.len().saturating_sub(1)
        };
        let first = self.computed();
        let behind = first - self.position();
        let tokens = known[first..].iter().chain(guesses).take(count);
        (first..).zip(tokens).map(move |(at, &token)| Row {
            token,
            position: small(at - behind),
            sequence: self.sequence,
            logits: at >= first_output,
        })
    }

    /// The next `count` rows to compute, if they are those of an image.
    pub(crate) fn image_rows(&self, count: usize) -> Option<ImageRows<'_>> {
        let active = self.active.as_ref()?;
        let computed = self.computed();
        let placed = media::image_at(&active.job.media, computed)?;
        Some(ImageRows {
            sequence: self.sequence,
            position: small(media::position(&active.tokens, placed.at)),
            image: &placed.image,
            first: computed - placed.at,
            count,
            logits: computed + count == active.tokens.len(),
        })
    }

    /// The position of the next token to compute, which is not inside of an image.
    pub(crate) fn position(&self) -> usize {
        match &self.active {
            Some(active) if !active.job.media.is_empty() => self.prefix.position(self.computed()),
            _ => self.computed(),
        }
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

    /// Takes a sampled token. `true`: it was the last one, and the job has ended.
    pub(crate) fn take(&mut self, sampled: &Sampled, vocab: &dyn Vocab, context: u32) -> bool {
        let Some(active) = &mut self.active else {
            return true;
        };
        active.first_token.get_or_insert_with(Instant::now);
        active.generated += 1;
        let ends = (!active.job.ignore_eos && vocab.is_eog(sampled.token))
            || active.job.stop_tokens.contains(&sampled.token);
        let mut bytes = Vec::new();
        if !ends {
            let special = active.job.visible.contains(&sampled.token);
            vocab.piece(sampled.token, special, &mut bytes);
        }
        if ends && sampled.scores.is_some() {
            bytes = spell(sampled.token, vocab);
        }
        let told = sampled.scores.as_ref();
        let told = told.map(|scores| scored(sampled.token, &bytes, scores, vocab));
        if ends {
            active.last = told;
            self.finish(Finish::Eos);
            return true;
        }
        let mut released = active.text.push(&bytes, told);
        let stop = released.stop.clone();
        let age = active.first_token.map_or(Duration::ZERO, |at| at.elapsed());
        let end = active.lines.follow(&released.text, age);
        if let Some(end) = end
            && end < released.text.len()
        {
            released.text.truncate(end);
            // What is held comes after this.
            active.text = Text::new(&[]);
        }
        active.send(released);
        active.tokens.push(sampled.token);
        if let Some(lookup) = &mut active.lookup {
            lookup.push(&active.tokens);
        }
        if let Some(stop) = stop {
            self.finish(Finish::StopString(stop));
        } else if end.is_some()
            || active.generated >= active.job.max_tokens
            || (active.tokens.len() >= context as usize && !active.shifts())
        {
            self.finish(Finish::Length);
        }
        self.active.is_none()
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
            last: active.last.take(),
            usage: Usage {
                prompt_tokens: active.prompt_tokens,
                forgotten_tokens: active.forgotten,
                cached_tokens: small(active.cached.unwrap_or(0)),
                completion_tokens: active.generated,
                accepted_tokens: active.drafts.accepted,
                rejected_tokens: active.drafts.made - active.drafts.accepted,
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

fn spell(token: Token, vocab: &dyn Vocab) -> Vec<u8> {
    let mut bytes = Vec::new();
    vocab.piece(token, true, &mut bytes);
    bytes
}

fn scored(token: Token, bytes: &[u8], (logprob, top): &Scores, vocab: &dyn Vocab) -> Scored {
    Scored {
        token,
        bytes: bytes.to_vec(),
        logprob: *logprob,
        top: top
            .iter()
            .map(|&(token, logprob)| Alternative {
                token,
                bytes: spell(token, vocab),
                logprob,
            })
            .collect(),
    }
}

pub(super) fn not_finite() -> Failed {
    Failed::Decode("the model computed no finite logits".into())
}

/// Token counts fit: the context is at most `u32::MAX` tokens.
pub(super) fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

//! What a sequence's job is told: the text of sampled tokens, scores, and how it ended.

use std::time::{Duration, Instant};

use super::{Active, Slot, small};
use crate::engine::{
    Alternative, Event, Failed, Finish, Finished, Piece, Scored, Times, Token, Usage,
    model::{Sampled, Scores, Vocab},
    text::{Released, Text},
};

impl<S> Slot<S> {
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
}

impl<S> Active<S> {
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

pub(in crate::engine) fn not_finite() -> Failed {
    Failed::Decode("the model computed no finite logits".into())
}

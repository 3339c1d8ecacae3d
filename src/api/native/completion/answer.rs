//! A completion on the wire, in chunks or whole, in llama-server's words.

use std::time::{Duration, Instant};

use serde_json::{Value, json as value};

use crate::{
    api::{body::json, openai::wire::Timings, reply::Wording},
    engine::{Alternative, Finish, Finished, Piece, Scored, Times, Token, Usage},
};

/// What answers say of their request. One of each for each answer.
pub(super) struct Asked {
    pub(super) model: String,
    /// Tokens.
    pub(super) context: u32,
    pub(super) prompts: Vec<String>,
    pub(super) settings: Vec<Value>,
    pub(super) prompt_tokens: Vec<usize>,
    /// Names of the fields that the last object has; `None`: all.
    pub(super) fields: Option<Vec<String>>,
    pub(super) probabilities: bool,
    pub(super) tokens: bool,
    /// Whether chunks tell times, too.
    pub(super) timings: bool,
}

/// Sequences are no matter of clients, and a request that sends this back is not refused.
const NO_SLOT: i32 = -1;

impl Asked {
    /// The object that ends an answer.
    fn last(&mut self, choice: usize, said: &Said, finished: &Finished) -> Value {
        let Finished { reason, usage, .. } = finished;
        let computed = usage.prompt_tokens + usage.completion_tokens;
        let (stop_type, word) = match reason {
            Finish::Eos => ("eos", ""),
            Finish::StopString(word) => ("word", word.as_str()),
            Finish::Length => ("limit", ""),
        };
        let tokens: Vec<Token> = if self.tokens {
            said.scored.iter().map(|scored| scored.token).collect()
        } else {
            Vec::new()
        };
        let mut last = value!({
            "index": choice,
            "content": said.text,
            "tokens": tokens,
            "id_slot": NO_SLOT,
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": self.settings[choice].take(),
            "prompt": std::mem::take(&mut self.prompts[choice]),
            "has_new_line": said.has_new_line,
            "truncated": usage.forgotten_tokens > 0
                || (*reason == Finish::Length && computed >= self.context),
            "stop_type": stop_type,
            "stopping_word": word,
            // The last one is chosen and not computed any more.
            "tokens_cached": computed.saturating_sub(u32::from(usage.completion_tokens > 0)),
            "timings": Timings::new(finished),
        });
        if self.probabilities && !said.scored.is_empty() {
            last["completion_probabilities"] = probabilities(&said.scored);
        }
        match &self.fields {
            None => last,
            Some(fields) => only(fields, &last),
        }
    }
}

/// What an answer has come to.
#[derive(Default)]
struct Said {
    text: String,
    scored: Vec<Scored>,
    has_new_line: bool,
}

/// The fields that were asked for; `a/b` is the field `b` of `a`. What is not there is left out.
fn only(fields: &[String], whole: &Value) -> Value {
    let found = fields.iter().filter_map(|name| {
        let mut value = whole;
        for key in name.split('/') {
            value = value.get(key)?;
        }
        Some((name.clone(), value.clone()))
    });
    Value::Object(found.collect())
}

fn probabilities(scored: &[Scored]) -> Value {
    let entry = |token: Token, bytes: &[u8], logprob: f32| {
        value!({
            "id": token,
            "token": String::from_utf8_lossy(bytes),
            "bytes": bytes,
            // JSON has no infinity.
            "logprob": logprob.max(f32::MIN),
        })
    };
    let tokens = scored.iter().map(|scored| {
        let mut told = entry(scored.token, &scored.bytes, scored.logprob);
        let other = |other: &Alternative| entry(other.token, &other.bytes, other.logprob);
        told["top_logprobs"] = scored.top.iter().map(other).collect();
        told
    });
    tokens.collect()
}

pub(super) struct Whole {
    asked: Asked,
    said: Vec<Said>,
    ended: Vec<Value>,
}

impl Whole {
    pub(super) fn new(asked: Asked) -> Self {
        let answers = asked.prompts.len();
        Self {
            asked,
            said: (0..answers).map(|_| Said::default()).collect(),
            ended: vec![Value::Null; answers],
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, mut piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let said = &mut self.said[choice];
        said.has_new_line |= piece.text.contains('\n');
        said.text.push_str(&piece.text);
        said.scored.append(&mut piece.tokens);
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        let said = std::mem::take(&mut self.said[choice]);
        self.ended[choice] = self.asked.last(choice, &said, finished);
    }

    /// One answer is an object, several are an array.
    fn close(&mut self, _: Usage, out: &mut Vec<u8>) {
        match &self.ended[..] {
            [one] => json(out, one),
            several => json(out, several),
        }
    }
}

pub(super) struct Chunks {
    asked: Asked,
    said: Vec<Said>,
    began: Instant,
    /// From then to the first text.
    prefill: Option<Duration>,
}

impl Chunks {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            said: asked.prompts.iter().map(|_| Said::default()).collect(),
            asked,
            began: Instant::now(),
            prefill: None,
        }
    }

    /// As far as they can be told from here; the last chunk has the engine's own.
    fn times(&mut self, usage: Usage) -> Timings {
        let age = self.began.elapsed();
        let prefill = *self.prefill.get_or_insert(age);
        Timings::new(&Finished {
            last: None,
            reason: Finish::Length,
            usage,
            times: Times {
                queued: Duration::ZERO,
                prefill,
                decode: age.saturating_sub(prefill),
            },
        })
    }
}

impl Wording for Chunks {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>) {
        if piece.text.is_empty() && piece.tokens.is_empty() {
            return;
        }
        self.said[choice].has_new_line |= piece.text.contains('\n');
        let ids: Vec<Token> = piece.tokens.iter().map(|scored| scored.token).collect();
        let mut chunk = value!({
            "index": choice,
            "content": piece.text,
            "tokens": ids,
            "stop": false,
            "id_slot": NO_SLOT,
            "tokens_predicted": piece.completion_tokens,
            "tokens_evaluated": self.asked.prompt_tokens[choice],
        });
        if self.asked.timings {
            chunk["timings"] = value!(self.times(so_far));
        }
        if self.asked.probabilities && !piece.tokens.is_empty() {
            chunk["completion_probabilities"] = probabilities(&piece.tokens);
        }
        write(out, &chunk);
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, out: &mut Vec<u8>) {
        let said = std::mem::take(&mut self.said[choice]);
        let last = self.asked.last(choice, &said, finished);
        write(out, &last);
    }

    fn close(&mut self, _: Usage, _: &mut Vec<u8>) {}
}

fn write(out: &mut Vec<u8>, event: &Value) {
    out.extend_from_slice(b"data: ");
    json(out, event);
    out.extend_from_slice(b"\n\n");
}

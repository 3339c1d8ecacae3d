//! What answers of both completion endpoints have in common on the wire.

use std::{
    borrow::Cow,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    http::{HeaderName, HeaderValue},
    response::Response,
};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    api::{Identity, body::json, random, record::millis},
    engine::{Finish, Finished, Scored, Usage},
};

const WARNING: HeaderName = HeaderName::from_static("x-warning");

/// Tells in the log and in a header what of a request has no effect.
pub(in crate::api) fn warn(response: &mut Response, warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!(warning, "a part of a request has no effect");
        // What quotes the request may be no header value; the log has it.
        if warning.is_ascii()
            && let Ok(value) = HeaderValue::try_from(warning)
        {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// The fields that open every answer and every chunk of it.
#[derive(Serialize)]
pub(in crate::api) struct Head {
    id: String,
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    model: String,
    system_fingerprint: String,
}

impl Head {
    pub(in crate::api) fn new(prefix: &str, object: &'static str, identity: &Identity) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            object,
            created: now.unwrap_or_default().as_secs(),
            model: identity.model.clone(),
            system_fingerprint: identity.fingerprint.clone(),
        }
    }

    /// `{"id":…,"choices":[`, to be completed once for an answer or on every chunk of a stream.
    pub(in crate::api) fn opening(&self) -> Vec<u8> {
        let mut out = Vec::new();
        json(&mut out, self);
        out.pop();
        out.extend_from_slice(b",\"choices\":[");
        out
    }
}

/// Token counts as OpenAI reports them.
#[derive(Serialize)]
pub(in crate::api) struct UsageBody {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the wire")]
struct CompletionDetails {
    reasoning_tokens: u32,
    /// Tokens that were guessed and computed ahead, and came true or not.
    accepted_prediction_tokens: u32,
    rejected_prediction_tokens: u32,
}

impl UsageBody {
    pub(in crate::api) fn new(usage: Usage, reasoning_tokens: u32) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached_tokens,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens,
                accepted_prediction_tokens: usage.accepted_tokens,
                rejected_prediction_tokens: usage.rejected_tokens,
            },
        }
    }
}

/// llama-server's times of one generation, in milliseconds.
#[derive(Serialize)]
pub(in crate::api) struct Timings {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
    /// Only where tokens were guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n_accepted: Option<u32>,
}

impl Timings {
    pub(in crate::api) fn new(finished: &Finished) -> Self {
        let Finished { usage, times, .. } = finished;
        let prompt_n = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        let predicted_n = usage.completion_tokens;
        // The first token comes with the prompt's last, before the time that is measured here.
        let steps = predicted_n.saturating_sub(1);
        let draft_n = usage.accepted_tokens + usage.rejected_tokens;
        Self {
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms: millis(times.prefill),
            prompt_per_token_ms: per_token(times.prefill, prompt_n),
            prompt_per_second: per_second(times.prefill, prompt_n),
            predicted_n,
            predicted_ms: millis(times.decode),
            predicted_per_token_ms: per_token(times.decode, steps),
            predicted_per_second: per_second(times.decode, steps),
            draft_n: (draft_n > 0).then_some(draft_n),
            draft_n_accepted: (draft_n > 0).then_some(usage.accepted_tokens),
        }
    }
}

fn per_token(time: Duration, tokens: u32) -> f64 {
    if tokens == 0 {
        return 0.0;
    }
    millis(time) / f64::from(tokens)
}

fn per_second(time: Duration, tokens: u32) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    f64::from(tokens) / time.as_secs_f64()
}

/// `finish_reason` of an answer without tool calls.
pub(in crate::api) fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Eos | Finish::StopString(_) => "stop",
        Finish::Length => "length",
    }
}

/// Chat's log-probabilities: `{"content":[…]}`.
#[derive(Serialize)]
pub(in crate::api) struct ChatLogprobs<'a> {
    pub(in crate::api) content: Vec<ChatLogprob<'a>>,
    /// Always null, and always there in OpenAI's.
    refusal: (),
}

#[derive(Serialize)]
pub(in crate::api) struct ChatLogprob<'a> {
    #[serde(flatten)]
    chosen: TokenLogprob<'a>,
    top_logprobs: Vec<TokenLogprob<'a>>,
}

#[derive(Serialize)]
struct TokenLogprob<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> ChatLogprobs<'a> {
    pub(in crate::api) fn new(scored: &'a [Scored]) -> Self {
        let entry = |bytes: &'a [u8], value| TokenLogprob {
            token: String::from_utf8_lossy(bytes),
            logprob: logprob(value),
            bytes,
        };
        let content = scored.iter().map(|token| ChatLogprob {
            chosen: entry(&token.bytes, token.logprob),
            top_logprobs: token
                .top
                .iter()
                .map(|other| entry(&other.bytes, other.logprob))
                .collect(),
        });
        Self {
            content: content.collect(),
            refusal: (),
        }
    }
}

/// The first token of a prompt, which follows from nothing and so has no log-probability.
pub(in crate::api) struct First {
    pub(in crate::api) bytes: Vec<u8>,
    /// Characters of the text that it is.
    pub(in crate::api) chars: usize,
}

/// The older endpoint's log-probabilities: four columns.
#[derive(Serialize)]
pub(in crate::api) struct ColumnLogprobs<'a> {
    tokens: Vec<Cow<'a, str>>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top<'a>>>,
    text_offset: Vec<usize>,
}

/// The most likely tokens, and the chosen one where it is not among them.
struct Top<'a>(&'a Scored);

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(chosen) = self;
        let mut map = serializer.serialize_map(None)?;
        let mut seen: Vec<&[u8]> = Vec::with_capacity(chosen.top.len() + 1);
        let top = chosen.top.iter().map(|other| (&other.bytes, other.logprob));
        // Two tokens may have one text: the better of them comes first and stays.
        for (bytes, value) in top.chain([(&chosen.bytes, chosen.logprob)]) {
            if !seen.contains(&bytes.as_slice()) {
                seen.push(bytes);
                map.serialize_entry(&spelled(bytes), &logprob(value))?;
            }
        }
        map.end()
    }
}

/// A token as a key among others: where it is no text by itself, its bytes as OpenAI spells them, `bytes:\xf0\x9f`.
fn spelled(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = "bytes:".to_owned();
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
    text.into()
}

impl<'a> ColumnLogprobs<'a> {
    /// `offset`: characters of the answer before the first of these tokens.
    /// `first`: stands before them.
    pub(in crate::api) fn new(
        first: Option<&'a First>,
        scored: &'a [Scored],
        mut offset: usize,
    ) -> Self {
        let mut columns = Self {
            tokens: Vec::with_capacity(scored.len()),
            token_logprobs: Vec::with_capacity(scored.len()),
            top_logprobs: Vec::with_capacity(scored.len()),
            text_offset: Vec::with_capacity(scored.len()),
        };
        if let Some(First { bytes, chars }) = first {
            columns.tokens.push(spelled(bytes));
            columns.token_logprobs.push(None);
            columns.top_logprobs.push(None);
            columns.text_offset.push(offset);
            offset += chars;
        }
        for token in scored {
            columns.tokens.push(spelled(&token.bytes));
            columns.token_logprobs.push(Some(logprob(token.logprob)));
            columns.top_logprobs.push(Some(Top(token)));
            // Bytes that continue a character lie in it, and do not begin another.
            let inside = token.bytes.first().is_some_and(|byte| !begins(*byte));
            columns
                .text_offset
                .push(offset.saturating_sub(usize::from(inside)));
            offset += chars(&token.bytes);
        }
        columns
    }
}

/// Characters that begin in these bytes.
pub(in crate::api) fn chars(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| begins(**byte)).count()
}

/// Whether a character begins with this byte.
fn begins(byte: u8) -> bool {
    byte & 0xC0 != 0x80
}

/// JSON has no infinities; OpenAI writes this for "all but impossible".
fn logprob(value: f32) -> f32 {
    if value.is_finite() { value } else { -9999.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Times;

    fn timings(completion_tokens: u32, decode: Duration) -> Timings {
        Timings::new(&Finished {
            last: None,
            reason: Finish::Length,
            usage: Usage {
                prompt_tokens: 2,
                completion_tokens,
                ..Usage::default()
            },
            times: Times {
                decode,
                ..Times::default()
            },
        })
    }

    #[test]
    fn the_speed_of_an_answer_is_that_of_the_tokens_after_its_first() {
        let one = timings(1, Duration::from_micros(40));
        assert_eq!((one.predicted_n, one.predicted_ms), (1, 0.04));
        assert_eq!(
            (one.predicted_per_second, one.predicted_per_token_ms),
            (0.0, 0.0)
        );
        let several = timings(5, Duration::from_millis(20));
        assert_eq!(
            (several.predicted_per_second, several.predicted_per_token_ms),
            (200.0, 5.0)
        );
    }
}

//! An answer as Anthropic words it: one message, or the events it grows by.

mod events;
mod sequence;
mod whole;

use serde::Serialize;
use serde_json::{Value, json as value};

use self::sequence::{Kind, Sequence};
pub(super) use self::{events::Events, whole::Whole};
use super::request::Display;
use crate::{
    api::{Identity, random, turn::Reader},
    engine::{Finish, Usage},
};

/// Who answers to what.
pub(super) struct Voice {
    id: String,
    model: String,
    /// Also the signature of thinking, which nobody has to trust here.
    fingerprint: String,
    request_id: String,
    stop_sequences: Vec<String>,
    display: Display,
}

impl Voice {
    pub(super) fn new(
        identity: &Identity,
        request_id: &str,
        stop_sequences: Vec<String>,
        display: Display,
    ) -> Self {
        Self {
            id: format!("msg_{:016x}{:016x}", random(), random()),
            model: identity.model.clone(),
            fingerprint: identity.fingerprint.clone(),
            request_id: request_id.to_owned(),
            stop_sequences,
            display,
        }
    }

    fn message(&self, content: &[Value], stop: Option<&Stop>, usage: &UsageBody) -> Value {
        value!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop.map(|stop| stop.reason),
            "stop_sequence": stop.and_then(|stop| stop.sequence.as_deref()),
            "usage": usage,
            "system_fingerprint": self.fingerprint,
        })
    }

    fn stop(&self, finish: &Finish, sequence: &Sequence) -> Stop {
        let (reason, stopped_by) = match finish {
            Finish::StopString(text) if self.stop_sequences.contains(text) => {
                ("stop_sequence", Some(text.clone()))
            }
            Finish::Length => ("max_tokens", None),
            Finish::Eos | Finish::StopString(_) if sequence.has_called() => ("tool_use", None),
            Finish::Eos | Finish::StopString(_) => ("end_turn", None),
        };
        Stop {
            reason,
            sequence: stopped_by,
        }
    }

    /// A block as it begins.
    fn block(kind: &Kind) -> Value {
        match kind {
            Kind::Thinking => value!({"type": "thinking", "thinking": "", "signature": ""}),
            Kind::Text => value!({"type": "text", "text": ""}),
            Kind::ToolUse { id, name } => {
                value!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        }
    }
}

/// Why an answer ended.
struct Stop {
    reason: &'static str,
    sequence: Option<String>,
}

/// Token counts: the first three together are the prompt's.
#[derive(Serialize)]
struct UsageBody {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
}

#[derive(Serialize)]
struct OutputDetails {
    thinking_tokens: u32,
}

impl UsageBody {
    fn new(usage: Usage, readers: &[Reader]) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            // Every prompt is kept for the next one; none costs more for that.
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails {
                thinking_tokens: readers.iter().map(Reader::reasoning_tokens).sum(),
            },
        }
    }
}

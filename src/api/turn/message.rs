//! An answer put together from its parts.

use super::Part;
use crate::{chat::ToolCallDelta, engine::Scored};

/// What the assistant said, as far as it has come.
#[derive(Default)]
pub(in crate::api) struct Message {
    pub(in crate::api) content: String,
    pub(in crate::api) reasoning: String,
    /// Calls with all of their arguments.
    pub(in crate::api) tool_calls: Vec<ToolCallDelta>,
    /// The content's tokens, when log-probabilities are wanted.
    pub(in crate::api) scored: Vec<Scored>,
}

impl Message {
    pub(in crate::api) fn append(&mut self, parts: Vec<Part>) {
        for Part { delta, mut scored } in parts {
            self.content
                .push_str(delta.content.as_deref().unwrap_or_default());
            let reasoning = delta.reasoning_content.as_deref();
            self.reasoning.push_str(reasoning.unwrap_or_default());
            self.scored.append(&mut scored);
            for call in delta.tool_calls {
                let known = |known: &&mut ToolCallDelta| known.index == call.index;
                match self.tool_calls.iter_mut().find(known) {
                    Some(known) => known.function.arguments.push_str(&call.function.arguments),
                    None => self.tool_calls.push(call),
                }
            }
        }
    }
}

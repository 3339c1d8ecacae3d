//! The conversation: Anthropic's messages, in which one may hold many things, as the chat's, of which each is one.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    blocks::{self, Block},
    documents::text_blocks,
    names::{Origin, Place},
};
use crate::api::{error::ApiError, fields::Fields};

/// Messages in the shape of OpenAI's, as they grow.
#[derive(Default)]
pub(super) struct Conversation {
    messages: Vec<Message>,
    origins: Vec<Origin>,
    /// The tools that were called, by the ids of the calls.
    called: HashMap<String, String>,
    pub(super) warnings: Vec<String>,
}

enum Message {
    System(String),
    User(Vec<Value>),
    Assistant(Assistant),
    Tool(Value),
}

#[derive(Default)]
struct Assistant {
    text: String,
    reasoning: String,
    calls: Vec<Value>,
}

/// The messages for the chat, and where each came from.
pub(super) struct Spoken {
    pub(super) messages: Vec<Value>,
    pub(super) origins: Vec<Origin>,
    pub(super) warnings: Vec<String>,
}

/// `system`: what stood in the field of that name.
pub(super) fn read(body: Fields<'_>, system: Option<String>) -> Result<Spoken, ApiError> {
    let mut conversation = Conversation::default();
    if let Some(system) = system {
        conversation.push(Message::System(system), Place::System);
    }
    let Some(messages) = body.array("messages")?.filter(|all| !all.is_empty()) else {
        return Err(body.wrong("messages", "an array of at least one message"));
    };
    for (index, message) in messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        let Some(message) = message.as_object() else {
            let message = format!("{path}: expected a message, an object");
            return Err(ApiError::invalid(path, message));
        };
        conversation.read(index, &path, message)?;
    }
    conversation.finish(messages.len() - 1)
}

impl Conversation {
    fn read(
        &mut self,
        index: usize,
        path: &str,
        message: &Map<String, Value>,
    ) -> Result<(), ApiError> {
        let inside = format!("{path}.");
        let message = Fields::within(message, &inside);
        let role = message.text("role")?;
        let content = format!("{path}.content");
        let place = Place::Message(index);
        match (role, message.get("content")) {
            (Some("system"), Some(Value::String(text))) => self.system(text, place),
            (Some("system"), Some(Value::Array(blocks))) => {
                self.system(&text_blocks(&content, blocks)?.join("\n"), place);
            }
            (Some("user"), Some(Value::String(text))) => self.user(text_part(text), place, place),
            // As an empty text, so that the message is there.
            (Some("user"), Some(Value::Array(list))) if list.is_empty() => {
                self.user(text_part(""), place, place);
            }
            (Some("user"), Some(Value::Array(list))) => {
                for (block, value) in list.iter().enumerate() {
                    let read = blocks::read_user(&format!("{content}[{block}]"), value)?;
                    let from = Place::Block {
                        message: index,
                        block,
                    };
                    self.take(read, place, from);
                }
            }
            (Some("assistant"), Some(Value::String(text))) => {
                self.assistant(place, |assistant| {
                    assistant.new_line();
                    assistant.text.push_str(text);
                });
            }
            (Some("assistant"), Some(Value::Array(list))) => {
                self.assistant(place, Assistant::new_line);
                for (block, value) in list.iter().enumerate() {
                    let read = blocks::read_assistant(&format!("{content}[{block}]"), value)?;
                    let from = Place::Block {
                        message: index,
                        block,
                    };
                    self.take(read, place, from);
                }
            }
            (Some("user" | "assistant" | "system"), _) => {
                return Err(message.wrong("content", "a string or an array of content blocks"));
            }
            _ => return Err(message.wrong("role", "\"user\", \"assistant\" or \"system\"")),
        }
        Ok(())
    }

    /// A block, which stood at `from` in the message at `place`.
    fn take(&mut self, block: Block, place: Place, from: Place) {
        match block {
            Block::Part(part) => self.user(part, place, from),
            Block::ToolResult { id, parts } => {
                let (inside, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                let content = joined(parts);
                let mut message = json!({"role": "tool", "tool_call_id": id, "content": content});
                if let Some(name) = self.called.get(&id) {
                    message["name"] = name.as_str().into();
                }
                self.push(Message::Tool(message), place);
                if let Some(origin) = self.origins.last_mut() {
                    let places = inside.into_iter().map(|part| from.inside(part));
                    origin.parts = places.collect();
                }
            }
            Block::Text(text) => self.assistant(place, |all| all.text.push_str(&text)),
            Block::Thinking(text) => self.assistant(place, |all| all.reasoning.push_str(&text)),
            Block::Redacted => self.warnings.push(format!(
                "{from}: redacted thinking cannot be read here and is left out"
            )),
            Block::ToolUse { id, name, input } => {
                let function = json!({"name": name, "arguments": input});
                let call = json!({"id": id, "type": "function", "function": function});
                self.assistant(place, |all| all.calls.push(call));
                self.called.insert(id, name);
            }
        }
    }

    /// At the beginning it is more of the one system prompt.
    fn system(&mut self, text: &str, place: Place) {
        if let [Message::System(all)] = &mut self.messages[..] {
            all.push('\n');
            all.push_str(text);
        } else {
            self.push(Message::System(text.to_owned()), place);
        }
    }

    /// What one role says in a row is one message: many templates refuse another.
    fn user(&mut self, part: Value, place: Place, from: Place) {
        if !matches!(self.messages.last(), Some(Message::User(_))) {
            self.push(Message::User(Vec::new()), place);
        }
        if let (Some(Message::User(parts)), Some(origin)) =
            (self.messages.last_mut(), self.origins.last_mut())
        {
            parts.push(part);
            origin.parts.push(from);
        }
    }

    /// What it says in a row is one message, too.
    fn assistant(&mut self, place: Place, say: impl FnOnce(&mut Assistant)) {
        if let Some(Message::Assistant(assistant)) = self.messages.last_mut() {
            say(assistant);
        } else {
            let mut assistant = Assistant::default();
            say(&mut assistant);
            self.push(Message::Assistant(assistant), place);
        }
    }

    fn push(&mut self, message: Message, place: Place) {
        self.messages.push(message);
        self.origins.push(Origin {
            message: place,
            parts: Vec::new(),
        });
    }

    /// `last`: the caller's last message.
    fn finish(mut self, last: usize) -> Result<Spoken, ApiError> {
        if let Some(Message::Assistant(assistant)) = self.messages.last() {
            if !assistant.calls.is_empty() {
                let param = format!("messages[{last}]");
                let message = format!(
                    "{param}: ends with tool_use; a user message with its tool_result is expected after it"
                );
                return Err(ApiError::invalid(param, message));
            }
            // An answer that begins with nothing is any answer.
            if assistant.text.is_empty() && assistant.reasoning.is_empty() {
                self.messages.pop();
                self.origins.pop();
            }
        }
        Ok(Spoken {
            messages: self.messages.into_iter().map(Message::into_chat).collect(),
            origins: self.origins,
            warnings: self.warnings,
        })
    }
}

impl Assistant {
    /// Before another message of it.
    fn new_line(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }
}

impl Message {
    fn into_chat(self) -> Value {
        match self {
            Self::System(text) => json!({"role": "system", "content": text}),
            Self::User(parts) => json!({"role": "user", "content": joined(parts)}),
            Self::Tool(message) => message,
            Self::Assistant(Assistant {
                text,
                reasoning,
                calls,
            }) => {
                let mut message = json!({"role": "assistant", "content": text});
                if !reasoning.is_empty() {
                    message["reasoning_content"] = reasoning.into();
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                message
            }
        }
    }
}

/// Parts that are all text as one text.
fn joined(parts: Vec<Value>) -> Value {
    let texts: Option<Vec<_>> = parts.iter().map(|part| part["text"].as_str()).collect();
    match texts {
        Some(texts) => texts.join("\n").into(),
        None => parts.into(),
    }
}

pub(super) fn text_part(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

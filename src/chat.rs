//! Messages to prompt, and generated text back to content, reasoning and tool calls, by llama.cpp's `common/chat`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::{Grammar, llama::Weights};

/// A model's chat template, ready to use from any thread.
pub struct Chat {
    _todo: (),
}

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The request's fault: bad message, role, tool or schema.
    #[error("{0}")]
    Invalid(String),
    #[error("chat template: {0}")]
    Internal(String),
}

/// A prompt with all that is needed to read the answer to it.
#[derive(Debug, Clone)]
pub struct Rendered {
    pub prompt: String,
    pub grammar: Option<Grammar>,
    /// Stop strings of the template itself.
    pub stops: Vec<String>,
    /// Control tokens, as text, that must stay visible to the parser.
    pub preserved: Vec<String>,
    /// What [`Parser::new`] needs.
    pub(crate) parser: Value,
}

/// What became known since the last call: fragments to be appended by the client.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ToolCallDelta {
    pub index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub function: FunctionDelta,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct FunctionDelta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub arguments: String,
}

impl Chat {
    /// `weights`: the model whose own template is used; `None` needs a `template` (tests).
    pub fn new(_weights: Option<&Weights>, _template: Option<&str>) -> Result<Self, ChatError> {
        todo!()
    }

    /// `request`: an OpenAI chat body (messages, tools, tool_choice, response_format, chat_template_kwargs, …).
    pub fn render(&self, _request: &Value) -> Result<Rendered, ChatError> {
        todo!()
    }
}

/// Reads one answer as it grows.
pub struct Parser {
    _todo: (),
}

impl Parser {
    pub fn new(_rendered: &Rendered) -> Result<Self, ChatError> {
        todo!()
    }

    /// Appends generated text.
    pub fn push(&mut self, _text: &str) -> Vec<Delta> {
        todo!()
    }

    /// The answer is complete: what was held back. Text that does not parse becomes content.
    pub fn finish(&mut self) -> Vec<Delta> {
        todo!()
    }
}

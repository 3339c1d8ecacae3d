//! The fragments an answer is sent in, in the shape they have on the wire.

use serde::{Deserialize, Serialize};

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
    /// Only with the first fragment of a call, as are `kind` and the function's name.
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
    /// JSON text; complete once the answer is.
    #[serde(default)]
    pub arguments: String,
}

impl Delta {
    pub(super) fn content(text: &str) -> Self {
        Self {
            content: Some(text.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn reasoning(text: &str) -> Self {
        Self {
            reasoning_content: Some(text.to_owned()),
            ..Self::default()
        }
    }
}

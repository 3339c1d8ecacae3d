//! Where the fields of a translated request stood in the caller's own, so that errors name those.

use std::fmt;

use crate::api::{error::ApiError, renamed};

/// A place in the caller's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    System,
    Message(usize),
    Block {
        message: usize,
        block: usize,
    },
    /// A part of a tool's result.
    Part {
        message: usize,
        block: usize,
        part: usize,
    },
}

impl Place {
    /// The block `part` inside of this one.
    pub(super) fn inside(self, part: usize) -> Self {
        match self {
            Self::Block { message, block } => Self::Part {
                message,
                block,
                part,
            },
            outer => outer,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Message(message) => write!(f, "messages[{message}]"),
            Self::Block { message, block } => write!(f, "messages[{message}].content[{block}]"),
            Self::Part {
                message,
                block,
                part,
            } => write!(f, "messages[{message}].content[{block}].content[{part}]"),
        }
    }
}

/// What became of one message, or was added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) message: Place,
    /// Of each part of its content.
    pub(super) parts: Vec<Place>,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    /// One for each translated message.
    pub(super) messages: Vec<Origin>,
    /// Where the schema of the answer stood.
    pub(super) format: &'static str,
}

/// Fields whose names differ, the longest first.
const RENAMED: [(&str, &str); 6] = [
    ("tool_choice.function.name", "tool_choice.name"),
    ("reasoning_effort", "output_config.effort"),
    ("enable_thinking", "thinking.type"),
    ("thinking_budget_tokens", "thinking.budget_tokens"),
    (
        "parallel_tool_calls",
        "tool_choice.disable_parallel_tool_use",
    ),
    ("stop", "stop_sequences"),
];

impl Names {
    /// The error with its field named as the caller wrote it.
    pub(super) fn callers(&self, error: ApiError) -> ApiError {
        renamed::error(error, |param| self.name(param))
    }

    /// The same for a warning, which begins with its field.
    pub(super) fn callers_warning(&self, warning: &str) -> String {
        renamed::text(warning, |param| self.name(param))
    }

    fn name(&self, param: &str) -> String {
        if let Some((index, rest)) = indexed(param, "messages") {
            return self.message(index, rest);
        }
        if param.starts_with("tools[") {
            return param
                .replacen(".function.parameters", ".input_schema", 1)
                .replacen(".function", "", 1);
        }
        for schema in [
            "response_format.json_schema.schema",
            "response_format.json_schema",
            "response_format",
        ] {
            if let Some(rest) = param.strip_prefix(schema) {
                return format!("{}{rest}", self.format);
            }
        }
        let renamed = RENAMED.iter().find_map(|(ours, theirs)| {
            let rest = param.strip_prefix(ours)?;
            let whole = rest.is_empty() || rest.starts_with(['.', '[']);
            whole.then(|| format!("{theirs}{rest}"))
        });
        renamed.unwrap_or_else(|| param.to_owned())
    }

    fn message(&self, index: usize, rest: &str) -> String {
        let Some(origin) = self.messages.get(index) else {
            return "messages".to_owned();
        };
        let part = indexed(rest, ".content")
            .and_then(|(part, rest)| Some((origin.parts.get(part)?, rest)));
        match part {
            // An image is the one block whose inside looks different.
            Some((place, rest)) => match rest.strip_prefix(".image_url") {
                Some(_) => format!("{place}.source"),
                None => format!("{place}{rest}"),
            },
            None => origin.message.to_string(),
        }
    }
}

/// `name[7]rest` → 7 and the rest.
fn indexed<'a>(text: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = text
        .strip_prefix(name)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((index.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_the_caller_wrote_them() {
        let block = Place::Block {
            message: 4,
            block: 2,
        };
        let names = Names {
            messages: vec![
                Origin {
                    message: Place::System,
                    parts: Vec::new(),
                },
                Origin {
                    message: Place::Message(4),
                    parts: vec![Place::Message(4), block],
                },
            ],
            format: "output_config.format.schema",
        };
        for (ours, theirs) in [
            ("messages", "messages"),
            ("messages[0].content", "system"),
            ("messages[1].content[1].type", "messages[4].content[2].type"),
            (
                "messages[1].content[1].image_url.url",
                "messages[4].content[2].source",
            ),
            ("messages[1].tool_calls[0].function.name", "messages[4]"),
            ("messages[9].role", "messages"),
            (
                "tools[3].function.parameters#/properties/a",
                "tools[3].input_schema#/properties/a",
            ),
            ("tools[3].function.name", "tools[3].name"),
            ("tool_choice.function.name", "tool_choice.name"),
            ("tool_choice", "tool_choice"),
            (
                "response_format.json_schema.schema#/a",
                "output_config.format.schema#/a",
            ),
            ("stop", "stop_sequences"),
            ("max_tokens", "max_tokens"),
        ] {
            assert_eq!(names.name(ours), theirs);
        }
    }
}

//! What the caller calls the fields that the chat request names otherwise.

use crate::api::{error::ApiError, renamed};

/// Where messages and tools of the chat request come from.
#[derive(Default)]
pub(super) struct Names {
    /// `input[3]`, for each message.
    pub(super) messages: Vec<String>,
    /// Those among them that are what a call gave.
    pub(super) outputs: Vec<usize>,
    /// `tools[2]`, for each tool.
    pub(super) tools: Vec<String>,
}

/// Beginnings of paths; what follows stays as it is.
const FIELDS: [(&str, &str); 8] = [
    ("tool_choice.function.name", "tool_choice.name"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("verbosity", "text.verbosity"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("messages", "input"),
    ("logprobs", "include"),
];

impl Names {
    /// The error in the caller's words.
    pub(super) fn error(&self, error: ApiError) -> ApiError {
        match error {
            ApiError::Invalid { param, message } => ApiError::Invalid {
                param: self.path(&param),
                message: self.text(&message),
            },
            other => other,
        }
    }

    /// A text that opens with a path, such as `tools[0].function.parameters: …`.
    pub(super) fn text(&self, text: &str) -> String {
        renamed::text(text, |path| self.path(path))
    }

    fn path(&self, path: &str) -> String {
        let entry = |list: &str, names: &[String]| {
            let (index, rest) = path
                .strip_prefix(list)?
                .strip_prefix('[')?
                .split_once(']')?;
            let index = index.parse::<usize>().ok()?;
            Some((index, names.get(index)?.clone(), rest.to_owned()))
        };
        if let Some((index, name, rest)) = entry("messages", &self.messages) {
            let rest = match rest.strip_prefix(".content") {
                Some(part) if self.outputs.contains(&index) => format!(".output{part}"),
                _ => rest,
            };
            // An image's address stands in no object of its own.
            return name + rest.strip_suffix(".url").unwrap_or(&rest);
        }
        if let Some((_, name, rest)) = entry("tools", &self.tools) {
            return name + rest.strip_prefix(".function").unwrap_or(&rest);
        }
        let renamed = FIELDS.iter().find_map(|(chat, ours)| {
            let rest = path.strip_prefix(chat)?;
            (rest.is_empty() || rest.starts_with(['.', '[', '#'])).then(|| format!("{ours}{rest}"))
        });
        renamed.unwrap_or_else(|| path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_chat_request_become_those_of_the_caller() {
        let names = Names {
            messages: vec!["instructions".to_owned(), "input[4]".to_owned()],
            outputs: vec![0],
            tools: vec!["tools[1]".to_owned(), "tools[3].tools[0]".to_owned()],
        };
        let told = [
            "messages[1].content[0].text: expected a string",
            "messages[0].content[2].image_url.url: damaged",
            "tools[1].function.parameters#/properties/a: cannot be enforced",
            "tools[0].function.name: \"f\" is there twice",
            "response_format.json_schema.schema#/type: unknown",
            "response_format: an answer of this form calls no tool",
            "max_completion_tokens: expected an integer",
            "temperature: expected a number",
            "a sentence: without a path",
        ]
        .map(|text| names.text(text));
        insta::assert_snapshot!(told.join("\n"), @r#"
        input[4].content[0].text: expected a string
        instructions.output[2].image_url: damaged
        tools[3].tools[0].parameters#/properties/a: cannot be enforced
        tools[1].name: "f" is there twice
        text.format.schema#/type: unknown
        text.format: an answer of this form calls no tool
        max_output_tokens: expected an integer
        temperature: expected a number
        a sentence: without a path
        "#);
    }
}

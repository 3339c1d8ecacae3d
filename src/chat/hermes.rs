//! Tools for templates that know none: told in the system message, called and answered as Hermes' models do.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Applied, Capabilities, ChatError, Facts, request::Request, tools::Tool};
use crate::chat::shim::{Failure, Source, Templates};

const TEMPLATE: &str = include_str!("hermes.jinja");

/// How an answer with calls looks and is read.
pub(super) struct Hermes {
    templates: Templates,
}

impl Hermes {
    /// For a template with the capabilities `own`; `None`: it has calls of its own, or thoughts, which this form has no
    /// place for.
    pub(super) fn beside(own: Capabilities) -> Result<Option<Self>, ChatError> {
        if own.tool_calls || own.thinking {
            return Ok(None);
        }
        let source = Source::Text {
            template: TEMPLATE,
            bos: "",
            eos: "",
        };
        let (templates, _) = Templates::new::<Facts>(&source).map_err(|failure| {
            let (Failure::Caller(why) | Failure::Internal(why)) = failure;
            ChatError::Internal(why)
        })?;
        Ok(Some(Self { templates }))
    }

    /// What a template with the capabilities `own` can do together with this.
    pub(super) fn with(own: Capabilities) -> Capabilities {
        Capabilities {
            tool_calls: true,
            // Models that did not learn it go on calling, so a request must ask for it.
            parallel_tool_calls: false,
            describes_tools: true,
            ..own
        }
    }

    /// The prompt that `own` makes, for answers in this form where tools may be called.
    pub(super) fn apply(&self, own: &Templates, request: &Request) -> Result<Applied, Failure> {
        let mut applied: Applied = own.apply(request.without_calls().to_string())?;
        if let Some(form) = request.form_of_calls() {
            let form: Applied = self.templates.apply(form.to_string())?;
            applied.grammar = form.grammar;
            applied.preserved = form.preserved;
            applied.parser = form.parser;
        }
        Ok(applied)
    }
}

/// The conversation as a template takes it that knows neither tools nor calls: both become text.
pub(super) fn plain(messages: &[Value], tools: &[Tool]) -> Vec<Value> {
    let mut plain: Vec<Value> = Vec::with_capacity(messages.len() + 1);
    if !tools.is_empty() {
        plain.push(json!({"role": "system", "content": introduction(tools)}));
    }
    let mut after_response = false;
    for message in messages {
        let responds = message["role"] == "tool";
        let (role, content) = match message["role"].as_str() {
            Some("tool") => ("user", response(&message["content"])),
            Some("assistant") => ("assistant", with_calls(message)),
            Some(role) => (role, message["content"].clone()),
            None => continue,
        };
        // The system message is one, and many templates want the user and the assistant to take turns.
        let leads =
            plain.len() == 1 && !tools.is_empty() && ["system", "developer"].contains(&role);
        match plain.last_mut() {
            Some(first) if leads => {
                let introduction = first["content"].take();
                first["content"] = joined(content, introduction);
            }
            Some(last)
                if responds && last["role"] == "user" || after_response && role == "user" =>
            {
                let before = last["content"].take();
                last["content"] = joined(before, content);
            }
            _ => {
                let mut same = message.clone();
                if let Some(same) = same.as_object_mut() {
                    same.insert("role".to_owned(), role.into());
                    same.insert("content".to_owned(), content);
                    same.retain(|key, _| !["tool_calls", "tool_call_id"].contains(&key.as_str()));
                }
                plain.push(same);
            }
        }
        after_response = responds || after_response && role == "user";
    }
    plain
}

fn introduction(tools: &[Tool]) -> String {
    let mut text = "You have tools. Each is described by one line of JSON:\n<tools>\n".to_owned();
    for tool in tools {
        let _ = writeln!(text, "{}", json!(tool));
    }
    text += "</tools>\n\
             To use one, answer with its name and arguments as JSON between these marks:\n\
             <tool_call>\n{\"name\": \"…\", \"arguments\": {…}}\n</tool_call>\n\
             What it gives comes back between <tool_response> and </tool_response>. Use a tool only where it helps.";
    text
}

fn with_calls(message: &Value) -> Value {
    let mut calls = String::new();
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let name = &call["function"]["name"];
        let arguments = call["function"]["arguments"].as_str().unwrap_or("{}");
        let line = if calls.is_empty() { "" } else { "\n" };
        let _ = write!(
            calls,
            "{line}<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>"
        );
    }
    match &message["content"] {
        content if calls.is_empty() => content.clone(),
        Value::String(text) if text.is_empty() => calls.into(),
        content => joined(content.clone(), calls.into()),
    }
}

fn response(content: &Value) -> Value {
    let (open, close) = ("<tool_response>", "</tool_response>");
    match content {
        Value::String(text) => format!("{open}\n{text}\n{close}").into(),
        parts => {
            let parts = joined(format!("{open}\n").into(), parts.clone());
            joined(parts, close.into())
        }
    }
}

/// One content after the other: texts, or parts.
fn joined(before: Value, after: Value) -> Value {
    match (before, after) {
        (Value::String(before), Value::String(after)) => format!("{before}\n{after}").into(),
        (before, after) => [before, after]
            .into_iter()
            .flat_map(|content| match content {
                Value::Array(parts) => parts,
                text => vec![json!({"type": "text", "text": text})],
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_what_they_gave_become_text_and_turns_stay_turns() {
        let call = |name: &str, arguments: &str| json!({"type": "function", "id": "1", "function": {"name": name, "arguments": arguments}});
        let lines = plain(
            &[
                json!({"role": "user", "content": "Go."}),
                json!({"role": "assistant", "content": "Well.", "tool_calls": [call("f", "{\"a\": 1}"), call("g", "{}")]}),
                json!({"role": "tool", "tool_call_id": "1", "content": "one"}),
                json!({"role": "tool", "tool_call_id": "2", "content": [{"type": "media_marker", "text": "X"}]}),
                json!({"role": "user", "content": "And?"}),
            ],
            &[],
        );
        let lines: Vec<_> = lines.iter().map(Value::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"role":"user","content":"Go."}
        {"role":"assistant","content":"Well.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>"}
        {"role":"user","content":[{"type":"text","text":"<tool_response>\none\n</tool_response>"},{"type":"text","text":"<tool_response>\n"},{"type":"media_marker","text":"X"},{"type":"text","text":"</tool_response>"},{"type":"text","text":"And?"}]}
        "#);
    }
}

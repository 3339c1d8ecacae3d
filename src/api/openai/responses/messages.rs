//! Items → the messages of a chat: what the assistant thought, said and called in one turn becomes one message.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{items::Item, names::Names, tools};
use crate::api::error::ApiError;

/// The messages in the making.
struct Draft<'a> {
    messages: Vec<Value>,
    names: &'a mut Names,
    /// What the assistant does at present.
    turn: Map<String, Value>,
    turn_path: String,
    calls: HashSet<String>,
    warnings: Vec<String>,
}

/// The messages, and what of the items has no effect.
pub(super) fn messages(
    instructions: Option<&str>,
    items: &[Item],
    names: &mut Names,
) -> Result<(Vec<Value>, Vec<String>), ApiError> {
    let mut draft = Draft {
        messages: Vec::new(),
        names,
        turn: Map::new(),
        turn_path: String::new(),
        calls: HashSet::new(),
        warnings: Vec::new(),
    };
    // Many templates take one system message, at the very beginning. Codex sends three.
    let leads = |item: &&Item| matches!(role(&item.value), Some("system" | "developer"));
    let leading = items.iter().take_while(leads).count();
    let (leading, rest) = items.split_at(leading);
    draft.lead(instructions, leading);
    for item in rest {
        draft.add(item)?;
    }
    draft.end_turn();
    Ok((draft.messages, draft.warnings))
}

fn role(item: &Value) -> Option<&str> {
    item["role"].as_str()
}

impl Draft<'_> {
    fn lead(&mut self, instructions: Option<&str>, items: &[Item]) {
        let texts = instructions.map(str::to_owned);
        let texts = texts
            .into_iter()
            .chain(items.iter().map(|item| text(&item.value["content"])));
        let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
        if texts.is_empty() {
            return;
        }
        let alone = instructions.is_none() && items.iter().all(is_developers);
        let path = match (instructions, items.first()) {
            (None, Some(item)) => item.path.clone(),
            _ => "instructions".to_owned(),
        };
        let role = if alone { "developer" } else { "system" };
        self.push(path, json!({"role": role, "content": texts.join("\n\n")}));
    }

    fn add(&mut self, item: &Item) -> Result<(), ApiError> {
        let Item { path, value } = item;
        match value["type"].as_str() {
            Some("reasoning") => {
                let thought = match text(&value["content"]) {
                    thought if thought.is_empty() => text(&value["summary"]),
                    thought => thought,
                };
                if thought.is_empty() {
                    if value["encrypted_content"].is_string() {
                        let warning = "another server's reasoning cannot be read; it is left out";
                        self.warnings
                            .push(format!("{path}.encrypted_content: {warning}"));
                    }
                    return Ok(());
                }
                if self.turn.contains_key("content") || self.turn.contains_key("tool_calls") {
                    self.end_turn();
                }
                self.append("reasoning_content", thought, path);
            }
            Some("function_call") => {
                let name = value["name"].as_str().unwrap_or_default();
                let name = match value["namespace"].as_str() {
                    Some(space) => tools::qualified(space, name),
                    None => name.to_owned(),
                };
                self.call(path, value, &name, &value["arguments"]);
            }
            Some("custom_tool_call") => {
                let name = value["name"].as_str().unwrap_or_default();
                let input = json!({"input": value["input"]});
                self.call(path, value, name, &input.to_string().into());
            }
            Some("function_call_output" | "custom_tool_call_output") => {
                self.output(path, value)?;
            }
            _ if role(value) == Some("assistant") => {
                if self.turn.contains_key("content") || self.turn.contains_key("tool_calls") {
                    self.end_turn();
                }
                self.append("content", text(&value["content"]), path);
            }
            _ => {
                self.end_turn();
                let content = content(&value["content"]);
                let message = json!({"role": role(value), "content": content});
                self.push(path.clone(), message);
            }
        }
        Ok(())
    }

    fn call(&mut self, path: &str, item: &Value, name: &str, arguments: &Value) {
        let id = item["call_id"].as_str().unwrap_or_default();
        self.calls.insert(id.to_owned());
        let call = json!({
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        });
        self.begin_turn(path);
        match self.turn.get_mut("tool_calls") {
            Some(Value::Array(calls)) => calls.push(call),
            _ => {
                self.turn.insert("tool_calls".to_owned(), json!([call]));
            }
        }
    }

    fn output(&mut self, path: &str, item: &Value) -> Result<(), ApiError> {
        let id = item["call_id"].as_str().unwrap_or_default();
        if !self.calls.contains(id) {
            let param = format!("{path}.call_id");
            let message = format!("{param}: No tool call found for {id:?}; it must come before");
            return Err(ApiError::invalid(param, message));
        }
        self.end_turn();
        let content = content(&item["output"]);
        let message = json!({"role": "tool", "tool_call_id": id, "content": content});
        self.names.outputs.push(self.messages.len());
        self.push(path.to_owned(), message);
        Ok(())
    }

    fn append(&mut self, key: &str, text: String, path: &str) {
        self.begin_turn(path);
        match self.turn.get_mut(key) {
            Some(Value::String(before)) => *before += &text,
            _ => {
                self.turn.insert(key.to_owned(), text.into());
            }
        }
    }

    fn begin_turn(&mut self, path: &str) {
        if self.turn.is_empty() {
            self.turn.insert("role".to_owned(), "assistant".into());
            path.clone_into(&mut self.turn_path);
        }
    }

    fn end_turn(&mut self) {
        if !self.turn.is_empty() {
            let turn = std::mem::take(&mut self.turn);
            let path = std::mem::take(&mut self.turn_path);
            self.push(path, Value::Object(turn));
        }
    }

    fn push(&mut self, path: String, message: Value) {
        self.names.messages.push(path);
        self.messages.push(message);
    }
}

fn is_developers(item: &Item) -> bool {
    role(&item.value) == Some("developer")
}

/// As a chat has it: a text, or where images are among its parts, all of them.
fn content(content: &Value) -> Value {
    let is_image = |part: &Value| part["type"] == "input_image";
    match content {
        Value::Array(parts) if parts.iter().any(is_image) => {
            let part = |part: &Value| {
                if is_image(part) {
                    let image = json!({"url": part["image_url"], "detail": part["detail"]});
                    json!({"type": "image_url", "image_url": image})
                } else {
                    json!({"type": "text", "text": text(&json!([part]))})
                }
            };
            parts.iter().map(part).collect()
        }
        other => text(other).into(),
    }
}

/// A text, or the texts of parts together.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text = |part: &Value| match &part["text"] {
                Value::String(text) => Some(text.clone()),
                _ => part["refusal"].as_str().map(str::to_owned),
            };
            let texts: Vec<_> = parts.iter().filter_map(text).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

//! The conversation: every shape of message that clients send back, in the one shape the templates take.

use serde_json::{Map, Value, json};

use super::{
    ChatError,
    request::{invalid, present, text_at, wrong},
};

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

pub(super) fn messages(body: &Map<String, Value>) -> Result<Vec<Value>, ChatError> {
    let list = match present(body, "messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(Value::Array(_)) => {
            return Err(invalid("messages: expected at least one message"));
        }
        other => {
            let got = other.unwrap_or(&Value::Null);
            return Err(wrong("messages", "an array of messages", got));
        }
    };
    list.iter()
        .enumerate()
        .map(|(i, message)| read_message(&format!("messages[{i}]"), message))
        .collect()
}

fn read_message(path: &str, message: &Value) -> Result<Value, ChatError> {
    let fields = message
        .as_object()
        .ok_or_else(|| wrong(path, "an object", message))?;
    let role = message["role"].as_str().unwrap_or_default();
    if !ROLES.contains(&role) {
        let accepted = format!("one of {ROLES:?}");
        return Err(wrong(format!("{path}.role"), &accepted, &message["role"]));
    }
    let mut plain = Map::new();
    plain.insert("role".to_owned(), role.into());
    let mut calls = Vec::new();
    if role == "assistant" {
        calls = tool_calls(path, fields)?;
        let reasoning = match text_at(path, fields, "reasoning_content")? {
            None => text_at(path, fields, "reasoning")?,
            given => given,
        };
        if let Some(reasoning) = reasoning {
            plain.insert("reasoning_content".to_owned(), reasoning.into());
        }
    }
    let said_otherwise = !calls.is_empty() || plain.contains_key("reasoning_content");
    if !fields.contains_key("content") && !said_otherwise {
        return Err(wrong(
            format!("{path}.content"),
            "a string or an array of parts",
            &Value::Null,
        ));
    }
    let content = match present(fields, "content") {
        None => "".into(),
        Some(content) => read_content(&format!("{path}.content"), content)?,
    };
    plain.insert("content".to_owned(), content);
    if !calls.is_empty() {
        plain.insert("tool_calls".to_owned(), calls.into());
    }
    for key in ["name", "tool_call_id"] {
        if let Some(text) = text_at(path, fields, key)? {
            plain.insert(key.to_owned(), text.into());
        }
    }
    Ok(Value::Object(plain))
}

/// A string, or parts of type `text` and `media_marker` (which the HTTP side has put in place of media).
fn read_content(path: &str, content: &Value) -> Result<Value, ChatError> {
    let parts = match content {
        Value::String(_) => return Ok(content.clone()),
        Value::Array(parts) => parts,
        other => return Err(wrong(path, "a string or an array of parts", other)),
    };
    if parts.is_empty() {
        return Ok("".into());
    }
    let parts = parts.iter().enumerate().map(|(i, part)| {
        let kind = part["type"].as_str().unwrap_or_default();
        // An assistant's refusal is what it said.
        let (kind, key) = match kind {
            "text" | "media_marker" => (kind, "text"),
            "refusal" => ("text", "refusal"),
            _ => {
                let path = format!("{path}[{i}].type");
                return Err(wrong(path, r#""text""#, &part["type"]));
            }
        };
        let text = part[key]
            .as_str()
            .ok_or_else(|| wrong(format!("{path}[{i}].{key}"), "a string", &part[key]))?;
        Ok(json!({"type": kind, "text": text}))
    });
    parts.collect()
}

fn tool_calls(path: &str, fields: &Map<String, Value>) -> Result<Vec<Value>, ChatError> {
    let path = format!("{path}.tool_calls");
    let calls = match present(fields, "tool_calls") {
        None => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(other) => return Err(wrong(path, "an array", other)),
    };
    calls
        .iter()
        .enumerate()
        .map(|(i, call)| read_call(&format!("{path}[{i}]"), call))
        .collect()
}

fn read_call(path: &str, call: &Value) -> Result<Value, ChatError> {
    let fields = call
        .as_object()
        .ok_or_else(|| wrong(path, "an object", call))?;
    if !matches!(call["type"].as_str(), Some("function")) && present(fields, "type").is_some() {
        return Err(wrong(
            format!("{path}.type"),
            r#""function""#,
            &call["type"],
        ));
    }
    let function = &call["function"];
    let name = function["name"].as_str().ok_or_else(|| {
        wrong(
            format!("{path}.function.name"),
            "a string",
            &function["name"],
        )
    })?;
    let arguments = match &function["arguments"] {
        Value::Null => "{}".to_owned(),
        Value::String(text) if text.trim().is_empty() => "{}".to_owned(),
        // Most templates write arguments out field by field, so they must be JSON. A call that a limit on tokens cut
        // short comes back all the same; it is put as Anthropic advises its callers to.
        Value::String(text) => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => text.clone(),
            Err(_) => json!({"INVALID_JSON": text}).to_string(),
        },
        object @ Value::Object(_) => object.to_string(),
        other => {
            let path = format!("{path}.function.arguments");
            return Err(wrong(path, "JSON text", other));
        }
    };
    let mut plain = Map::new();
    if let Some(id) = text_at(path, fields, "id")? {
        plain.insert("id".to_owned(), id.into());
    }
    plain.insert("type".to_owned(), "function".into());
    plain.insert(
        "function".to_owned(),
        json!({"name": name, "arguments": arguments}),
    );
    Ok(Value::Object(plain))
}

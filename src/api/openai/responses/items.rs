//! The items of a request: checked one by one, and brought into the form in which they are kept.

use serde_json::{Map, Value, json};

use super::{history::History, id};
use crate::api::{error::ApiError, fields::Fields};

const KINDS: &str = "\"message\", \"function_call\", \"function_call_output\", \"custom_tool_call\", \
                     \"custom_tool_call_output\", \"reasoning\" or \"item_reference\"";

/// An item, and the field it came from.
pub(super) struct Item {
    pub(super) path: String,
    pub(super) value: Value,
}

/// `input`: a text, or items.
pub(super) fn read(fields: Fields<'_>, history: &mut History<'_>) -> Result<Vec<Item>, ApiError> {
    match fields.get("input") {
        Some(Value::String(text)) => Ok(vec![Item {
            path: "input".to_owned(),
            value: message("user", text),
        }]),
        Some(Value::Array(items)) => {
            let one = |(at, item): (usize, &Value)| {
                let path = format!("input[{at}]");
                let value = read_one(&path, item, history)?;
                Ok(Item { path, value })
            };
            items.iter().enumerate().map(one).collect()
        }
        None => Ok(Vec::new()),
        Some(_) => Err(fields.wrong("input", "a string or an array of items")),
    }
}

fn message(role: &str, text: &str) -> Value {
    json!({
        "id": id("msg"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": [{"type": part_type(role), "text": text}],
    })
}

fn part_type(role: &str) -> &'static str {
    if role == "assistant" {
        "output_text"
    } else {
        "input_text"
    }
}

fn read_one(path: &str, item: &Value, history: &mut History<'_>) -> Result<Value, ApiError> {
    let Some(object) = item.as_object() else {
        let message = format!("{path}: expected an item, an object");
        return Err(ApiError::invalid(path, message));
    };
    let inside = format!("{path}.");
    let fields = Fields::within(object, &inside);
    let given = fields.text("id")?;
    // OpenAI lets the type of the two most frequent ones be left out.
    let kind = match fields.text("type")? {
        Some(kind) => kind,
        None if object.contains_key("role") => "message",
        None if given.is_some() => "item_reference",
        None => return Err(fields.wrong("type", KINDS)),
    };
    let prefix = match kind {
        "message" => {
            check_message(fields, &inside)?;
            "msg"
        }
        "function_call" => {
            required(fields, "name")?;
            required(fields, "call_id")?;
            required(fields, "arguments")?;
            fields.text("namespace")?;
            "fc"
        }
        "custom_tool_call" => {
            required(fields, "name")?;
            required(fields, "call_id")?;
            required(fields, "input")?;
            "ctc"
        }
        "function_call_output" | "custom_tool_call_output" => {
            required(fields, "call_id")?;
            check_text(fields, &inside, "output")?;
            if kind == "function_call_output" {
                "fco"
            } else {
                "ctco"
            }
        }
        "reasoning" => {
            check_reasoning(fields)?;
            "rs"
        }
        "item_reference" => {
            let wanted = required(fields, "id")?;
            return history.item(wanted);
        }
        _ => return Err(fields.wrong("type", KINDS)),
    };
    Ok(complete(object, kind, given.map(str::to_owned), prefix))
}

/// The item with what OpenAI shows of each.
fn complete(object: &Map<String, Value>, kind: &str, given: Option<String>, prefix: &str) -> Value {
    let mut item = object.clone();
    let id = given
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| id(prefix));
    item.insert("id".to_owned(), id.into());
    item.insert("type".to_owned(), kind.into());
    if item.get("status").is_none_or(Value::is_null) && kind != "reasoning" {
        item.insert("status".to_owned(), "completed".into());
    }
    if let (Some(Value::String(text)), Some(Value::String(role))) =
        (item.get("content"), item.get("role"))
    {
        let parts = json!([{"type": part_type(role), "text": text}]);
        item.insert("content".to_owned(), parts);
    }
    Value::Object(item)
}

fn required<'a>(fields: Fields<'a>, name: &str) -> Result<&'a str, ApiError> {
    let text = fields.text(name)?;
    text.ok_or_else(|| fields.wrong(name, "a string"))
}

fn check_message(fields: Fields<'_>, path: &str) -> Result<(), ApiError> {
    let roles = ["system", "developer", "user", "assistant"];
    if !fields
        .text("role")?
        .is_some_and(|role| roles.contains(&role))
    {
        return Err(fields.wrong("role", format_args!("one of {roles:?}")));
    }
    check_text(fields, path, "content")
}

/// A text, or parts of it.
fn check_text(fields: Fields<'_>, path: &str, name: &str) -> Result<(), ApiError> {
    const PARTS: &str = "a string or an array of parts";
    let parts = match fields.get(name) {
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => parts,
        _ => return Err(fields.wrong(name, PARTS)),
    };
    for (at, part) in parts.iter().enumerate() {
        let path = format!("{path}{name}[{at}]");
        let Some(object) = part.as_object() else {
            let message = format!("{path}: expected a part, an object");
            return Err(ApiError::invalid(path, message));
        };
        let inside = format!("{path}.");
        let part = Fields::within(object, &inside);
        match part.text("type")? {
            Some("input_text" | "output_text" | "text") => required(part, "text")?,
            Some("refusal") => required(part, "refusal")?,
            Some("input_image") => required(part, "image_url")?,
            Some(kind @ ("input_file" | "input_audio" | "input_video")) => {
                let message = format!(
                    "{path}: this server reads texts and images, and this is {kind:?}; send \"input_text\" or \"input_image\""
                );
                return Err(ApiError::invalid(path, message));
            }
            _ => {
                return Err(part.wrong(
                    "type",
                    "\"input_text\", \"input_image\", \"output_text\" or \"refusal\"",
                ));
            }
        };
    }
    Ok(())
}

fn check_reasoning(fields: Fields<'_>) -> Result<(), ApiError> {
    fields.text("encrypted_content")?;
    for name in ["summary", "content"] {
        if let Some(parts) = fields.array(name)?
            && !parts.iter().all(|part| part["text"].is_string())
        {
            return Err(fields.wrong(name, "an array of parts, each with a text"));
        }
    }
    Ok(())
}

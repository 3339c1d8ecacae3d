//! `text`: the form and the length of an answer.

use serde_json::{Map, Value, json};

use crate::api::{error::ApiError, fields::Fields};

/// Asks the chat for it, and returns it as the answer repeats it.
pub(super) fn read(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<Value, ApiError> {
    let plain = || json!({"type": "text"});
    let Some(text) = fields.object("text")? else {
        return Ok(json!({"format": plain(), "verbosity": "medium"}));
    };
    let text = Fields::within(text, "text.");
    let verbosity = text.text("verbosity")?;
    if let Some(verbosity) = verbosity {
        chat.insert("verbosity".to_owned(), verbosity.into());
    }
    let format = match text.object("format")? {
        None => plain(),
        Some(object) => format(object, chat)?,
    };
    Ok(json!({"format": format, "verbosity": verbosity.unwrap_or("medium")}))
}

fn format(object: &Map<String, Value>, chat: &mut Map<String, Value>) -> Result<Value, ApiError> {
    let fields = Fields::within(object, "text.format.");
    let asked = match fields.text("type")? {
        Some("text") => return Ok(json!({"type": "text"})),
        Some("json_object") => json!({"type": "json_object"}),
        Some("json_schema") => {
            if fields.text("name")?.is_none() {
                return Err(fields.wrong("name", "a string"));
            }
            fields.flag("strict")?;
            fields.text("description")?;
            if fields.object("schema")?.is_none() {
                return Err(fields.wrong("schema", "a JSON schema, an object"));
            }
            json!({"type": "json_schema", "json_schema": object})
        }
        _ => return Err(fields.wrong("type", "\"text\", \"json_object\" or \"json_schema\"")),
    };
    chat.insert("response_format".to_owned(), asked);
    let mut shown = object.clone();
    if object["type"] == "json_schema" {
        shown.entry("description").or_insert(Value::Null);
        if !matches!(shown.get("strict"), Some(Value::Bool(_))) {
            shown.insert("strict".to_owned(), false.into());
        }
    }
    Ok(shown.into())
}

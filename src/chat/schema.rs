//! JSON schemas: what would cost llama.cpp's converter its stack is refused before it gets there.

use serde_json::{Map, Value};

use super::{
    ChatError,
    request::{invalid, wrong},
};

/// The converter calls itself for every level.
const MAX_DEPTH: usize = 64;

/// Property names and references pass a regular expression that calls itself for every character.
const MAX_NAME_BYTES: usize = 256;

/// The converter calls itself for every property that may be left out, and writes a rule of quadratic size.
const MAX_PROPERTIES: usize = 256;

/// The schema of an answer: an object within bounds.
pub(super) fn check(path: &str, schema: &Value) -> Result<(), ChatError> {
    if !schema.is_object() {
        return Err(wrong(path, "a JSON schema", schema));
    }
    walk(path, schema, 0)
}

/// A tool's parameters. Agents send schemas of every kind, so `{}` and `true` both mean "anything".
pub(super) fn tool_schema(path: &str, schema: &Value) -> Result<Value, ChatError> {
    if *schema == Value::Bool(true) {
        return Ok(Value::Object(Map::new()));
    }
    check(path, schema)?;
    Ok(schema.clone())
}

fn walk(path: &str, value: &Value, depth: usize) -> Result<(), ChatError> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!(
            "{path}: nested deeper than {MAX_DEPTH} levels"
        )));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| walk(path, item, depth + 1)),
        Value::Object(fields) => {
            if fields.len() > MAX_PROPERTIES {
                return Err(invalid(format!(
                    "{path}: an object with more than {MAX_PROPERTIES} fields"
                )));
            }
            for (name, field) in fields {
                let reference = field.as_str().filter(|_| name == "$ref").unwrap_or("");
                if name.len().max(reference.len()) > MAX_NAME_BYTES {
                    return Err(invalid(format!(
                        "{path}: a name or reference longer than {MAX_NAME_BYTES} bytes"
                    )));
                }
                walk(path, field, depth + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

//! JSON schemas: what would cost llama.cpp's converter its stack is refused before it gets there, and what it cannot
//! enforce of a tool's parameters is left out.

use serde_json::{Value, json};

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

/// The value of the keyword `type`.
fn is_type(value: &Value) -> bool {
    const TYPES: [&str; 7] = [
        "array", "boolean", "integer", "null", "number", "object", "string",
    ];
    match value {
        Value::String(name) => TYPES.contains(&name.as_str()),
        Value::Array(names) => names.iter().all(|name| name.is_string() && is_type(name)),
        _ => false,
    }
}

/// What any arguments of a tool fit.
pub(super) fn any_arguments() -> Value {
    json!({"type": "object"})
}

/// `schema` without the parts that llama.cpp's converter refuses: patterns, unknown types, references to nowhere.
pub(super) fn relaxed(schema: &Value) -> Value {
    relax(schema, schema)
}

fn relax(node: &Value, root: &Value) -> Value {
    /// Keywords whose value is an object of names to schemas.
    const NAMED: [&str; 5] = [
        "properties",
        "patternProperties",
        "$defs",
        "definitions",
        "dependentSchemas",
    ];
    match node {
        Value::Array(items) => items.iter().map(|item| relax(item, root)).collect(),
        Value::Object(keywords) => {
            let lost = |reference: &str| {
                let pointer = reference.strip_prefix('#');
                pointer.and_then(|pointer| root.pointer(pointer)).is_none()
            };
            let kept = keywords.iter().filter(|(name, value)| match name.as_str() {
                "pattern" => false,
                "$ref" => !value.as_str().is_none_or(lost),
                "type" => is_type(value),
                _ => true,
            });
            let relaxed = kept.map(|(name, value)| {
                let value = match value {
                    Value::Object(named) if NAMED.contains(&name.as_str()) => named
                        .iter()
                        .map(|(name, schema)| (name.clone(), relax(schema, root)))
                        .collect(),
                    other => relax(other, root),
                };
                (name.clone(), value)
            });
            Value::Object(relaxed.collect())
        }
        plain => plain.clone(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_enforced_is_left_out() {
        let schema = json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "pattern": "a(?=b)", "maxLength": 3},
                "far": {"$ref": "https://example.org/schema", "description": "kept"},
                "near": {"$ref": "#/$defs/near"},
                "type": {"type": "magic"},
                "gone": {"anyOf": [{"$ref": "#/$defs/gone"}, {"type": "null"}]},
            },
            "$defs": {"near": {"enum": ["a"]}},
        });
        let expected = json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "maxLength": 3},
                "far": {"description": "kept"},
                "near": {"$ref": "#/$defs/near"},
                "type": {},
                "gone": {"anyOf": [{}, {"type": "null"}]},
            },
            "$defs": {"near": {"enum": ["a"]}},
        });
        assert_eq!(relaxed(&schema), expected);
    }
}

//! The tools of a request and which of them may or must be called.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{
    Capabilities, ChatError,
    request::{invalid, present, text_at, wrong},
    schema::tool_schema,
};

/// Names become grammar rules by way of a regular expression that calls itself for every character.
const MAX_NAME_BYTES: usize = 256;

/// The tools in use, `None` for none, and `auto`, `none` or `required`.
type Tools = (Option<Vec<Value>>, &'static str);

pub(super) fn tools(
    body: &Map<String, Value>,
    can: Capabilities,
    warnings: &mut Vec<String>,
) -> Result<Tools, ChatError> {
    let mut tools = Vec::new();
    let mut names = HashSet::new();
    for (i, tool) in list(body, "tools")?.iter().enumerate() {
        let path = format!("tools[{i}]");
        let (name, tool) = read_tool(&path, tool)?;
        if !names.insert(name.clone()) {
            return Err(invalid(format!(
                "{path}.function.name: {name:?} is there twice"
            )));
        }
        tools.push(tool);
    }
    let choice = match present(body, "tool_choice") {
        None => "auto",
        Some(Value::String(word)) => match word.as_str() {
            "auto" => "auto",
            "none" => "none",
            "required" => "required",
            _ => return Err(wrong_choice(&body["tool_choice"])),
        },
        Some(choice) => {
            let name = choice["function"]["name"]
                .as_str()
                .filter(|_| choice["type"] == "function")
                .ok_or_else(|| wrong_choice(choice))?;
            tools.retain(|tool| tool["function"]["name"] == name);
            if tools.is_empty() {
                return Err(invalid(format!(
                    "tool_choice.function.name: {name:?} is not among the tools"
                )));
            }
            "required"
        }
    };
    if choice == "required" && tools.is_empty() {
        return Err(invalid(
            "tool_choice: demands a tool call, but there are no tools",
        ));
    }
    if choice != "none" && !tools.is_empty() {
        if !can.tool_calls {
            if choice == "required" {
                return Err(invalid(
                    "tool_choice: demands a tool call, but this model's chat template has no tool calls",
                ));
            }
            warnings.push(
                "tools: this model's chat template has no tool calls; none will be made".to_owned(),
            );
        } else if !can.describes_tools {
            warnings.push(
                "tools: this model's chat template does not tell the model about them".to_owned(),
            );
        }
    }
    Ok(((!tools.is_empty()).then_some(tools), choice))
}

fn wrong_choice(choice: &Value) -> ChatError {
    let accepted = r#""auto", "none", "required" or {"type": "function", "function": {"name": …}}"#;
    wrong("tool_choice", accepted, choice)
}

/// A tool as the shim takes it, and its name.
fn read_tool(path: &str, tool: &Value) -> Result<(String, Value), ChatError> {
    let function = tool
        .as_object()
        .ok_or_else(|| wrong(path, "an object", tool))?
        .get("function")
        .unwrap_or(&Value::Null);
    if tool["type"] != "function" {
        return Err(wrong(
            format!("{path}.type"),
            r#""function""#,
            &tool["type"],
        ));
    }
    let path = format!("{path}.function");
    let fields = function
        .as_object()
        .ok_or_else(|| wrong(&path, "an object", function))?;
    let name = function["name"]
        .as_str()
        .filter(|name| (1..=MAX_NAME_BYTES).contains(&name.len()))
        .ok_or_else(|| {
            let accepted = format!("a string of 1 to {MAX_NAME_BYTES} bytes");
            wrong(format!("{path}.name"), &accepted, &function["name"])
        })?;
    let description = text_at(&path, fields, "description")?.unwrap_or_default();
    let parameters = match present(fields, "parameters") {
        None => json!({}),
        Some(parameters) => tool_schema(&format!("{path}.parameters"), parameters)?,
    };
    let tool = json!({
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    });
    Ok((name.to_owned(), tool))
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], ChatError> {
    match present(object, key) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(wrong(key, "an array", other)),
    }
}

//! The tools of a request and which of them may or must be called.

use std::collections::HashSet;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    Capabilities, ChatError,
    request::{flag_at, invalid, present, text_at, wrong},
    schema,
};

/// Names become grammar rules by way of a regular expression that calls itself for every character.
const MAX_NAME_BYTES: usize = 256;

/// The tools in use, `None` for none, and `auto`, `none` or `required`.
type Tools = (Option<Vec<Tool>>, &'static str);

/// A function that the model may call.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    name: String,
    description: String,
    /// A JSON schema.
    parameters: Value,
    /// Rather no answer than arguments that do not follow the schema.
    strict: bool,
    /// Where the schema stands in the request.
    path: String,
}

impl Serialize for Tool {
    /// As templates know it.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self {
            name,
            description,
            parameters,
            ..
        } = self;
        let function = json!({"name": name, "description": description, "parameters": parameters});
        json!({"type": "function", "function": function}).serialize(to)
    }
}

pub(super) fn tools(
    body: &Map<String, Value>,
    can: Capabilities,
    warnings: &mut Vec<String>,
) -> Result<Tools, ChatError> {
    let mut tools = Vec::new();
    let mut names = HashSet::new();
    for (i, tool) in list(body, "tools")?.iter().enumerate() {
        let path = format!("tools[{i}]");
        let tool = read_tool(&path, tool, warnings)?;
        if !names.insert(tool.name.clone()) {
            let name = &tool.name;
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
        Some(choice) if choice["type"] == "allowed_tools" => allowed(choice, &mut tools)?,
        Some(choice) => {
            let name = named(choice).ok_or_else(|| wrong_choice(choice))?;
            tools.retain(|tool| tool.name == name);
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

/// The name in `{"type": "function", "function": {"name": …}}`.
fn named(choice: &Value) -> Option<&str> {
    let name = choice["function"]["name"].as_str();
    name.filter(|_| choice["type"] == "function")
}

/// `{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}`: the others are as good as not there.
fn allowed(choice: &Value, tools: &mut Vec<Tool>) -> Result<&'static str, ChatError> {
    let path = "tool_choice.allowed_tools";
    let inner = &choice["allowed_tools"];
    let mode = match inner["mode"].as_str() {
        Some("auto") => "auto",
        Some("required") => "required",
        _ => {
            return Err(wrong(
                format!("{path}.mode"),
                r#""auto" or "required""#,
                &inner["mode"],
            ));
        }
    };
    let Some(list) = inner["tools"].as_array() else {
        return Err(wrong(
            format!("{path}.tools"),
            "an array of tools",
            &inner["tools"],
        ));
    };
    let mut names = Vec::with_capacity(list.len());
    for (i, one) in list.iter().enumerate() {
        let path = format!("{path}.tools[{i}]");
        let name = named(one).ok_or_else(|| {
            let accepted = r#"{"type": "function", "function": {"name": …}}"#;
            wrong(&path, accepted, one)
        })?;
        if !tools.iter().any(|tool| tool.name == name) {
            let why = format!("{path}.function.name: {name:?} is not among the tools");
            return Err(invalid(why));
        }
        names.push(name);
    }
    tools.retain(|tool| names.contains(&tool.name.as_str()));
    Ok(mode)
}

fn wrong_choice(choice: &Value) -> ChatError {
    let accepted = r#""auto", "none", "required", {"type": "function", "function": {"name": …}} or {"type": "allowed_tools", …}"#;
    wrong("tool_choice", accepted, choice)
}

fn read_tool(path: &str, tool: &Value, warnings: &mut Vec<String>) -> Result<Tool, ChatError> {
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
    let strict = flag_at(&path, fields, "strict")?.unwrap_or(false);
    let path = format!("{path}.parameters");
    let parameters = match present(fields, "parameters") {
        // Agents send schemas of every kind, so `{}` and `true` both mean "anything".
        None | Some(Value::Bool(true)) => json!({}),
        Some(parameters) => match schema::check(&path, parameters) {
            Ok(()) => parameters.clone(),
            Err(ChatError::Invalid(why)) if !strict && parameters.is_object() => {
                warnings.push(format!("{why}: the arguments of {name} are not held to it"));
                schema::any_arguments()
            }
            Err(error) => return Err(error),
        },
    };
    Ok(Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
        strict,
        path,
    })
}

/// Leaves out of the tools' schemas what llama.cpp cannot enforce: the first time what it is known to refuse, then all.
/// `false`: there is nothing left to leave out.
pub(super) fn relax(tools: &mut [Tool], warnings: &mut Vec<String>) -> bool {
    let mut change = |relaxed: &dyn Fn(&Value) -> Value, what: &str| {
        let mut changed = false;
        for tool in tools.iter_mut().filter(|tool| !tool.strict) {
            let relaxed = relaxed(&tool.parameters);
            if relaxed != tool.parameters {
                warnings.push(format!("{}: {what}", tool.path));
                tool.parameters = relaxed;
                changed = true;
            }
        }
        changed
    };
    change(
        &schema::relaxed,
        "patterns, unknown types and unknown references in it are not enforced",
    ) || change(
        &|_| schema::any_arguments(),
        "the arguments are not held to it",
    )
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], ChatError> {
    match present(object, key) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(other) => Err(wrong(key, "an array", other)),
    }
}

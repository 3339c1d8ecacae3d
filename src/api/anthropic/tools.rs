//! The tools that may be called, and whether they must be.

use serde_json::{Map, Value, json};

use crate::api::{error::ApiError, fields::Fields};

/// Writes `tools` and `tool_choice` into `chat`, a chat request.
pub(super) fn read(body: Fields<'_>, chat: &mut Map<String, Value>) -> Result<(), ApiError> {
    let tools = body.array("tools")?.map_or(&[][..], Vec::as_slice);
    if !tools.is_empty() {
        let tools = tools.iter().enumerate();
        let tools: Result<Vec<_>, _> = tools
            .map(|(i, tool)| read_tool(&format!("tools[{i}]"), tool))
            .collect();
        chat.insert("tools".to_owned(), tools?.into());
    }
    if let Some(choice) = body.object("tool_choice")? {
        let choice = Fields::within(choice, "tool_choice.");
        chat.insert("tool_choice".to_owned(), read_choice(choice)?);
        if let Some(alone) = choice.flag("disable_parallel_tool_use")? {
            chat.insert("parallel_tool_calls".to_owned(), (!alone).into());
        }
    }
    Ok(())
}

fn read_choice(choice: Fields<'_>) -> Result<Value, ApiError> {
    match choice.text("type")? {
        Some("auto") => Ok("auto".into()),
        Some("any") => Ok("required".into()),
        Some("none") => Ok("none".into()),
        Some("tool") => match choice.text("name")? {
            Some(name) => Ok(json!({"type": "function", "function": {"name": name}})),
            None => Err(choice.wrong("name", "the name of a tool")),
        },
        _ => Err(choice.wrong("type", "\"auto\", \"any\", \"tool\" or \"none\"")),
    }
}

fn read_tool(path: &str, tool: &Value) -> Result<Value, ApiError> {
    let Some(tool) = tool.as_object() else {
        let message = format!("{path}: expected a tool, an object");
        return Err(ApiError::invalid(path, message));
    };
    let inside = format!("{path}.");
    let tool = Fields::within(tool, &inside);
    match tool.text("type")? {
        None | Some("custom") => {}
        Some(_) => {
            return Err(tool.wrong(
                "type",
                "\"custom\", a tool that the caller runs, with its input_schema (this server runs none, and the model \
                 knows none of Anthropic's by name)",
            ));
        }
    }
    let Some(name) = tool.text("name")? else {
        return Err(tool.wrong("name", "a string"));
    };
    let Some(schema) = tool.object("input_schema")? else {
        return Err(tool.wrong("input_schema", "a JSON schema, an object"));
    };
    if let Some(callers) = tool.array("allowed_callers")?
        && !callers.iter().any(|caller| caller == "direct")
    {
        return Err(tool.wrong("allowed_callers", "an array with \"direct\""));
    }
    let mut function = json!({
        "name": name,
        "description": description(tool)?,
        "parameters": schema,
    });
    if let Some(strict) = tool.flag("strict")? {
        function["strict"] = strict.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

/// The description, with the examples that templates have no other place for.
fn description(tool: Fields<'_>) -> Result<String, ApiError> {
    let mut text = tool.text("description")?.unwrap_or_default().to_owned();
    for example in tool.array("input_examples")?.into_iter().flatten() {
        text.push_str("\nExample input: ");
        text.push_str(&example.to_string());
    }
    Ok(text)
}

//! OpenAI's first way to have functions called, `functions` and `function_call`, as the tools that came after it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::api::{error::ApiError, fields::Fields, renamed};

/// What of a request was said in the old way.
#[derive(Debug, Default)]
pub(super) struct Old {
    pub(super) offer: Offer,
    /// Messages of the assistant with a `function_call`.
    calls: BTreeSet<usize>,
}

/// In which way the model may call, and so in which it is told that it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Offer {
    #[default]
    Tools,
    Functions,
}

/// Fields that were named otherwise, the longest first.
const RENAMED: [(&str, &str); 3] = [
    ("tool_choice.function.name", "function_call.name"),
    ("tool_choice", "function_call"),
    ("tools", "functions"),
];

/// Brings the request into today's form.
pub(super) fn translate(body: &mut Map<String, Value>) -> Result<Old, ApiError> {
    let mut old = Old::default();
    let messages = body.get_mut("messages").and_then(Value::as_array_mut);
    let mut last_call = None;
    for (at, message) in messages.into_iter().flatten().enumerate() {
        let Some(message) = message.as_object_mut() else {
            continue; // refused in a moment
        };
        let path = format!("messages[{at}].");
        if message.get("role").is_some_and(|role| role == "assistant") {
            if called(message, &path, at)? {
                old.calls.insert(at);
                last_call = Some(call_id(at));
            }
        } else if message.get("role").is_some_and(|role| role == "function") {
            let fields = Fields::within(message, &path);
            if fields.text("name")?.is_none() {
                return Err(fields.wrong("name", "the name of the function"));
            }
            message.insert("role".to_owned(), "tool".into());
            let id = last_call.clone().unwrap_or_else(|| call_id(at));
            message.insert("tool_call_id".to_owned(), id.into());
        }
    }
    old.offer = offer(body)?;
    Ok(old)
}

fn call_id(message: usize) -> String {
    format!("call_{message}")
}

/// Whether the assistant called a function in this message, which then is a tool.
fn called(message: &mut Map<String, Value>, path: &str, at: usize) -> Result<bool, ApiError> {
    let fields = Fields::within(message, path);
    let Some(call) = fields.object("function_call")? else {
        message.remove("function_call");
        return Ok(false);
    };
    if fields
        .array("tool_calls")?
        .is_some_and(|calls| !calls.is_empty())
    {
        return Err(together(&format!("{path}function_call"), "tool_calls"));
    }
    let call = json!([{"id": call_id(at), "type": "function", "function": call}]);
    message.remove("function_call");
    message.insert("tool_calls".to_owned(), call);
    Ok(true)
}

fn offer(body: &mut Map<String, Value>) -> Result<Offer, ApiError> {
    let fields = Fields::new(body);
    let functions = fields.array("functions")?.filter(|all| !all.is_empty());
    let choice = match fields.get("function_call") {
        None => None,
        Some(Value::String(word)) if word == "none" || word == "auto" => Some(json!(word)),
        Some(Value::Object(object)) if object.get("name").is_some_and(Value::is_string) => {
            if functions.is_none() {
                let message = "function_call: demands a call, but there are no functions";
                return Err(ApiError::invalid("function_call", message));
            }
            Some(json!({"type": "function", "function": {"name": object["name"]}}))
        }
        Some(_) => {
            let accepted = "\"none\", \"auto\" or {\"name\": …}";
            return Err(fields.wrong("function_call", accepted));
        }
    };
    let Some(functions) = functions else {
        body.remove("functions");
        body.remove("function_call");
        return Ok(Offer::Tools);
    };
    for (name, other) in [("functions", "tools"), ("function_call", "tool_choice")] {
        if fields.get(name).is_some() && fields.get(other).is_some() {
            return Err(together(name, other));
        }
    }
    if fields.flag("parallel_tool_calls")? == Some(true) {
        let message =
            "parallel_tool_calls: an answer calls one of the functions; offer them as `tools`";
        return Err(ApiError::invalid("parallel_tool_calls", message));
    }
    let mut tools = Vec::with_capacity(functions.len());
    for (at, function) in functions.iter().enumerate() {
        if !function.is_object() {
            let param = format!("functions[{at}]");
            let message = format!("{param}: expected a function, an object");
            return Err(ApiError::invalid(param, message));
        }
        tools.push(json!({"type": "function", "function": function}));
    }
    body.remove("functions");
    body.remove("function_call");
    body.insert("tools".to_owned(), tools.into());
    body.insert("parallel_tool_calls".to_owned(), false.into());
    if let Some(choice) = choice {
        body.insert("tool_choice".to_owned(), choice);
    }
    Ok(Offer::Functions)
}

fn together(field: &str, other: &str) -> ApiError {
    let message = format!("{field}: not together with {other}");
    ApiError::invalid(field, message)
}

impl Old {
    /// The error with its field named as the caller wrote it.
    pub(super) fn error(&self, error: ApiError) -> ApiError {
        renamed::error(error, |param| self.name(param))
    }

    /// The same for a warning, which begins with its field.
    pub(super) fn warning(&self, warning: &str) -> String {
        renamed::text(warning, |param| self.name(param))
    }

    fn name(&self, param: &str) -> String {
        let of_call = self.calls.iter().find_map(|at| {
            let rest = param.strip_prefix(&format!("messages[{at}].tool_calls"))?;
            let rest = rest.strip_prefix("[0]").unwrap_or(rest);
            let rest = rest.strip_prefix(".function").unwrap_or(rest);
            Some(format!("messages[{at}].function_call{rest}"))
        });
        if let Some(named) = of_call {
            return named;
        }
        if self.offer == Offer::Tools {
            return param.to_owned();
        }
        let renamed = RENAMED.iter().find_map(|(ours, theirs)| {
            let rest = param.strip_prefix(ours)?;
            let whole = rest.is_empty() || rest.starts_with(['.', '[']);
            whole.then(|| format!("{theirs}{}", rest.replacen(".function", "", 1)))
        });
        renamed.unwrap_or_else(|| param.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(mut body: Value) -> Result<(Value, Old), String> {
        let old = translate(body.as_object_mut().unwrap()).map_err(|error| error.to_string())?;
        Ok((body, old))
    }

    #[test]
    fn functions_and_their_history_become_tools() {
        let (body, old) = translated(json!({
            "messages": [
                {"role": "user", "content": "Go."},
                {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "gone"},
            ],
            "functions": [{"name": "f", "parameters": {}}],
            "function_call": {"name": "f"},
        }))
        .unwrap();
        assert_eq!(old.offer, Offer::Functions);
        insta::assert_snapshot!(body, @r#"{"messages":[{"role":"user","content":"Go."},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","name":"f","content":"gone","tool_call_id":"call_1"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"parallel_tool_calls":false,"tool_choice":{"type":"function","function":{"name":"f"}}}"#);
        insta::assert_snapshot!(old.name("messages[1].tool_calls[0].function.arguments"), @"messages[1].function_call.arguments");
        insta::assert_snapshot!(old.name("tools[0].function.parameters#/a"), @"functions[0].parameters#/a");
        insta::assert_snapshot!(old.name("tool_choice.function.name"), @"function_call.name");
        insta::assert_snapshot!(old.name("messages[2].content"), @"messages[2].content");
    }

    #[test]
    fn a_request_of_today_stays_as_it_is() {
        let body = json!({"messages": [{"role": "user", "content": "a"}], "tools": [], "tool_choice": "auto"});
        let (same, old) = translated(body.clone()).unwrap();
        assert_eq!(same, body);
        assert_eq!(old.offer, Offer::Tools);
        assert_eq!(old.name("tools[0].function.name"), "tools[0].function.name");
    }
}

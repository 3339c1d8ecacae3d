//! Ollama's messages in the shape of OpenAI's: calls get ids, and results find the call they answer.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::asked;
use crate::api::{error::ApiError, fields::Fields};

/// The field `messages`, where it is not empty.
pub(super) fn translate(fields: Fields<'_>) -> Result<Vec<Value>, ApiError> {
    let messages = fields.array("messages")?.map_or(&[][..], Vec::as_slice);
    let mut open = Calls::default();
    let translated = messages.iter().enumerate().map(|(at, message)| {
        let path = format!("messages[{at}]");
        let Some(object) = message.as_object() else {
            let message = format!("{path}: expected an object");
            return Err(ApiError::invalid(path, message));
        };
        translate_one(&path, object, &mut open)
    });
    translated.collect()
}

/// Calls that have no result yet, oldest first.
#[derive(Default)]
struct Calls {
    open: VecDeque<(String, String)>,
    made: usize,
}

impl Calls {
    fn make(&mut self, id: Option<&str>, name: &str) -> String {
        self.made += 1;
        let id = id.map_or_else(|| format!("call_{}", self.made), str::to_owned);
        self.open.push_back((id.clone(), name.to_owned()));
        id
    }

    /// The id of the oldest call of this tool, or of any where no tool is named.
    fn answer(&mut self, name: Option<&str>) -> Option<(String, String)> {
        let fits = |(_, called): &(String, String)| name.is_none_or(|name| name == called);
        let at = self.open.iter().position(fits)?;
        self.open.remove(at)
    }
}

fn translate_one(
    path: &str,
    object: &Map<String, Value>,
    calls: &mut Calls,
) -> Result<Value, ApiError> {
    let dotted = format!("{path}.");
    let fields = Fields::within(object, &dotted);
    let role = fields.text("role")?.unwrap_or_default().to_lowercase();
    let content = asked::content(fields, fields.text("content")?.unwrap_or_default())?;
    let mut message = json!({"role": role, "content": content});
    match role.as_str() {
        "assistant" => {
            if let Some(thoughts) = fields.text("thinking")?.filter(|text| !text.is_empty()) {
                message["reasoning_content"] = thoughts.into();
            }
            if let Some(made) = fields.array("tool_calls")?.filter(|made| !made.is_empty()) {
                let made = made.iter().enumerate();
                let made = made
                    .map(|(at, call)| tool_call(&format!("{path}.tool_calls[{at}]"), call, calls));
                message["tool_calls"] = made.collect::<Result<Vec<_>, _>>()?.into();
            }
        }
        "tool" => {
            let name = match fields.text("tool_name")? {
                None => fields.text("name")?,
                name => name,
            };
            let found = calls.answer(name);
            let id = fields.text("tool_call_id")?.map(str::to_owned);
            if let Some(id) = id.or_else(|| found.as_ref().map(|(id, _)| id.clone())) {
                message["tool_call_id"] = id.into();
            }
            if let Some(name) = name
                .map(str::to_owned)
                .or_else(|| found.map(|(_, name)| name))
            {
                message["name"] = name.into();
            }
        }
        _ => {}
    }
    Ok(message)
}

fn tool_call(path: &str, call: &Value, calls: &mut Calls) -> Result<Value, ApiError> {
    let function = &call["function"];
    let Some(name) = function["name"].as_str() else {
        let param = format!("{path}.function.name");
        let message = format!("{param}: expected a string");
        return Err(ApiError::invalid(param, message));
    };
    let arguments = match &function["arguments"] {
        Value::Null => json!({}),
        arguments @ (Value::Object(_) | Value::String(_)) => arguments.clone(),
        _ => {
            let param = format!("{path}.function.arguments");
            let message = format!("{param}: expected an object");
            return Err(ApiError::invalid(param, message));
        }
    };
    let id = calls.make(call["id"].as_str().filter(|id| !id.is_empty()), name);
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(messages: Value) -> Result<Value, String> {
        let body = Map::from_iter([("messages".to_owned(), messages)]);
        let translated = translate(Fields::new(&body)).map_err(|error| error.to_string())?;
        Ok(translated.into())
    }

    #[test]
    fn results_find_the_calls_they_answer() {
        let call = |name| json!({"function": {"name": name, "arguments": {"x": 1}}});
        let messages = translated(json!([
            {"role": "USER", "content": "Go"},
            {"role": "assistant", "thinking": "Hm.", "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_name": "b", "content": "2"},
            {"role": "tool", "content": "1"},
        ]));
        let messages = messages.unwrap();
        assert_eq!(messages[0]["role"], "user");
        assert_eq!(messages[1]["reasoning_content"], "Hm.");
        assert_eq!(
            messages[1]["tool_calls"][1]["id"],
            messages[2]["tool_call_id"]
        );
        assert_eq!(
            messages[1]["tool_calls"][0]["id"],
            messages[3]["tool_call_id"]
        );
        assert_eq!(messages[3]["name"], "a");
        assert_eq!(
            messages[1]["tool_calls"][0]["function"]["arguments"],
            json!({"x": 1})
        );
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        let no = |message| translated(json!([message])).unwrap_err();
        insta::assert_snapshot!(no(json!({"role": "user", "images": [1]})), @"messages[0].images: expected an array of images in base64, got an array of 1");
        insta::assert_snapshot!(no(json!({"role": "assistant", "tool_calls": [{}]})), @"messages[0].tool_calls[0].function.name: expected a string");
        insta::assert_snapshot!(no(json!({"role": "user", "content": []})), @"messages[0].content: expected a string, got an array of 0");
        insta::assert_snapshot!(no(json!("hi")), @"messages[0]: expected an object");
    }
}

//! The body of a chat request, checked field by field and brought into the one form the shim takes.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Capabilities, ChatError, hermes,
    messages::messages,
    schema,
    tools::{self, Tool},
};

/// What the shim's `shim_chat_apply` takes, every field present.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    messages: Vec<Value>,
    tools: Option<Vec<Tool>>,
    tool_choice: &'static str,
    pub(super) parallel_tool_calls: bool,
    json_schema: Option<Value>,
    add_generation_prompt: bool,
    continuation: &'static str,
    enable_thinking: bool,
    reasoning_format: &'static str,
    chat_template_kwargs: Map<String, Value>,
    /// Where `json_schema` stood in the request.
    #[serde(skip)]
    schema_path: &'static str,
    /// The caller's own GBNF; the template has no part in it.
    #[serde(skip)]
    pub(super) grammar: Option<String>,
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

impl Request {
    pub(super) fn read(body: &Value, can: Capabilities) -> Result<Self, ChatError> {
        let body = body
            .as_object()
            .ok_or_else(|| wrong("request", "an object", body))?;
        let mut warnings = Vec::new();
        let messages = messages(body)?;
        let (tools, tool_choice) = tools::tools(body, can, &mut warnings)?;
        let grammar = text(body, "grammar")?
            .filter(|gbnf| !gbnf.is_empty())
            .map(str::to_owned);
        let (schema_path, json_schema) = json_schema(body)?.unzip();
        if grammar.is_some() && json_schema.is_some() {
            return Err(invalid("grammar: not together with a JSON schema"));
        }
        let calls_tools = tools.is_some() && tool_choice != "none";
        if grammar.is_some() && calls_tools {
            return Err(invalid("grammar: not together with tools"));
        }
        if json_schema.is_some() && calls_tools {
            no_tools("response_format", tool_choice, &mut warnings)?;
        }
        let (continuation, add_generation_prompt) = continuation(body, &messages)?;
        let (enable_thinking, chat_template_kwargs) = template_arguments(body)?;
        Ok(Self {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls: flag(body, "parallel_tool_calls")?
                .unwrap_or(can.parallel_tool_calls),
            json_schema,
            schema_path: schema_path.unwrap_or_default(),
            add_generation_prompt,
            continuation,
            enable_thinking,
            reasoning_format: one_of(
                body,
                "reasoning_format",
                &["auto", "none", "deepseek", "deepseek-legacy"],
            )?,
            chat_template_kwargs,
            grammar,
            warnings,
        })
    }

    /// The same for a template that knows neither tools nor calls: both are text among the messages.
    pub(super) fn without_calls(&self) -> Value {
        let mut plain = json!(self);
        let told = self.tools.as_deref().filter(|_| self.tool_choice != "none");
        plain["messages"] = hermes::plain(&self.messages, told.unwrap_or_default()).into();
        plain["tools"] = Value::Null;
        plain["tool_choice"] = "auto".into();
        plain
    }

    /// As much of it as the form of an answer with calls depends on; `None`: no tool may be called.
    pub(super) fn form_of_calls(&self) -> Option<Value> {
        let called = self.tools.is_some() && self.tool_choice != "none";
        if !called || self.json_schema.is_some() {
            return None;
        }
        let mut form = json!(self);
        let mut messages = vec![json!({"role": "user", "content": "?"})];
        if self.continuation != "none" {
            messages.extend(self.messages.last().cloned());
        }
        form["messages"] = messages.into();
        form["chat_template_kwargs"] = json!({});
        Some(form)
    }

    /// For an answer that the field `asked_by` gives a form.
    pub(super) fn without_tools(mut self, asked_by: &str) -> Result<Self, ChatError> {
        if self.tools.is_some() && self.tool_choice != "none" {
            no_tools(asked_by, self.tool_choice, &mut self.warnings)?;
            self.tool_choice = "none";
        }
        Ok(self)
    }

    /// Asks for less of the tools' arguments after llama.cpp refused their schemas. `false`: nothing is left to give up.
    pub(super) fn relax(&mut self, why: &str) -> bool {
        let Some(tools) = &mut self.tools else {
            return false;
        };
        let schemas = self.json_schema.is_none() && strip(why).starts_with("JSON schema");
        schemas && tools::relax(tools, &mut self.warnings)
    }

    /// What llama.cpp refused of this request, with the field as far as it can be told.
    pub(super) fn refusal(&self, why: &str) -> ChatError {
        let why = strip(why);
        if !why.starts_with("JSON schema") {
            return invalid(why);
        }
        let path = match self.json_schema {
            Some(_) => self.schema_path,
            None => "tools",
        };
        invalid(format!("{path}: {}", why.replace('\n', " ")))
    }
}

/// The cause, without llama.cpp's own way of passing it on.
fn strip(why: &str) -> &str {
    const PREFIX: &str =
        "Unable to generate parser for this template. Automatic parser generation failed: ";
    why.strip_prefix(PREFIX).unwrap_or(why)
}

/// An answer with a form of its own is no tool call.
fn no_tools(
    asked_by: &str,
    tool_choice: &str,
    warnings: &mut Vec<String>,
) -> Result<(), ChatError> {
    if tool_choice == "required" {
        return Err(invalid(format!(
            "{asked_by}: leaves no room for the tool call that tool_choice demands"
        )));
    }
    warnings.push(format!("{asked_by}: an answer of this form calls no tool"));
    Ok(())
}

/// The schema the answer must follow, from `response_format` or `json_schema`; `{}` is any object.
fn json_schema(body: &Map<String, Value>) -> Result<Option<(&'static str, Value)>, ChatError> {
    let any_object = || json!({"type": "object"});
    let mut schema = present(body, "json_schema").map(|schema| ("json_schema", schema.clone()));
    if let Some(format) = present(body, "response_format") {
        let kind = &format["type"];
        schema = match kind.as_str() {
            Some("text") => schema,
            Some("json_object") => match &format["schema"] {
                Value::Null => schema.or_else(|| Some(("response_format", any_object()))),
                given => Some(("response_format.schema", given.clone())),
            },
            Some("json_schema") => {
                let wrapper = &format["json_schema"];
                if !wrapper.is_object() {
                    return Err(wrong("response_format.json_schema", "an object", wrapper));
                }
                let schema = match &wrapper["schema"] {
                    Value::Null => any_object(),
                    given => given.clone(),
                };
                Some(("response_format.json_schema.schema", schema))
            }
            _ => {
                let accepted = r#""text", "json_object" or "json_schema""#;
                return Err(wrong("response_format.type", accepted, kind));
            }
        };
    }
    let Some((path, schema)) = schema else {
        return Ok(None);
    };
    schema::check(path, &schema)?;
    let empty = schema.as_object().is_some_and(Map::is_empty);
    Ok(Some((path, if empty { any_object() } else { schema })))
}

/// How the last message is to be continued, and whether a new one is begun instead.
fn continuation(
    body: &Map<String, Value>,
    messages: &[Value],
) -> Result<(&'static str, bool), ChatError> {
    let begin = flag(body, "add_generation_prompt")?;
    let asked = match present(body, "continue_final_message") {
        None | Some(Value::Bool(false)) => "none",
        Some(Value::Bool(true)) => "auto",
        Some(Value::String(part)) if part == "reasoning_content" => "reasoning",
        Some(Value::String(part)) if part == "content" => "content",
        Some(other) => {
            let accepted = r#"a boolean, "content" or "reasoning_content""#;
            return Err(wrong("continue_final_message", accepted, other));
        }
    };
    let role = |back: usize| {
        let at = messages.len().checked_sub(back)?;
        messages.get(at)?["role"].as_str()
    };
    let last = messages.len().saturating_sub(1);
    let continues = match asked {
        // As in llama-server, an assistant message at the end is the beginning of the answer.
        "none" if role(1) == Some("assistant") => "auto",
        "none" => return Ok(("none", begin.unwrap_or(true))),
        asked => asked,
    };
    if asked != "none" && begin == Some(true) {
        return Err(invalid(
            "continue_final_message: not together with add_generation_prompt",
        ));
    }
    if role(1) != Some("assistant") {
        return Err(invalid(
            "continue_final_message: the last message is not the assistant's",
        ));
    }
    if role(2) == Some("assistant") {
        return Err(invalid(format!(
            "messages[{last}]: two assistant messages at the end; which one to continue is unclear"
        )));
    }
    if messages[last].get("tool_calls").is_some() {
        return Err(invalid(format!(
            "messages[{last}]: an assistant message with tool calls cannot be continued"
        )));
    }
    Ok((continues, false))
}

/// Whether to think, and the template's own variables.
fn template_arguments(body: &Map<String, Value>) -> Result<(bool, Map<String, Value>), ChatError> {
    let mut thinking = flag(body, "enable_thinking")?.unwrap_or(true);
    let mut arguments = match present(body, "chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(other) => return Err(wrong("chat_template_kwargs", "an object", other)),
    };
    // These are the render's own.
    for name in ["messages", "tools", "add_generation_prompt"] {
        if arguments.contains_key(name) {
            return Err(invalid(format!(
                "chat_template_kwargs.{name}: set {name} in the request itself"
            )));
        }
    }
    match arguments.get("enable_thinking") {
        None => {}
        Some(Value::Bool(yes)) => thinking = *yes,
        Some(other) => {
            let path = "chat_template_kwargs.enable_thinking";
            return Err(wrong(path, "a boolean", other));
        }
    }
    match text(body, "reasoning_effort")? {
        None | Some("") => {}
        Some("none") => {
            thinking = false;
            arguments.remove("reasoning_effort");
        }
        Some(effort) => {
            arguments.insert("reasoning_effort".to_owned(), effort.into());
        }
    }
    Ok((thinking, arguments))
}

/// The first of `accepted` is the default.
fn one_of(
    body: &Map<String, Value>,
    key: &str,
    accepted: &[&'static str],
) -> Result<&'static str, ChatError> {
    let Some(given) = present(body, key) else {
        return Ok(accepted[0]);
    };
    let found = accepted.iter().find(|word| given == **word);
    found.copied().ok_or_else(|| {
        let accepted = format!("one of {accepted:?}");
        wrong(key, &accepted, given)
    })
}

/// The field, unless it is absent or null: clients send both for "not set".
pub(super) fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn flag(object: &Map<String, Value>, key: &str) -> Result<Option<bool>, ChatError> {
    present(object, key)
        .map(|value| {
            value
                .as_bool()
                .ok_or_else(|| wrong(key, "a boolean", value))
        })
        .transpose()
}

/// As [`flag`], inside the object at `path`.
pub(super) fn flag_at(
    path: &str,
    object: &Map<String, Value>,
    key: &str,
) -> Result<Option<bool>, ChatError> {
    present(object, key)
        .map(|value| {
            let wrong = || wrong(format!("{path}.{key}"), "a boolean", value);
            value.as_bool().ok_or_else(wrong)
        })
        .transpose()
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ChatError> {
    present(object, key)
        .map(|value| value.as_str().ok_or_else(|| wrong(key, "a string", value)))
        .transpose()
}

/// As [`text`], inside the object at `path`.
pub(super) fn text_at<'a>(
    path: &str,
    object: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, ChatError> {
    present(object, key)
        .map(|value| {
            value
                .as_str()
                .ok_or_else(|| wrong(format!("{path}.{key}"), "a string", value))
        })
        .transpose()
}

pub(super) fn invalid(message: impl Into<String>) -> ChatError {
    ChatError::Invalid(message.into())
}

/// "path: expected this, got that"
pub(super) fn wrong(path: impl Display, accepted: &str, got: &Value) -> ChatError {
    const SHOWN_CHARS: usize = 60;
    let got = match got {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => {
            let text = plain.to_string();
            match text.char_indices().nth(SHOWN_CHARS) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    };
    ChatError::Invalid(format!("{path}: expected {accepted}, got {got}"))
}

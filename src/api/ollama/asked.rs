//! What chat and generate have in common: the fields that are no messages, in the shape of OpenAI's.

use serde_json::{Map, Value, json};

use super::{keep_alive::KeepAlive, names, options};
use crate::api::{Service, error::ApiError, fields::Fields};

/// A request, apart from what it says to the model.
pub(super) struct Asked {
    /// The model, as the caller calls it.
    pub(super) model: String,
    /// The body in OpenAI's shape, without messages.
    pub(super) body: Map<String, Value>,
    /// Alternatives for each token, when log-probabilities are wanted.
    pub(super) logprobs: Option<u8>,
    /// What of the request has no effect.
    pub(super) warnings: Vec<String>,
}

/// Fields that would change the answer and are not offered; let pass where they say nothing.
const UNSUPPORTED: [(&str, &str); 5] = [
    (
        "_debug_render_only",
        "/apply-template shows the prompt of a chat",
    ),
    ("height", "this server makes no images"),
    ("steps", "this server makes no images"),
    (
        "template",
        "it is set in the server's configuration (model.chat_template)",
    ),
    ("width", "this server makes no images"),
];

impl Asked {
    pub(super) fn read(fields: Fields<'_>, service: &Service) -> Result<Self, ApiError> {
        let model = names::wanted(fields, service)?;
        let (engine, chat) = service.work.generator()?;
        refuse(fields)?;
        KeepAlive::read(fields)?;
        // A context that is too long is refused either way: nothing of what was said is left out silently.
        fields.flag("truncate")?;
        fields.flag("shift")?;
        let mut body = Map::new();
        let stream = fields.flag("stream")?.unwrap_or(true);
        body.insert("stream".to_owned(), stream.into());
        format(fields, &mut body)?;
        think(fields, &model, chat.capabilities().thinking, &mut body)?;
        let warnings = options::translate(fields, engine.shape().context, &mut body)?;
        let logprobs = logprobs(fields)?;
        if let Some(top) = logprobs {
            body.insert("logprobs".to_owned(), true.into());
            body.insert("top_logprobs".to_owned(), top.into());
        }
        Ok(Self {
            model,
            body,
            logprobs,
            warnings,
        })
    }
}

/// What a message says, with the images that come with it: they are base64 without more.
pub(super) fn content(fields: Fields<'_>, text: &str) -> Result<Value, ApiError> {
    let images = fields.array("images")?.map_or(&[][..], Vec::as_slice);
    if images.is_empty() {
        return Ok(text.into());
    }
    let mut parts = Vec::with_capacity(images.len() + 1);
    for image in images {
        let Some(base64) = image.as_str() else {
            return Err(fields.wrong("images", "an array of images in base64"));
        };
        let image = json!({"url": format!("data:;base64,{base64}")});
        parts.push(json!({"type": "image_url", "image_url": image}));
    }
    parts.push(json!({"type": "text", "text": text}));
    Ok(parts.into())
}

fn refuse(fields: Fields<'_>) -> Result<(), ApiError> {
    let off = |value: &Value| match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Object(_) => false,
    };
    for (name, why) in UNSUPPORTED {
        if fields.get(name).is_some_and(|value| !off(value)) {
            return Err(ApiError::invalid(
                name,
                format!("{name}: not supported, for {why}"),
            ));
        }
    }
    Ok(())
}

fn format(fields: Fields<'_>, body: &mut Map<String, Value>) -> Result<(), ApiError> {
    match fields.get("format") {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) if text == "json" => {
            let any = json!({"type": "json_object"});
            body.insert("response_format".to_owned(), any);
        }
        Some(schema @ Value::Object(_)) => {
            body.insert("json_schema".to_owned(), schema.clone());
        }
        Some(_) => return Err(fields.wrong("format", "\"json\" or a JSON schema")),
    }
    Ok(())
}

fn think(
    fields: Fields<'_>,
    model: &str,
    can: bool,
    body: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let effort = match fields.get("think") {
        None => return Ok(()),
        Some(Value::Bool(false)) => {
            body.insert("enable_thinking".to_owned(), false.into());
            return Ok(());
        }
        Some(Value::Bool(true)) => None,
        Some(Value::String(level)) => match level.as_str() {
            level @ ("low" | "medium" | "high") => Some(level),
            "max" => Some("high"),
            _ => return Err(wrong_think(fields)),
        },
        Some(_) => return Err(wrong_think(fields)),
    };
    if !can {
        let message = format!("think: \"{model}\" does not support thinking");
        return Err(ApiError::invalid("think", message));
    }
    body.insert("enable_thinking".to_owned(), true.into());
    if let Some(effort) = effort {
        body.insert("reasoning_effort".to_owned(), effort.into());
    }
    Ok(())
}

fn wrong_think(fields: Fields<'_>) -> ApiError {
    fields.wrong(
        "think",
        "true, false, \"low\", \"medium\", \"high\" or \"max\"",
    )
}

fn logprobs(fields: Fields<'_>) -> Result<Option<u8>, ApiError> {
    let top = fields.integer::<u8>("top_logprobs", 0..=20)?.unwrap_or(0);
    match fields.flag("logprobs")? {
        Some(true) => Ok(Some(top)),
        Some(false) | None if top > 0 => {
            let message = "top_logprobs: only together with `logprobs: true`";
            Err(ApiError::invalid("top_logprobs", message))
        }
        Some(false) | None => Ok(None),
    }
}

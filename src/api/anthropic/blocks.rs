//! Content blocks of the conversation's messages, one by one.

use serde_json::{Value, json};

use super::{documents, messages::text_part};
use crate::api::{error::ApiError, fields::Fields};

/// What a content block says.
pub(super) enum Block {
    /// Of the user, in the shape of OpenAI's parts.
    Part(Value),
    /// Each part with the number of the block inside that it came from.
    ToolResult {
        id: String,
        parts: Vec<(usize, Value)>,
    },
    /// Of the assistant.
    Text(String),
    Thinking(String),
    /// Thinking that only Anthropic can read.
    Redacted,
    /// `input`: JSON text.
    ToolUse {
        id: String,
        name: String,
        input: String,
    },
}

/// A block of a user's message.
pub(super) fn read_user(path: &str, block: &Value) -> Result<Block, ApiError> {
    let inside = format!("{path}.");
    let block = Fields::within(documents::object(path, block)?, &inside);
    let text = match block.text("type")? {
        Some("text") => documents::text(block)?.to_owned(),
        Some("document") => documents::document(path, block)?,
        Some("search_result") => documents::search_result(path, block)?,
        Some("image") => return image(path, block).map(Block::Part),
        Some("tool_result") => return tool_result(path, block),
        _ => {
            let accepted =
                "\"text\", \"image\", \"document\", \"search_result\" or \"tool_result\"";
            return Err(block.wrong("type", accepted));
        }
    };
    Ok(Block::Part(text_part(&text)))
}

/// A block of an assistant's message.
pub(super) fn read_assistant(path: &str, block: &Value) -> Result<Block, ApiError> {
    let inside = format!("{path}.");
    let block = Fields::within(documents::object(path, block)?, &inside);
    match block.text("type")? {
        Some("text") => Ok(Block::Text(documents::text(block)?.to_owned())),
        Some("thinking") => Ok(Block::Thinking(needed(block, "thinking")?.to_owned())),
        Some("redacted_thinking") => Ok(Block::Redacted),
        Some("tool_use") => {
            let Some(input) = block.object("input")? else {
                return Err(block.wrong("input", "an object"));
            };
            Ok(Block::ToolUse {
                id: inward(needed(block, "id")?),
                name: needed(block, "name")?.to_owned(),
                input: Value::Object(input.clone()).to_string(),
            })
        }
        _ => {
            let accepted = "\"text\", \"thinking\", \"redacted_thinking\" or \"tool_use\" (no tool runs on this server)";
            Err(block.wrong("type", accepted))
        }
    }
}

fn needed<'a>(block: Fields<'a>, name: &str) -> Result<&'a str, ApiError> {
    let text = block.text(name)?;
    text.ok_or_else(|| block.wrong(name, "a string"))
}

const ID_PREFIX: &str = "toolu_";

/// The id of a call as clients see it. The model's own stays in it, for some templates write ids into the prompt.
pub(super) fn outward(id: &str) -> Option<String> {
    let own = id.strip_prefix("call_").unwrap_or(id);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let usable = !own.is_empty() && own.bytes().all(plain);
    usable.then(|| format!("{ID_PREFIX}{own}"))
}

fn inward(id: &str) -> String {
    id.strip_prefix(ID_PREFIX).unwrap_or(id).to_owned()
}

fn image(path: &str, block: Fields<'_>) -> Result<Value, ApiError> {
    let Some(source) = block.object("source")? else {
        return Err(block.wrong("source", "an object"));
    };
    let inside = format!("{path}.source.");
    let source = Fields::within(source, &inside);
    let url = match source.text("type")? {
        Some("base64") => {
            let kind = needed(source, "media_type")?;
            format!("data:{kind};base64,{}", needed(source, "data")?)
        }
        Some("url") => needed(source, "url")?.to_owned(),
        _ => return Err(source.wrong("type", "\"base64\" or \"url\"")),
    };
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}

fn tool_result(path: &str, block: Fields<'_>) -> Result<Block, ApiError> {
    let mut parts = match block.get("content") {
        None => vec![(0, text_part(""))],
        Some(Value::String(text)) => vec![(0, text_part(text))],
        Some(Value::Array(blocks)) => {
            let parts = blocks.iter().enumerate().map(|(at, block)| {
                let path = format!("{path}.content[{at}]");
                Ok((at, result_part(&path, block)?))
            });
            parts.collect::<Result<Vec<_>, ApiError>>()?
        }
        Some(_) => {
            return Err(block.wrong("content", "a string or an array of content blocks"));
        }
    };
    // Templates have no place for it but the text.
    if block.flag("is_error")? == Some(true) {
        let text = parts.first().and_then(|(_, part)| part["text"].as_str());
        match text.map(str::to_owned) {
            Some(text) if says_error(&text) => {}
            Some(text) => parts[0].1 = text_part(&format!("Error: {text}")),
            None => parts.insert(0, (0, text_part("Error:"))),
        }
    }
    Ok(Block::ToolResult {
        id: inward(needed(block, "tool_use_id")?),
        parts,
    })
}

fn says_error(text: &str) -> bool {
    let head = text.get(..24).unwrap_or(text);
    head.to_ascii_lowercase().contains("error")
}

fn result_part(path: &str, block: &Value) -> Result<Value, ApiError> {
    let inside = format!("{path}.");
    let block = Fields::within(documents::object(path, block)?, &inside);
    let text = match block.text("type")? {
        Some("text") => documents::text(block)?.to_owned(),
        Some("document") => documents::document(path, block)?,
        Some("search_result") => documents::search_result(path, block)?,
        // Found by a search among tools. All of them are in the prompt already.
        Some("tool_reference") => needed(block, "tool_name")?.to_owned(),
        Some("image") => return image(path, block),
        _ => {
            let accepted =
                "\"text\", \"image\", \"document\", \"search_result\" or \"tool_reference\"";
            return Err(block.wrong("type", accepted));
        }
    };
    Ok(text_part(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_own_id_comes_back_as_it_was() {
        assert_eq!(outward("call_aB3"), Some("toolu_aB3".to_owned()));
        let out = outward("123456789").unwrap();
        assert_eq!(inward(&out), "123456789");
        assert_eq!(outward("functions.f:0"), None);
        assert_eq!(outward(""), None);
    }
}

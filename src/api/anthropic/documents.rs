//! Content blocks that are read as text: texts, documents, search results.

use serde_json::{Map, Value};

use crate::api::{error::ApiError, fields::Fields};

/// The object at `path`, which an array of blocks holds.
pub(super) fn object<'a>(path: &str, block: &'a Value) -> Result<&'a Map<String, Value>, ApiError> {
    block.as_object().ok_or_else(|| {
        ApiError::invalid(path, format!("{path}: expected a content block, an object"))
    })
}

/// The texts of blocks that may be nothing else.
pub(super) fn text_blocks(path: &str, blocks: &[Value]) -> Result<Vec<String>, ApiError> {
    let texts = blocks.iter().enumerate().map(|(i, block)| {
        let path = format!("{path}[{i}]");
        let inside = format!("{path}.");
        let block = Fields::within(object(&path, block)?, &inside);
        match block.text("type")? {
            Some("text") => text(block).map(str::to_owned),
            _ => Err(block.wrong("type", "\"text\"")),
        }
    });
    texts.collect()
}

/// Of a text block.
pub(super) fn text(block: Fields<'_>) -> Result<&str, ApiError> {
    let text = block.text("text")?;
    text.ok_or_else(|| block.wrong("text", "a string"))
}

/// A `document` block as text, under its title and context.
pub(super) fn document(path: &str, block: Fields<'_>) -> Result<String, ApiError> {
    no_citations(path, block)?;
    let Some(source) = block.object("source")? else {
        return Err(block.wrong("source", "an object"));
    };
    let inside = format!("{path}.source.");
    let source = Fields::within(source, &inside);
    let body = match source.text("type")? {
        Some("text") => {
            let data = source.text("data")?;
            data.ok_or_else(|| source.wrong("data", "a string"))?
                .to_owned()
        }
        Some("content") => match source.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(blocks)) => {
                text_blocks(&format!("{path}.source.content"), blocks)?.join("\n")
            }
            _ => return Err(source.wrong("content", "a string or an array of text blocks")),
        },
        _ => {
            return Err(source.wrong(
                "type",
                "\"text\" or \"content\" (PDF files and files by URL or id are not read here)",
            ));
        }
    };
    let head = [block.text("title")?, block.text("context")?];
    Ok(under(head, &body))
}

/// A `search_result` block as text, under its title and source.
pub(super) fn search_result(path: &str, block: Fields<'_>) -> Result<String, ApiError> {
    no_citations(path, block)?;
    let Some(content) = block.array("content")? else {
        return Err(block.wrong("content", "an array of text blocks"));
    };
    let body = text_blocks(&format!("{path}.content"), content)?.join("\n");
    Ok(under([block.text("title")?, block.text("source")?], &body))
}

fn under(head: [Option<&str>; 2], body: &str) -> String {
    let mut lines: Vec<_> = head.into_iter().flatten().collect();
    lines.push(body);
    lines.join("\n")
}

/// Nothing here tells which part of a text an answer came from.
fn no_citations(path: &str, block: Fields<'_>) -> Result<(), ApiError> {
    let Some(citations) = block.object("citations")? else {
        return Ok(());
    };
    let inside = format!("{path}.citations.");
    match Fields::within(citations, &inside).flag("enabled")? {
        Some(true) => {
            let param = format!("{path}.citations.enabled");
            let message = format!("{param}: this server gives no citations; leave it out");
            Err(ApiError::invalid(param, message))
        }
        Some(false) | None => Ok(()),
    }
}

//! The system prompt, without the line that is new in every request of one client.

use serde_json::Value;

use super::documents::text_blocks;
use crate::{
    api::{error::ApiError, fields::Fields},
    config::Normalize,
};

/// Claude Code's, at the beginning of the system prompt. Among its values is `cch=…`, another one for each request.
const BILLING: &str = "x-anthropic-billing-header:";

/// The field `system`: a text, or blocks of text.
pub(super) fn read(body: Fields<'_>, normalize: Normalize) -> Result<Option<String>, ApiError> {
    let texts = match body.get("system") {
        None => return Ok(None),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(blocks)) => text_blocks("system", blocks)?,
        Some(_) => return Err(body.wrong("system", "a string or an array of text blocks")),
    };
    let texts = texts.iter().map(|text| match normalize {
        Normalize::On => without_billing(text),
        Normalize::Off => text,
    });
    let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n")))
}

fn without_billing(text: &str) -> &str {
    if !text.starts_with(BILLING) {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn system(value: &Value, normalize: Normalize) -> Option<String> {
        let body = json!({"system": value});
        read(Fields::new(body.as_object().unwrap()), normalize).unwrap()
    }

    #[test]
    fn the_line_that_changes_with_every_request_is_left_out_if_wanted() {
        let line = "x-anthropic-billing-header: cc_version=2.1.0.abc; cch=0f1e2;";
        let blocks = json!([{"type": "text", "text": line}, {"type": "text", "text": "Be brief."}]);
        let text = json!(format!("{line}\nBe brief."));
        for given in [blocks, text] {
            let kept = system(&given, Normalize::On);
            assert_eq!(kept.as_deref(), Some("Be brief."));
            let kept = system(&given, Normalize::Off).unwrap();
            assert_eq!(kept, format!("{line}\nBe brief."));
        }
        assert_eq!(system(&json!(line), Normalize::On), None);
        let elsewhere = format!("What is this?\n{line}");
        assert_eq!(system(&json!(elsewhere), Normalize::On), Some(elsewhere));
    }
}

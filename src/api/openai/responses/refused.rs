//! Fields that this endpoint has under another name, and what it does not do.

use crate::api::{error::ApiError, fields::Fields};

/// Fields of a chat request that are said otherwise here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("messages", "`input`"),
    ("max_tokens", "`max_output_tokens`"),
    ("max_completion_tokens", "`max_output_tokens`"),
    ("n_predict", "`max_output_tokens`"),
    ("response_format", "`text.format`"),
    ("verbosity", "`text.verbosity`"),
    ("reasoning_effort", "`reasoning.effort`"),
    ("logprobs", "`include: [\"message.output_text.logprobs\"]`"),
    ("functions", "`tools`"),
    ("function_call", "`tool_choice`"),
    ("n", "one request for each answer"),
    (
        "continue_final_message",
        "an `input` that ends with the user",
    ),
];

/// Refuses what would have no effect.
pub(super) fn refuse(fields: Fields<'_>) -> Result<(), ApiError> {
    let no = |name: &str, why: &str| Err(ApiError::invalid(name, format!("{name}: {why}")));
    for (name, other) in ELSEWHERE {
        if fields.get(name).is_some() {
            return no(name, &format!("not a field of this endpoint; send {other}"));
        }
    }
    if fields.flag("background")? == Some(true) {
        return no(
            "background",
            "this server answers while you wait; send false",
        );
    }
    if fields.get("conversation").is_some() {
        let why = "conversations are not kept here; continue with `previous_response_id`";
        return no("conversation", why);
    }
    if fields.get("prompt").is_some() {
        return no(
            "prompt",
            "prompts are not kept here; send `instructions` and `input`",
        );
    }
    match fields.text("truncation")? {
        None | Some("disabled") => {}
        Some("auto") => {
            let why = "nothing is left out of a conversation here; send \"disabled\"";
            return no("truncation", why);
        }
        Some(_) => return Err(fields.wrong("truncation", "\"disabled\"")),
    }
    if fields
        .array("context_management")?
        .is_some_and(|list| !list.is_empty())
    {
        return no(
            "context_management",
            "this server does not support it; leave it out",
        );
    }
    let Some(options) = fields.object("stream_options")? else {
        return Ok(());
    };
    if fields.flag("stream")? != Some(true) {
        return no(
            "stream_options",
            "only allowed together with `stream: true`",
        );
    }
    let options = Fields::within(options, "stream_options.");
    if options.flag("include_obfuscation")? == Some(true) {
        let name = "stream_options.include_obfuscation";
        return no(name, "events are not padded here; send false");
    }
    Ok(())
}

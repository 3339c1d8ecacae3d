//! The body of a request, field by field, as a chat request with the same meaning.

use serde_json::{Map, Value, json};

use super::{
    messages::{self, Spoken},
    names::Names,
    system, tools,
};
use crate::{
    api::{error::ApiError, fields::Fields},
    config::Normalize,
};

/// What a body is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Answer,
    /// Its prompt's tokens are counted.
    Count,
}

/// What the answer's wording needs to know of the request.
pub(super) struct Asked {
    pub(super) stop_sequences: Vec<String>,
    pub(super) display: Display,
}

/// Whether the client gets the text of the model's thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Display {
    Shown,
    Omitted,
}

pub(super) struct Translated {
    pub(super) body: Map<String, Value>,
    pub(super) asked: Asked,
    pub(super) names: Names,
    /// What of the request has no effect.
    pub(super) warnings: Vec<String>,
}

/// Known to Anthropic, not to this server. What is empty asks for nothing.
const UNSUPPORTED: [&str; 4] = ["compaction", "container", "fallbacks", "mcp_servers"];

/// Names a conversation that a client believes to be kept here.
pub(super) const THREAD: &str = "thread.previous_message_id";

/// Of the chat's own parameters, those that callers of this endpoint may use as well: nothing of Anthropic's has their
/// names, and none of them changes how many answers there are or what they look like.
const PASSED: [&str; 36] = [
    "cache_prompt",
    "chat_template_kwargs",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "frequency_penalty",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "json_schema",
    "lark",
    "logit_bias",
    "min_p",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "model",
    "presence_penalty",
    "regex",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "seed",
    "stream",
    "structured_outputs",
    "top_n_sigma",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
];

pub(super) fn translate(
    body: &Map<String, Value>,
    purpose: Purpose,
    normalize: Normalize,
) -> Result<Translated, ApiError> {
    let fields = Fields::new(body);
    refuse_unsupported(fields)?;
    check_ignorable(fields)?;
    let mut chat = Map::new();
    for name in PASSED {
        if let Some(value) = fields.get(name) {
            chat.insert(name.to_owned(), value.clone());
        }
    }
    sampling(fields, purpose, &mut chat)?;
    let stop_sequences = stop_sequences(fields)?;
    if !stop_sequences.is_empty() {
        chat.insert("stop".to_owned(), stop_sequences.clone().into());
    }
    let system = system::read(fields, normalize)?;
    let Spoken {
        messages,
        origins,
        mut warnings,
    } = messages::read(fields, system)?;
    chat.insert("messages".to_owned(), messages.into());
    tools::read(fields, &mut chat)?;
    if begins_thread(fields)? {
        warnings.push("thread: no conversation is kept here; send all of it each time".to_owned());
    }
    let display = thinking(fields, &mut chat)?;
    let format = output(fields, &mut chat)?;
    if managed(fields)? {
        warnings.push(
            "context_management: nothing is edited here; the whole conversation is read".to_owned(),
        );
    }
    Ok(Translated {
        body: chat,
        asked: Asked {
            stop_sequences,
            display,
        },
        names: Names {
            messages: origins,
            format,
        },
        warnings,
    })
}

fn refuse_unsupported(fields: Fields<'_>) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        match fields.get(name) {
            None => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            // Those that this model has: none.
            Some(Value::String(word)) if name == "fallbacks" && word == "default" => {}
            Some(_) => {
                let message = format!("{name}: this server does not support it; leave it out");
                return Err(ApiError::invalid(name, message));
            }
        }
    }
    Ok(())
}

/// A conversation may begin as one that is kept: clients send all of it again once it turns out to be lost.
fn begins_thread(fields: Fields<'_>) -> Result<bool, ApiError> {
    let Some(thread) = fields.object("thread")? else {
        return Ok(false);
    };
    let thread = Fields::within(thread, "thread.");
    match thread.text("type")? {
        Some("create") => Ok(true),
        Some("continue") => {
            let message =
                format!("{THREAD}: no conversation is kept here; send all of its messages");
            Err(ApiError::invalid(THREAD, message))
        }
        _ => Err(thread.wrong("type", "\"create\"")),
    }
}

/// Fields that describe the request, or choose between what there is one of here.
fn check_ignorable(fields: Fields<'_>) -> Result<(), ApiError> {
    fields.object("metadata")?;
    fields.object("cache_control")?;
    fields.object("diagnostics")?;
    fields.text("inference_geo")?;
    for (name, accepted) in [
        ("service_tier", ["auto", "standard_only"]),
        ("speed", ["standard", "fast"]),
    ] {
        let [first, second] = accepted;
        if fields
            .text(name)?
            .is_some_and(|tier| !accepted.contains(&tier))
        {
            return Err(fields.wrong(name, format_args!("\"{first}\" or \"{second}\"")));
        }
    }
    Ok(())
}

fn sampling(
    fields: Fields<'_>,
    purpose: Purpose,
    chat: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    const RANGE: std::ops::RangeInclusive<i64> = 1..=u32::MAX as i64;
    let given = fields.integer::<u32>("max_tokens", RANGE)?;
    if given.is_none() && purpose == Purpose::Answer {
        return Err(fields.wrong("max_tokens", "an integer of at least 1"));
    }
    fields.number("temperature", 0.0..=1.0)?;
    fields.number("top_p", 0.0..=1.0)?;
    fields.integer::<i32>("top_k", 0..=i64::from(i32::MAX))?;
    for name in ["max_tokens", "temperature", "top_p", "top_k"] {
        if let Some(value) = fields.get(name) {
            chat.insert(name.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn stop_sequences(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let sequences = fields.array("stop_sequences")?.into_iter().flatten();
    let texts = sequences.map(|text| text.as_str().filter(|text| !text.is_empty()));
    let texts: Option<Vec<_>> = texts.map(|text| text.map(str::to_owned)).collect();
    texts.ok_or_else(|| {
        let message = "stop_sequences: expected an array of strings that are not empty";
        ApiError::invalid("stop_sequences", message)
    })
}

/// Without the field, the model thinks or not as it does by default.
fn thinking(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<Display, ApiError> {
    let Some(thinking) = fields.object("thinking")? else {
        return Ok(Display::Shown);
    };
    let thinking = Fields::within(thinking, "thinking.");
    let thinks = match thinking.text("type")? {
        Some("enabled") => {
            let range = 1..=i64::from(u32::MAX);
            let Some(tokens) = thinking.integer::<u32>("budget_tokens", range)? else {
                return Err(thinking.wrong("budget_tokens", "an integer of at least 1"));
            };
            chat.insert("thinking_budget_tokens".to_owned(), tokens.into());
            true
        }
        Some("adaptive" | "between_tools") => true,
        Some("disabled") => false,
        _ => {
            let accepted = "\"enabled\", \"disabled\", \"adaptive\" or \"between_tools\"";
            return Err(thinking.wrong("type", accepted));
        }
    };
    chat.insert("enable_thinking".to_owned(), thinks.into());
    match thinking.text("display")? {
        None | Some("summarized") => Ok(Display::Shown),
        Some("omitted") => Ok(Display::Omitted),
        Some(_) => Err(thinking.wrong("display", "\"summarized\" or \"omitted\"")),
    }
}

/// Effort and form of the answer. Returns where its schema stands.
fn output(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<&'static str, ApiError> {
    // Its name in older versions of the API.
    let mut format = fields.object("output_format")?;
    let (mut path, mut inside) = ("output_format.schema", "output_format.");
    if let Some(config) = fields.object("output_config")? {
        let config = Fields::within(config, "output_config.");
        if let Some(effort) = config.text("effort")? {
            let effort = match effort {
                "low" | "medium" | "high" => effort,
                // No template knows more.
                "xhigh" | "max" => "high",
                _ => {
                    let accepted = "\"low\", \"medium\", \"high\", \"xhigh\" or \"max\"";
                    return Err(config.wrong("effort", accepted));
                }
            };
            chat.insert("reasoning_effort".to_owned(), effort.into());
        }
        if let Some(newer) = config.object("format")? {
            format = Some(newer);
            (path, inside) = ("output_config.format.schema", "output_config.format.");
        }
    }
    let Some(format) = format else {
        return Ok(path);
    };
    let format = Fields::within(format, inside);
    if format.text("type")? != Some("json_schema") {
        return Err(format.wrong("type", "\"json_schema\""));
    }
    let Some(schema) = format.object("schema")? else {
        return Err(format.wrong("schema", "a JSON schema, an object"));
    };
    let wrapper = json!({"name": "output", "strict": true, "schema": schema});
    chat.insert(
        "response_format".to_owned(),
        json!({"type": "json_schema", "json_schema": wrapper}),
    );
    Ok(path)
}

/// Whether edits of the conversation are asked for that would change it.
fn managed(fields: Fields<'_>) -> Result<bool, ApiError> {
    let Some(management) = fields.object("context_management")? else {
        return Ok(false);
    };
    let management = Fields::within(management, "context_management.");
    let edits = management.array("edits")?.into_iter().flatten();
    // What is never dropped stays, which is all that happens here.
    let mut edits = edits.filter(|edit| edit["keep"] != "all");
    Ok(edits.next().is_some())
}

//! The fields of a completion that only llama-server has: each read, and taken out of the request.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    api::{error::ApiError, fields::Fields},
    engine::{Enough, Shape},
};

/// What a request says in llama-server's own fields.
#[derive(Debug)]
pub(super) struct Options {
    /// Alternatives told for each token; 0: no probabilities at all.
    pub(super) n_probs: u8,
    pub(super) return_tokens: bool,
    pub(super) timings_per_token: bool,
    /// Names of the fields that the answer is to have; `None`: all.
    pub(super) response_fields: Option<Vec<String>>,
    /// How long a stream may be silent, where the request says it.
    pub(super) ping: Option<Duration>,
    /// Whether the prompt is computed and nothing generated.
    pub(super) nothing: bool,
    pub(super) enough: Enough,
    pub(super) indent: u32,
    /// What of the request has no effect.
    pub(super) warnings: Vec<String>,
}

/// Not supported; let pass with a value that means "off", or the one beside the name.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    ("adaptive_target", "-1", "this sampler is not offered"),
    ("backend_sampling", "false", "sampling is done on the CPU"),
    (
        "grammar_lazy",
        "false",
        "a grammar holds from the first token on",
    ),
    (
        "grammar_triggers",
        "[]",
        "a grammar holds from the first token on",
    ),
    (
        "image_data",
        "[]",
        "images go with the messages of a chat (/v1/chat/completions)",
    ),
    (
        "n_cache_reuse",
        "0",
        "only what comes first in a prompt is reused",
    ),
    (
        "post_sampling_probs",
        "false",
        "probabilities are told as they are before sampling",
    ),
    (
        "preserved_tokens",
        "[]",
        "a text completion shows no control tokens",
    ),
    (
        "return_progress",
        "false",
        "progress through a prompt is not told",
    ),
];

/// Fields that are read here, and nowhere else.
const TAKEN: &[&str] = &[
    "id_slot",
    "logprobs",
    "n_cmpl",
    "n_indent",
    "n_probs",
    "post_sampling_probs",
    "response_fields",
    "return_tokens",
    "sse_ping_interval",
    "t_max_predict_ms",
    "timings_per_token",
];

/// llama-server takes texts as names of biases in an object as well: told as pairs, which may have them.
fn spell_biases(body: &mut Map<String, Value>) {
    let is_text = |name: &String| name.parse::<u32>().is_err();
    if let Some(biases) = body.get_mut("logit_bias")
        && let Value::Object(named) = biases
        && named.keys().any(is_text)
    {
        let pair = |(name, bias): (String, Value)| {
            let token = name.parse::<u32>().map_or(Value::String(name), Value::from);
            Value::from(vec![token, bias])
        };
        *biases = std::mem::take(named).into_iter().map(pair).collect();
    }
}

impl Options {
    pub(super) fn take(body: &mut Map<String, Value>, shape: Shape) -> Result<Self, ApiError> {
        spell_biases(body);
        let fields = Fields::new(body);
        refuse(fields)?;
        let mut warnings = Vec::new();
        check_slot(fields, shape, &mut warnings)?;
        let keep = fields.integer::<i64>("n_keep", -1..=i64::from(u32::MAX))?;
        if keep.is_some_and(|keep| keep < 0) && !shape.shifts {
            warnings
                .push("n_keep: a context that is full is not shifted, so all of it is kept".into());
        }
        let copies = fields.integer::<i64>("n_cmpl", 1..=8)?;
        let indent = fields
            .integer("n_indent", 0..=i64::from(u32::MAX))?
            .unwrap_or(0);
        let millis = fields.integer::<i64>("t_max_predict_ms", -1..=i64::MAX)?;
        let millis = millis.and_then(|millis| u64::try_from(millis).ok());
        let options = Self {
            n_probs: n_probs(fields)?,
            return_tokens: fields.flag("return_tokens")?.unwrap_or(false),
            timings_per_token: fields.flag("timings_per_token")?.unwrap_or(false),
            response_fields: response_fields(fields)?,
            ping: ping(fields)?,
            nothing: fields.integer::<i64>("n_predict", -1..=i64::from(u32::MAX))? == Some(0),
            enough: Enough {
                after: millis
                    .filter(|millis| *millis > 0)
                    .map(Duration::from_millis),
                indent,
            },
            indent,
            warnings,
        };
        for name in TAKEN {
            body.shift_remove(*name);
        }
        if options.nothing {
            body.shift_remove("n_predict");
        }
        if let Some(copies) = copies {
            body.insert("n".to_owned(), copies.into());
        }
        Ok(options)
    }

    /// How many alternatives the engine is to tell; `None`: no scores.
    pub(super) fn scores(&self) -> Option<u8> {
        let wanted = self.n_probs > 0 || self.return_tokens;
        wanted.then_some(self.n_probs)
    }

    /// Whether the answer has this field.
    pub(super) fn shows(&self, field: &str) -> bool {
        let fields = self.response_fields.as_ref();
        fields.is_none_or(|fields| fields.iter().any(|name| name == field))
    }
}

fn refuse(fields: Fields<'_>) -> Result<(), ApiError> {
    for (name, harmless, why) in UNSUPPORTED {
        let off = |value: &Value| match value {
            // Any negative target is off.
            Value::Number(number) if *name == "adaptive_target" => {
                number.as_f64().is_some_and(|target| target < 0.0)
            }
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(on) => !on,
            Value::Array(items) => items.is_empty(),
            Value::Null | Value::String(_) | Value::Object(_) => false,
        };
        if fields.get(name).is_some_and(|value| !off(value)) {
            let message = format!("{name}: only {harmless}, for {why}");
            return Err(ApiError::invalid(*name, message));
        }
    }
    Ok(())
}

/// Sequences are chosen by what they hold. Editors always name one; it is no error if there is such a one.
fn check_slot(
    fields: Fields<'_>,
    shape: Shape,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let last = i64::from(shape.sequences) - 1;
    if let Some(0..) = fields.integer::<i64>("id_slot", -1..=last)? {
        warnings.push("id_slot: the sequence that holds most of the prompt is taken".into());
    }
    Ok(())
}

/// llama-server takes `logprobs` where `n_probs` is absent.
fn n_probs(fields: Fields<'_>) -> Result<u8, ApiError> {
    let name = match fields.get("n_probs") {
        Some(_) => "n_probs",
        None => "logprobs",
    };
    Ok(fields.integer(name, 0..=i64::from(u8::MAX))?.unwrap_or(0))
}

fn response_fields(fields: Fields<'_>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(names) = fields.array("response_fields")? else {
        return Ok(None);
    };
    let names = names.iter().map(|name| name.as_str().map(str::to_owned));
    let names: Option<Vec<_>> = names.collect();
    match names {
        // None named means all, as if the field were absent.
        Some(names) => Ok(Some(names).filter(|names| !names.is_empty())),
        None => Err(fields.wrong("response_fields", "an array of strings")),
    }
}

fn ping(fields: Fields<'_>) -> Result<Option<Duration>, ApiError> {
    const NEVER: Duration = Duration::from_hours(24);
    let seconds = fields.integer::<i64>("sse_ping_interval", -1..=86_400)?;
    Ok(match seconds.map(u64::try_from) {
        None => None,
        Some(Ok(seconds)) => Some(Duration::from_secs(seconds.max(1))),
        Some(Err(_)) => Some(NEVER),
    })
}

//! The parameters that both completion endpoints share: each one honoured or refused, never dropped.

use serde_json::Value;

pub(in crate::api) use super::sampling::UNSEEDED;
use super::{
    models::known,
    sampling::{self, token},
};
use crate::{
    api::{
        Service,
        auth::Tenant,
        error::ApiError,
        fields::{Fields, as_i64},
        loras::Worn,
    },
    config::Limits,
    engine::{Adapters, Enough, Job, Shape, Shift, Token, model::Vocab},
};

/// Answers that one request may ask for, over all its prompts.
pub(in crate::api) const MOST_CHOICES: usize = 32;
const MOST_STOPS: usize = 64;

/// Known elsewhere, not supported here. What means "off" is let pass: `false`, 0, an empty text or array, or the JSON
/// beside the name. An empty object is none: `"web_search_options": {}` asks for a search.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("allowed_token_ids", ""),
    ("audio", ""),
    ("bad_words", ""),
    ("chat_template", ""),
    ("documents", ""),
    ("function_call", "\"none\""),
    ("functions", ""),
    ("id_slot", "-1"),
    ("include_stop_str_in_output", ""),
    ("min_keep", ""),
    ("n_probs", ""),
    ("post_sampling_probs", ""),
    ("prompt_logprobs", ""),
    ("response_fields", ""),
    ("return_token_ids", ""),
    ("return_tokens", ""),
    ("return_tokens_as_token_ids", ""),
    ("samplers", ""),
    ("t_max_predict_ms", "-1"),
    ("truncate_prompt_tokens", ""),
    ("use_beam_search", ""),
    ("verbosity", "\"medium\""),
    ("web_search_options", ""),
];

/// Known elsewhere, and always so here: `false` is not supported.
const ALWAYS: [&str; 2] = ["skip_special_tokens", "spaces_between_special_tokens"];

/// What a request asks for beside its prompt.
pub(in crate::api) struct Params {
    /// Complete but for its prompt.
    pub(in crate::api) job: Job,
    worn: Worn,
    /// Tokens.
    context: u32,
    /// Answers to each prompt.
    pub(in crate::api) n: usize,
    pub(in crate::api) delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Delivery {
    Whole,
    Stream(StreamUsage),
}

/// When a stream tells its token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum StreamUsage {
    Never,
    AtEnd,
    /// At the end and on every chunk.
    Throughout,
}

/// `limit_names`: what this endpoint calls the limit on generated tokens, the preferred name first.
pub(in crate::api) fn read(
    fields: Fields<'_>,
    service: &Service,
    limits: &Limits,
    tenant: Tenant,
    limit_names: &[&str],
) -> Result<Params, ApiError> {
    if let Some(model) = fields.text("model")? {
        known(model, &service.identity)?;
    }
    refuse_unsupported(fields)?;
    check_ignorable(fields)?;
    let shape = service.work.generator()?.0.shape();
    let max_tokens = max_tokens(fields, limit_names, limits, shape)?;
    Ok(Params {
        n: fields.integer("n", 1..=8)?.unwrap_or(1),
        delivery: delivery(fields)?,
        worn: service.identity.loras.wanted(fields)?,
        context: shape.context,
        job: Job {
            prompt: Vec::new(),
            media: Vec::new(),
            max_tokens,
            shift: shift(fields, shape, &*service.vocab)?,
            forgotten: 0,
            sampling: sampling::read(fields, &*service.vocab, shape)?,
            grammar: None,
            stop: stop(fields)?,
            enough: Enough::default(),
            stop_tokens: stop_tokens(fields, &*service.vocab)?,
            prediction: prediction(fields, &*service.vocab)?,
            visible: Vec::new(),
            ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
            score_prompt: false,
            min_tokens: fields
                .integer("min_tokens", 0..=i64::from(max_tokens))?
                .unwrap_or(0),
            logprobs: None,
            tenant: match fields.flag("cache_prompt")? {
                Some(false) => None,
                Some(true) | None => Some(tenant.cache),
            },
            adapters: Adapters::default(),
            claimant: tenant.claimant,
            queue_wait: limits.queue_wait,
            deadline: limits.request,
        },
    })
}

impl Params {
    /// Whether so many prompts may have `n` answers each.
    pub(in crate::api) fn check_choices(
        &self,
        fields: Fields<'_>,
        prompts: usize,
    ) -> Result<(), ApiError> {
        if prompts * self.n > MOST_CHOICES {
            let expected = format_args!("at most {MOST_CHOICES} answers in all, prompts times n");
            return Err(fields.wrong("prompt", expected));
        }
        Ok(())
    }

    /// One job for every answer. Answers to one prompt differ in their seeds only, predictably.
    pub(in crate::api) fn jobs(&self, prompts: Vec<Vec<Token>>) -> Vec<Job> {
        let copies = prompts
            .into_iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, self.n).zip(0_u32..));
        copies
            .map(|(mut prompt, copy)| {
                let mut job = self.job.clone();
                if let Some(shift) = job.shift
                    && job.media.is_empty()
                {
                    let gone = shift.cut(&mut prompt, self.context as usize);
                    job.forgotten = u32::try_from(gone).unwrap_or(u32::MAX);
                }
                job.adapters = self.worn.on(&prompt);
                job.prompt = prompt;
                job.sampling.seed = job.sampling.seed.wrapping_add(copy);
                job
            })
            .collect()
    }
}

fn refuse_unsupported(fields: Fields<'_>) -> Result<(), ApiError> {
    let off = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    };
    for (name, harmless) in UNSUPPORTED {
        match fields.get(name) {
            Some(value) if !off(value) && value.to_string().as_str() != *harmless => {
                let message = format!("{name}: this server does not support it; leave it out");
                return Err(ApiError::invalid(*name, message));
            }
            _ => {}
        }
    }
    for name in ALWAYS {
        if fields.flag(name)? == Some(false) {
            let message = format!("{name}: this server knows only true; leave it out");
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(())
}

/// Fields that describe the request and do not change the answer.
fn check_ignorable(fields: Fields<'_>) -> Result<(), ApiError> {
    fields.text("user")?;
    fields.object("metadata")?;
    fields.flag("store")?;
    fields.text("service_tier")?;
    Ok(())
}

fn max_tokens(
    fields: Fields<'_>,
    names: &[&str],
    limits: &Limits,
    shape: Shape,
) -> Result<u32, ApiError> {
    let limit = limits.max_tokens.unwrap_or(shape.context);
    let most = match limits.max_tokens {
        None if shape.shifts => u32::MAX,
        _ => limit,
    };
    let mut chosen = None;
    // All are checked, the first counts.
    for name in names {
        match fields.integer::<i64>(name, -1..=i64::from(u32::MAX))? {
            Some(0) => {
                return Err(fields.wrong(name, "an integer of at least 1, or -1 for no limit"));
            }
            Some(given) => chosen = chosen.or(Some(given)),
            None => {}
        }
    }
    Ok(match chosen.map(u32::try_from) {
        Some(Ok(given)) => given.min(most),
        // -1, or nothing.
        Some(Err(_)) | None => limit,
    })
}

/// What a full context keeps, in llama-server's names.
fn shift(fields: Fields<'_>, shape: Shape, vocab: &dyn Vocab) -> Result<Option<Shift>, ApiError> {
    let most = i64::from(u32::MAX) - 1;
    let keep = fields.integer::<i64>("n_keep", -1..=most)?;
    let discard = fields.integer("n_discard", 0..=most)?.unwrap_or(0);
    if !shape.shifts {
        let given = [
            ("n_keep", keep.unwrap_or(0) > 0),
            ("n_discard", discard > 0),
        ];
        return match given.into_iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((name, _)) => {
                let message = format!(
                    "{name}: a context that is full is not shifted by this server (engine.overflow); leave it out"
                );
                Err(ApiError::invalid(name, message))
            }
        };
    }
    // As in llama-server: the token that begins every prompt stays as well.
    let begin = u32::from(vocab.fim().begin.is_some());
    let keep = u32::try_from(keep.unwrap_or(0)).ok();
    Ok(Some(Shift {
        keep: keep.map(|keep| keep + begin),
        discard,
    }))
}

/// What is told of prompts that lost a part.
pub(in crate::api) fn cut(jobs: &[Job]) -> Option<String> {
    let gone = jobs.iter().map(|job| job.forgotten).max()?;
    (gone > 0).then(|| {
        format!("the prompt is longer than the context: {gone} tokens of its middle are left out (engine.overflow)")
    })
}

fn stop(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let wrong = || {
        let expected = format_args!(
            "a string that is not empty, or an array of at most {MOST_STOPS} such strings"
        );
        fields.wrong("stop", expected)
    };
    let one = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(wrong()),
    };
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::Array(stops)) if stops.len() <= MOST_STOPS => stops.iter().map(one).collect(),
        Some(stop) => Ok(vec![one(stop)?]),
    }
}

fn stop_tokens(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<Token>, ApiError> {
    let name = "stop_token_ids";
    let ids = fields.array(name)?.into_iter().flatten();
    let id = |id: &Value| as_i64(id).and_then(|id| token(id, vocab));
    let expected = format_args!("an array of token ids below {}", vocab.size());
    ids.map(|value| id(value).ok_or_else(|| fields.wrong(name, expected)))
        .collect()
}

/// `{"type": "content", "content": …}`: the text that the answer is thought to be.
fn prediction(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<Token>, ApiError> {
    let Some(prediction) = fields.object("prediction")? else {
        return Ok(Vec::new());
    };
    let prediction = Fields::within(prediction, "prediction.");
    if prediction.text("type")? != Some("content") {
        return Err(prediction.wrong("type", "\"content\""));
    }
    let wrong = || prediction.wrong("content", "a string or an array of parts of type text");
    let text = match prediction.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().map(|part| part["text"].as_str());
            texts.collect::<Option<String>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    Ok(vocab.tokenize(&text, false, false))
}

fn delivery(fields: Fields<'_>) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream")?.unwrap_or(false);
    let mut usage = StreamUsage::Never;
    if let Some(options) = fields.object("stream_options")? {
        if !stream {
            let message = "stream_options: only allowed together with `stream: true`";
            return Err(ApiError::invalid("stream_options", message));
        }
        let options = Fields::within(options, "stream_options.");
        let at_end = options.flag("include_usage")?.unwrap_or(false);
        let throughout = options.flag("continuous_usage_stats")?.unwrap_or(false);
        usage = match (at_end, throughout) {
            (true, true) => StreamUsage::Throughout,
            (true, false) => StreamUsage::AtEnd,
            (false, _) => StreamUsage::Never,
        };
    }
    Ok(if stream {
        Delivery::Stream(usage)
    } else {
        Delivery::Whole
    })
}

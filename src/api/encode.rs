//! Takes the texts of one request through the engine, and hands its record what became of them.

use std::{sync::Arc, time::Instant};

use serde_json::{Map, Value};

use super::{
    Service,
    error::ApiError,
    fields::{Fields, as_i64},
    record::{Generation, Outcome, Record},
};
use crate::{
    config::Limits,
    engine::{
        Times, Token, Usage,
        embed::{self, Encoded, Engine, Refused},
        model::Vocab,
    },
};

/// Texts of one request, as in OpenAI's API.
pub(super) const MOST_TEXTS: usize = 2048;

/// Waits for the texts' outputs. `name` tells what the request calls a text, by its position.
pub(super) async fn run(
    service: &Arc<Service>,
    engine: &Engine,
    limits: &Limits,
    texts: Vec<Vec<Token>>,
    record: Arc<Record>,
    name: impl Fn(usize) -> String,
) -> Result<Encoded, ApiError> {
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mut log = Log::new(record, service, tokens);
    let job = embed::Job {
        texts,
        queue_wait: limits.queue_wait,
        deadline: limits.request,
    };
    let limit = engine.facts().limit;
    let end = engine
        .submit(job)
        .map_err(|refused| log.failed(refusal(&refused, limit, name)))?;
    let end = tokio::select! {
        end = end => end,
        () = engine.watch().lost() => return Err(log.failed(ApiError::EngineDead)),
    };
    match end {
        Ok(Ok(encoded)) => {
            log.finished(&encoded);
            Ok(encoded)
        }
        Ok(Err(failed)) => Err(log.failed(failed.into())),
        // Every job ends with a word; silence means that the engine is gone.
        Err(_) => Err(log.failed(ApiError::EngineDead)),
    }
}

fn refusal(
    refused: &Refused,
    limit: Option<&'static str>,
    name: impl Fn(usize) -> String,
) -> ApiError {
    match *refused {
        Refused::Busy(ref busy) => ApiError::refused(busy, "input"),
        Refused::Nothing => ApiError::invalid("input", "there is no text"),
        Refused::Empty { text } => {
            let param = name(text);
            let message = format!("{param}: must not be empty");
            ApiError::invalid(param, message)
        }
        Refused::TooLong {
            text,
            tokens,
            longest,
        } => ApiError::TextLength {
            param: name(text),
            tokens,
            longest,
            limit,
        },
        Refused::BadToken { text, token } => {
            let param = name(text);
            let message = format!("{param}: token {token} is not in this model's vocabulary");
            ApiError::invalid(param, message)
        }
    }
}

/// What a request wants to have embedded.
pub(super) struct Input {
    pub(super) texts: Vec<Vec<Token>>,
    /// Whether it came as a list of texts, which are then called `input[3]` and such.
    listed: bool,
    field: &'static str,
}

impl Input {
    /// `"text"`, `[1, 2]`, or an array of such texts.
    pub(super) fn parse(
        fields: Fields<'_>,
        field: &'static str,
        vocab: &dyn Vocab,
    ) -> Result<Self, ApiError> {
        let wrong = || {
            let expected = format_args!(
                "a string, an array of token ids below {}, or an array of 1 to {MOST_TEXTS} of these, none of them empty",
                vocab.size()
            );
            fields.wrong(field, expected)
        };
        let value = fields.get(field).ok_or_else(wrong)?;
        let (listed, texts) = match value {
            Value::Array(items) if items.len() > MOST_TEXTS && !is_token(&items[0]) => {
                return Err(wrong());
            }
            Value::Array(items) if !items.first().is_none_or(is_token) => {
                let texts = (0..).zip(items).map(|(at, item)| {
                    one(item, vocab).ok_or_else(|| {
                        let param = format!("{field}[{at}]");
                        let message = format!(
                            "{param}: expected a string or an array of token ids, not empty"
                        );
                        ApiError::invalid(param, message)
                    })
                });
                (true, texts.collect::<Result<_, _>>()?)
            }
            value => (false, vec![one(value, vocab).ok_or_else(wrong)?]),
        };
        Ok(Self {
            texts,
            listed,
            field,
        })
    }

    /// What the request calls each text.
    pub(super) fn namer(&self) -> impl Fn(usize) -> String + use<> {
        let (listed, field) = (self.listed, self.field);
        move |at| {
            if listed {
                format!("{field}[{at}]")
            } else {
                field.to_owned()
            }
        }
    }
}

fn is_token(value: &Value) -> bool {
    value.is_number()
}

fn one(value: &Value, vocab: &dyn Vocab) -> Option<Vec<Token>> {
    match value {
        Value::String(text) if !text.is_empty() => Some(vocab.tokenize(text, true, true)),
        Value::Array(ids) if !ids.is_empty() => ids
            .iter()
            .map(|id| Token::try_from(as_i64(id)?).ok())
            .collect(),
        _ => None,
    }
}

/// Fields that would change the answer and are not offered: let pass only where they mean nothing.
pub(super) fn refuse(object: &Map<String, Value>, names: &[&str]) -> Result<(), ApiError> {
    let off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    for &name in names {
        if object.get(name).is_some_and(|value| !off(value)) {
            let message = format!("{name}: this server does not support it; leave it out");
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(())
}

/// Hands the request's record what became of it, also when it is dropped halfway.
struct Log {
    record: Arc<Record>,
    generation: Generation,
    submitted: Instant,
}

impl Log {
    fn new(record: Arc<Record>, service: &Service, tokens: usize) -> Self {
        let generation = Generation {
            model: service.identity.model.clone(),
            usage: Usage {
                prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
                ..Usage::default()
            },
            times: Times::default(),
            first_text: None,
            // Whatever else happens says so.
            outcome: Outcome::HungUp,
        };
        Self {
            record,
            generation,
            submitted: Instant::now(),
        }
    }

    fn finished(&mut self, encoded: &Encoded) {
        self.generation.times = encoded.times;
        self.generation.outcome = Outcome::Ok;
        let metrics = self.record.metrics();
        metrics.waited(encoded.times.queued);
        metrics.prefilled(&self.generation.usage, encoded.times.prefill);
    }

    fn failed(&mut self, error: ApiError) -> ApiError {
        self.generation.outcome = Outcome::Failed(error.name());
        if let ApiError::QueueWait(_) = error {
            self.record.metrics().waited(self.submitted.elapsed());
        }
        error
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.record.generated(self.generation.clone());
    }
}

//! `POST /v1/completions`: text or tokens in, their continuation out.

mod answer;

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value};

use self::answer::{Chunks, Echo, Pick, Whole};
use super::{
    constraint::{self, Pending},
    params::{self, Delivery, MOST_CHOICES, Params},
    sampling::token,
    wire::{First, Head, chars, warn},
};
use crate::{
    api::{
        App, Service,
        auth::Tenant,
        body,
        error::ApiError,
        fields::{Fields, as_i64},
        native::fim::{Gap, Marks},
        record::Record,
        reply::Run,
    },
    config::Limits,
    engine::{Job, Token, model::Vocab},
};

pub(in crate::api) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    service.work.generator()?;
    let body = body::receive(body, &app.limits()).await?;
    let wanted = {
        let (app, service) = (Arc::clone(&app), Arc::clone(&service));
        let parse = move |body: &[u8]| {
            let body = app.with_defaults(body::parse(body)?);
            Wanted::parse(body, &service, &app.limits(), tenant)
        };
        body::prepare(body, parse).await?
    };
    let head = Head::new("cmpl", "text_completion", &service.identity);
    let Wanted {
        mut jobs,
        pick,
        echo,
        delivery,
        pending,
    } = wanted;
    let mut warnings = Vec::from_iter(params::cut(&jobs));
    if let Some(pending) = pending {
        warnings.extend(pending.apply(&service, &mut jobs).await?);
    }
    let mut response = match delivery {
        Delivery::Whole => {
            let answer = Whole::new(&head, echo, pick);
            let run = Run::submit(service, jobs, pick.of, "prompt", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(usage) => {
            let answer = Chunks::new(&head, echo, usage);
            let run = Run::submit(service, jobs, pick.of, "prompt", answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// A request, understood.
struct Wanted {
    jobs: Vec<Job>,
    pick: Pick,
    /// For each answer what it begins with.
    echo: Vec<Echo>,
    delivery: Delivery,
    /// What the answers must be, to be compiled.
    pending: Option<Pending>,
}

impl Wanted {
    fn parse(
        mut object: Map<String, Value>,
        service: &Service,
        limits: &Limits,
        tenant: Tenant,
    ) -> Result<Self, ApiError> {
        let echoes = Fields::new(&object).flag("echo")?.unwrap_or(false);
        let nothing = echoes && takes_nothing(&mut object);
        let fields = Fields::new(&object);
        let vocab = &*service.vocab;
        let mut params = params::read(fields, service, limits, tenant, &LIMITS)?;
        if nothing {
            params.job.max_tokens = 0;
        }
        let pending = constraint::apply(fields, &mut params.job)?;
        params.job.logprobs = logprobs(fields)?;
        let pick = pick(fields, &mut params)?;
        let prompts = prompts(fields, vocab)?;
        params.check_choices(fields, prompts.len())?;
        let suffix = fields.text("suffix")?.filter(|suffix| !suffix.is_empty());
        let scores = echoes && pick.tells;
        if scores {
            check_scores(&prompts, &params, suffix, vocab)?;
            params.job.score_prompt = true;
            params.job.tenant = None;
        }
        let echo = |prompt: &Prompt| Echo {
            text: if echoes {
                prompt.text(vocab)
            } else {
                String::new()
            },
            first: if scores { prompt.first(vocab) } else { None },
        };
        let repeated = |prompt| std::iter::repeat_with(move || echo(prompt)).take(pick.of);
        let echo = prompts.iter().flat_map(repeated).collect();
        let tokens = prompts.into_iter().map(|prompt| match suffix {
            Some(suffix) => prompt.before(suffix, vocab),
            None => Ok(prompt.tokens(vocab)),
        });
        let tokens = tokens.collect::<Result<_, _>>()?;
        Ok(Self {
            jobs: params.jobs(tokens),
            pick,
            echo,
            delivery: params.delivery,
            pending,
        })
    }
}

enum Prompt {
    Text(String),
    Tokens(Vec<Token>),
}

impl Prompt {
    fn tokens(self, vocab: &dyn Vocab) -> Vec<Token> {
        match self {
            Self::Text(text) => vocab.tokenize(&text, true, true),
            Self::Tokens(tokens) => tokens,
        }
    }

    /// Asks for what comes between the prompt and `suffix`.
    fn before(&self, suffix: &str, vocab: &dyn Vocab) -> Result<Vec<Token>, ApiError> {
        let marks = Marks::of(vocab)?;
        let gap = Gap {
            before: &self.text(vocab),
            after: suffix,
            ..Gap::default()
        };
        Ok(marks.prompt(gap, vocab))
    }

    /// Its first token.
    fn first(&self, vocab: &dyn Vocab) -> Option<First> {
        let (token, text) = match self {
            Self::Text(text) => (*vocab.tokenize(text, true, true).first()?, Some(text)),
            Self::Tokens(tokens) => (*tokens.first()?, None),
        };
        let mut bytes = Vec::new();
        vocab.piece(token, true, &mut bytes);
        // The vocabulary's own begin stands in no text.
        let added = text.is_some_and(|text| !text.as_bytes().starts_with(&bytes));
        let chars = if added { 0 } else { chars(&bytes) };
        Some(First { bytes, chars })
    }

    fn count(&self, vocab: &dyn Vocab) -> usize {
        match self {
            Self::Text(text) => vocab.tokenize(text, true, true).len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    fn text(&self, vocab: &dyn Vocab) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Tokens(tokens) => {
                let mut bytes = Vec::new();
                for token in tokens {
                    vocab.piece(*token, true, &mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            }
        }
    }
}

/// `"text"`, `[1, 2]`, or an array of such prompts.
fn prompts(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        let expected = format_args!(
            "a string, an array of token ids below {}, or an array of at most {MOST_CHOICES} such prompts, none of them empty",
            vocab.size()
        );
        fields.wrong("prompt", expected)
    };
    let tokens = |ids: &[Value]| -> Option<Vec<Token>> {
        let id = |id: &Value| as_i64(id).and_then(|id| token(id, vocab));
        ids.iter().map(id).collect()
    };
    let one = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(Prompt::Text(text.clone())),
        Value::Array(ids) if !ids.is_empty() => tokens(ids).map(Prompt::Tokens),
        _ => None,
    };
    let prompts = match fields.get("prompt") {
        Some(Value::Array(items)) if items.first().is_some_and(|item| !item.is_number()) => {
            if items.len() > MOST_CHOICES {
                return Err(wrong());
            }
            items.iter().map(one).collect()
        }
        Some(value) => one(value).map(|prompt| vec![prompt]),
        None => None,
    };
    prompts.ok_or_else(wrong)
}

/// The number of alternatives; `true` and `false` are what some clients send for 1 and none.
fn logprobs(fields: Fields<'_>) -> Result<Option<u8>, ApiError> {
    match fields.get("logprobs") {
        Some(Value::Bool(on)) => Ok(on.then_some(1)),
        _ => fields.integer("logprobs", 0..=20),
    }
}

/// What this endpoint calls the limit on generated tokens.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "n_predict"];

/// Most log-probabilities of prompts that one request may ask for.
const MOST_SCORES: usize = 1 << 20;

/// Whether nothing is to be generated, which makes sense only where the prompt itself is wanted.
fn takes_nothing(body: &mut Map<String, Value>) -> bool {
    let first = LIMITS
        .iter()
        .find(|name| body.get(**name).is_some_and(|value| !value.is_null()));
    let nothing = first.is_some_and(|name| body[*name].as_f64() == Some(0.0));
    if nothing {
        body.retain(|name, _| !LIMITS.contains(&name.as_str()));
    }
    nothing
}

/// Whether the prompts' log-probabilities can be had.
fn check_scores(
    prompts: &[Prompt],
    params: &Params,
    suffix: Option<&str>,
    vocab: &dyn Vocab,
) -> Result<(), ApiError> {
    if suffix.is_some() {
        let message = "echo: not together with suffix and logprobs";
        return Err(ApiError::invalid("echo", message));
    }
    let tokens: usize = prompts.iter().map(|prompt| prompt.count(vocab)).sum();
    let each = usize::from(params.job.logprobs.unwrap_or(0)) + 1;
    if tokens.saturating_mul(params.n).saturating_mul(each) > MOST_SCORES {
        let message = format!(
            "echo: {tokens} tokens of prompts with {each} log-probabilities each, n times, are more than {MOST_SCORES}; send fewer prompts at once"
        );
        return Err(ApiError::invalid("echo", message));
    }
    Ok(())
}

/// How many answers are generated to each prompt, and which of them are given.
fn pick(fields: Fields<'_>, params: &mut Params) -> Result<Pick, ApiError> {
    const MOST: i64 = 20;
    let best = params.n;
    let tells = params.job.logprobs.is_some();
    let of = match fields.integer::<usize>("best_of", 0..=MOST)? {
        None | Some(0 | 1) => best,
        Some(of) if of < best => {
            return Err(fields.wrong("best_of", format_args!("at least n, so {best} to {MOST}")));
        }
        Some(of) => of,
    };
    if of > best {
        if params.delivery != Delivery::Whole {
            let message = "best_of: not together with stream, since the best is known at the end";
            return Err(ApiError::invalid("best_of", message));
        }
        params.job.logprobs.get_or_insert(0);
        params.n = of;
    }
    Ok(Pick { of, best, tells })
}

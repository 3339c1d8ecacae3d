//! `POST /v1/completions`: text or tokens in, their continuation out.

mod answer;

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value};

use self::answer::{Chunks, Whole};
use super::{
    constraint::{self, Pending},
    params::{self, Delivery, MOST_CHOICES, Params},
    sampling::token,
    wire::{Head, warn},
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
            Wanted::parse(&body, &service, &app.limits(), tenant)
        };
        body::prepare(body, parse).await?
    };
    let head = Head::new("cmpl", "text_completion", &service.identity);
    let Wanted {
        mut jobs,
        copies,
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
            let answer = Whole::new(&head, echo);
            let run = Run::submit(service, jobs, copies, "prompt", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(usage) => {
            let answer = Chunks::new(&head, echo, usage);
            let run = Run::submit(service, jobs, copies, "prompt", answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// A request, understood.
struct Wanted {
    jobs: Vec<Job>,
    copies: usize,
    /// For each answer the text to begin it with.
    echo: Vec<String>,
    delivery: Delivery,
    /// What the answers must be, to be compiled.
    pending: Option<Pending>,
}

impl Wanted {
    fn parse(
        object: &Map<String, Value>,
        service: &Service,
        limits: &Limits,
        tenant: Tenant,
    ) -> Result<Self, ApiError> {
        let fields = Fields::new(object);
        let vocab = &*service.vocab;
        let names = ["max_tokens", "max_completion_tokens", "n_predict"];
        let mut params = params::read(fields, service, limits, tenant, &names)?;
        let pending = constraint::apply(fields, &mut params.job)?;
        params.job.logprobs = logprobs(fields)?;
        check_best_of(fields, &params)?;
        let prompts = prompts(fields, vocab)?;
        params.check_choices(fields, prompts.len())?;
        let echo = match fields.flag("echo")? {
            Some(true) if params.job.logprobs.is_some() => {
                let message = "echo: this server has no log-probabilities of prompts; leave out echo or logprobs";
                return Err(ApiError::invalid("echo", message));
            }
            Some(true) => prompts.iter().map(|prompt| prompt.text(vocab)).collect(),
            Some(false) | None => vec![String::new(); prompts.len()],
        };
        let suffix = fields.text("suffix")?.filter(|suffix| !suffix.is_empty());
        let tokens = prompts.into_iter().map(|prompt| match suffix {
            Some(suffix) => prompt.before(suffix, vocab),
            None => Ok(prompt.tokens(vocab)),
        });
        let tokens = tokens.collect::<Result<_, _>>()?;
        let n = params.n;
        let repeated = |text: String| std::iter::repeat_n(text, n);
        Ok(Self {
            jobs: params.jobs(tokens),
            copies: n,
            echo: echo.into_iter().flat_map(repeated).collect(),
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

/// Only as many are generated as are given back.
fn check_best_of(fields: Fields<'_>, params: &Params) -> Result<(), ApiError> {
    match fields.integer::<usize>("best_of", 0..=i64::from(u8::MAX))? {
        Some(best_of) if best_of > 1 && best_of != params.n => {
            Err(fields.wrong("best_of", "1 or the value of n"))
        }
        _ => Ok(()),
    }
}

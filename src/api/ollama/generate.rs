//! `POST /api/generate`: a prompt in, its answer, its continuation or what fills the gap after it out.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value, json};

use super::{
    answer::Style,
    asked::{self, Asked},
    chat, context,
    errors::as_generated,
    load,
};
use crate::{
    api::{
        App, Service,
        auth::Tenant,
        body,
        error::ApiError,
        fields::Fields,
        native::fim::{Gap, Marks},
        openai::{
            constraint::{self, Form, Kind, Pending, Purpose},
            params,
        },
        record::Record,
        turn::{self, Turn},
    },
    config::Limits,
    engine::Token,
};

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let bytes = body::receive(body, &app.limits()).await?;
    if let Some(loaded) = load::answer(&bytes, &service, ("prompt", json!({"response": ""})))? {
        return Ok(loaded);
    }
    let (turn, asked) = receive(&app, &service, tenant, bytes)
        .await
        .map_err(as_generated)?;
    chat::answer(&app, service, turn, asked, Style::Generate, record).await
}

async fn receive(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    bytes: Vec<u8>,
) -> Result<(Turn, Asked), ApiError> {
    let wanted = {
        let (app, service) = (Arc::clone(app), Arc::clone(service));
        body::prepare(bytes, move |body| {
            Wanted::read(&body::parse(body)?, &service, &app, tenant)
        })
    };
    match wanted.await? {
        Wanted::Message(body, context, asked) => {
            let as_it_is = |body, _: &_| Ok((body, ()));
            let bytes = Value::Object(body).to_string();
            let (mut turn, ()) =
                turn::receive(app, service, tenant, bytes.into(), as_it_is).await?;
            if !context.is_empty() {
                turn.follow(&context, service.vocab.fim().begin);
            }
            Ok((turn, asked))
        }
        Wanted::Text(mut turn, pending, asked) => {
            if let Some(pending) = pending {
                let told = pending.apply(service, &mut turn.jobs).await?;
                turn.warnings.extend(told);
            }
            Ok((turn, asked))
        }
    }
}

enum Wanted {
    /// The prompt is what a user says, in OpenAI's shape, after these tokens.
    Message(Map<String, Value>, Vec<Token>, Asked),
    /// The prompt is given to the model as it is, or a gap.
    Text(Turn, Option<Pending>, Asked),
}

impl Wanted {
    fn read(
        body: &Map<String, Value>,
        service: &Service,
        app: &App,
        tenant: Tenant,
    ) -> Result<Self, ApiError> {
        let fields = Fields::new(body);
        let mut asked = Asked::read(fields, service)?;
        let text = |name| Ok::<_, ApiError>(fields.text(name)?.unwrap_or_default());
        let (prompt, suffix, system) = (text("prompt")?, text("suffix")?, text("system")?);
        let raw = fields.flag("raw")?.unwrap_or(false);
        let mut out = std::mem::take(&mut asked.body);
        let context = context::read(fields, &*service.vocab)?;
        let pictures = fields
            .array("images")?
            .is_some_and(|images| !images.is_empty());
        if !raw && suffix.is_empty() {
            if pictures && !context.is_empty() {
                let message = "context: not together with images";
                return Err(ApiError::invalid("context", message));
            }
            let mut messages = Vec::new();
            if !system.is_empty() {
                messages.push(json!({"role": "system", "content": system}));
            }
            messages.push(json!({"role": "user", "content": asked::content(fields, prompt)?}));
            out.insert("messages".to_owned(), messages.into());
            return Ok(Self::Message(out, context, asked));
        }
        if pictures {
            let message = "images: not together with raw or suffix, which have no place for them";
            return Err(ApiError::invalid("images", message));
        }
        if !context.is_empty() {
            let message = "context: not together with raw or suffix, which take the whole text";
            return Err(ApiError::invalid("context", message));
        }
        if !system.is_empty() {
            let message = "system: not together with raw or suffix, which use no template";
            return Err(ApiError::invalid("system", message));
        }
        let vocab = &*service.vocab;
        let prompt = if suffix.is_empty() {
            vocab.tokenize(prompt, true, true)
        } else {
            let gap = Gap {
                before: prompt,
                after: suffix,
                ..Gap::default()
            };
            Marks::of(vocab)?.prompt(gap, vocab)
        };
        let (turn, pending) = continuation(
            &app.with_defaults(out),
            prompt,
            asked.logprobs,
            service,
            &app.limits(),
            tenant,
        )?;
        Ok(Self::Text(turn, pending, asked))
    }
}

/// A turn without messages: the text after `prompt`. `body`: in OpenAI's shape.
fn continuation(
    body: &Map<String, Value>,
    prompt: Vec<Token>,
    logprobs: Option<u8>,
    service: &Service,
    limits: &Limits,
    tenant: Tenant,
) -> Result<(Turn, Option<Pending>), ApiError> {
    let fields = Fields::new(body);
    let names = ["max_completion_tokens", "max_tokens", "n_predict"];
    let mut params = params::read(fields, service, limits, tenant, &names)?;
    params.job.logprobs = logprobs;
    // Ollama knows no other forms than JSON.
    let pending = constraint::read(fields)?.and_then(|Form { param, kind }| match kind {
        Kind::Gbnf(_) => None,
        Kind::Body(body) => Some(Pending {
            param,
            source: body.into(),
            purpose: Purpose::Hold,
        }),
    });
    let turn = Turn {
        jobs: params.jobs(vec![prompt]),
        readers: Vec::new(),
        delivery: params.delivery,
        warnings: Vec::new(),
    };
    Ok((turn, pending))
}

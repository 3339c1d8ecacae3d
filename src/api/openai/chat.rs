//! `POST /v1/chat/completions`: messages in, the assistant's next message out.

mod answer;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value};

use self::{
    answer::{Chunks, Whole},
    reader::Reader,
};
use super::{
    constraint::{self, Form, Kind, Pending, Purpose},
    params::{self, Delivery},
    wire::{Head, warn},
};
use crate::{
    api::{
        App, Service, auth::Tenant, body, error::ApiError, fields::Fields, record::Record,
        reply::Run,
    },
    chat::{Chat, Rendered},
    config::Limits,
    engine::{self, Grammar, Job, constrain::Source, model::Vocab},
};

pub(in crate::api) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    service.work.generator()?;
    let body = body::receive(body, &app.limits).await?;
    let wanted = {
        let (app, service) = (Arc::clone(&app), Arc::clone(&service));
        let parse = move |body: &[u8]| Wanted::parse(body, &service, &app.limits, tenant);
        body::prepare(body, parse).await?
    };
    let Wanted {
        mut jobs,
        readers,
        delivery,
        mut warnings,
        pending,
    } = wanted;
    if let Some(pending) = pending {
        warnings.extend(pending.apply(&service, &mut jobs).await?);
    }
    let copies = jobs.len();
    let mut response = match delivery {
        Delivery::Whole => {
            let head = Head::new("chatcmpl", "chat.completion", &service.identity);
            let answer = Whole::new(&head, readers);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(usage) => {
            let head = Head::new("chatcmpl", "chat.completion.chunk", &service.identity);
            let answer = Chunks::new(&head, readers, usage);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.stream(app.limits.keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// A request, understood.
struct Wanted {
    jobs: Vec<Job>,
    /// One for each job.
    readers: Vec<Reader>,
    delivery: Delivery,
    warnings: Vec<String>,
    /// What the answers must be, to be compiled.
    pending: Option<Pending>,
}

impl Wanted {
    fn parse(
        body: &[u8],
        service: &Service,
        limits: &Limits,
        tenant: Tenant,
    ) -> Result<Self, ApiError> {
        let object = body::parse(body)?;
        let fields = Fields::new(&object);
        let vocab = &*service.vocab;
        let names = ["max_completion_tokens", "max_tokens", "n_predict"];
        let mut params = params::read(fields, service, limits, tenant, &names)?;
        params.job.logprobs = logprobs(fields)?;
        check_modalities(fields)?;
        let form = constraint::read(fields)?;
        let (rendered, pending) = render(service.work.generator()?.1, object, form)?;
        let prompt = vocab.tokenize(&rendered.prompt, true, true);
        params.job.visible = visible(&rendered, vocab);
        params.job.stop.extend(rendered.stops.iter().cloned());
        params.job.grammar = rendered.grammar.clone().map(Grammar::Gbnf);
        let jobs = params.jobs(vec![prompt]);
        let readers = jobs.iter().map(|_| Reader::new(&rendered));
        Ok(Self {
            readers: readers.collect::<Result<_, _>>()?,
            jobs,
            delivery: params.delivery,
            warnings: rendered.warnings,
            pending,
        })
    }
}

/// The prompt, and what is to be compiled for its answer.
fn render(
    chat: &Chat,
    body: Map<String, Value>,
    form: Option<Form>,
) -> Result<(Rendered, Option<Pending>), ApiError> {
    let Some(Form { param, kind }) = form else {
        return Ok((chat.render(&Value::Object(body))?, None));
    };
    let mut body = constraint::without(body);
    let content = match kind {
        Kind::Gbnf(text) => {
            body.insert("grammar".to_owned(), text.into());
            return Ok((chat.render(&Value::Object(body))?, None));
        }
        Kind::Body(content) => content,
    };
    let body = Value::Object(body);
    if let Some((rendered, frame)) = chat.render_framed(&body, &param)? {
        let pending = Pending {
            param,
            source: Source {
                body: content,
                frame,
            },
            purpose: Purpose::Hold,
        };
        return Ok((rendered, Some(pending)));
    }
    // llama.cpp knows more about the answers of this family; what it cannot do of a schema is still refused.
    let mut body = body;
    let mut purpose = Purpose::Hold;
    if let engine::constrain::Body::Json { schema, .. } = &content {
        body["json_schema"] = schema.clone();
        purpose = Purpose::Check;
    }
    let pending = Pending {
        param,
        source: content.into(),
        purpose,
    };
    Ok((chat.render(&body)?, Some(pending)))
}

/// The control tokens that the answer's parser must see.
fn visible(rendered: &Rendered, vocab: &dyn Vocab) -> Vec<crate::engine::Token> {
    let single = |text: &String| match vocab.tokenize(text, false, true)[..] {
        [token] => Some(token),
        _ => None,
    };
    rendered.preserved.iter().filter_map(single).collect()
}

fn logprobs(fields: Fields<'_>) -> Result<Option<u8>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer::<u8>("top_logprobs", 0..=20)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "top_logprobs: only allowed together with `logprobs: true`";
            Err(ApiError::invalid("top_logprobs", message))
        }
    }
}

fn check_modalities(fields: Fields<'_>) -> Result<(), ApiError> {
    match fields.array("modalities")?.map(Vec::as_slice) {
        None => Ok(()),
        Some([only]) if only == "text" => Ok(()),
        Some(_) => Err(fields.wrong("modalities", "[\"text\"]")),
    }
}

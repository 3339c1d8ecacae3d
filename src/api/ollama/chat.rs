//! `POST /api/chat`: messages in, the assistant's next message out, a line of JSON for each piece of it.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value, json};

use super::{
    answer::{Lines, Source, Style, Voice, Whole},
    asked::Asked,
    context::Context,
    errors::as_asked,
    load, messages,
};
use crate::api::{
    App, Service,
    auth::Tenant,
    body,
    error::ApiError,
    fields::Fields,
    openai::{params::Delivery, wire::warn},
    record::Record,
    reply::Run,
    turn::{self, Turn},
};

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let bytes = body::receive(body, &app.limits()).await?;
    let nothing = json!({"message": {"role": "assistant", "content": ""}});
    if let Some(loaded) = load::answer(&bytes, &service, ("messages", nothing))? {
        return Ok(loaded);
    }
    let turn = turn::receive(&app, &service, tenant, bytes.into(), |body, service| {
        translate(&body, service)
    })
    .await;
    let (turn, asked) = turn.map_err(as_asked)?;
    answer(&app, service, turn, asked, Style::Chat, record).await
}

fn translate(
    body: &Map<String, Value>,
    service: &Service,
) -> Result<(Map<String, Value>, Asked), ApiError> {
    let fields = Fields::new(body);
    let mut asked = Asked::read(fields, service)?;
    let mut out = std::mem::take(&mut asked.body);
    out.insert("messages".to_owned(), messages::translate(fields)?.into());
    if let Some(tools) = fields.array("tools")?.filter(|tools| !tools.is_empty()) {
        let mut tools = tools.clone();
        for tool in &mut tools {
            // Some clients leave out what can be nothing else.
            if let Some(tool) = tool.as_object_mut()
                && tool.get("type").is_none_or(Value::is_null)
            {
                tool.insert("type".to_owned(), "function".into());
            }
        }
        out.insert("tools".to_owned(), tools.into());
    }
    Ok((out, asked))
}

/// Runs a turn and words its answer.
pub(super) async fn answer(
    app: &App,
    service: Arc<Service>,
    turn: Turn,
    asked: Asked,
    style: Style,
    record: Arc<Record>,
) -> Result<Response, ApiError> {
    let Turn {
        jobs,
        readers,
        delivery,
        mut warnings,
    } = turn;
    warnings.extend(asked.warnings);
    let reader = readers.into_iter().next();
    // An image is no token, and what was no message is continued by sending it whole.
    let told = jobs
        .first()
        .filter(|job| style == Style::Generate && reader.is_some() && job.media.is_empty());
    let context = told.map(|job| Context::new(Arc::clone(&service.vocab), job.prompt.clone()));
    let source = reader.map_or(Source::Plain, |reader| Source::Parsed(Box::new(reader)));
    let voice = Voice::new(asked.model, style, record.age(), context);
    let param = style.param();
    let mut response = match delivery {
        Delivery::Whole => {
            let run = Run::submit(service, jobs, 1, param, Whole::new(voice, source), record)?;
            run.whole().await?
        }
        Delivery::Stream(_) => {
            let run = Run::submit(service, jobs, 1, param, Lines::new(voice, source), record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

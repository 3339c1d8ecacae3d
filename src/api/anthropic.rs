//! Anthropic's Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

mod answer;
mod blocks;
mod documents;
mod errors;
mod messages;
mod names;
mod request;
mod system;
#[cfg(test)]
mod tests;
mod tools;

use std::sync::{Arc, OnceLock};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;

pub(super) use self::errors::{REQUEST_ID, own_words};
use self::{
    answer::{Events, Voice, Whole},
    names::Names,
    request::{Asked, Purpose, Translated},
};
use super::{
    App, Service,
    auth::Tenant,
    error::ApiError,
    openai::{params::Delivery, wire::warn},
    record::Record,
    reply::Run,
    turn::{self, Turn},
};
use crate::engine::Job;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/messages", post(create))
        .route("/v1/messages/count_tokens", post(count))
}

async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (turn, asked) = receive(&app, &service, tenant, body, Purpose::Answer).await?;
    let Turn {
        jobs,
        readers,
        delivery,
        warnings,
    } = turn;
    let voice = Voice::new(
        &service.identity,
        record.id(),
        asked.stop_sequences,
        asked.display,
    );
    let copies = jobs.len();
    let mut response = match delivery {
        Delivery::Whole => {
            let answer = Whole::new(voice, readers);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(_) => {
            let answer = Events::new(voice, readers);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// The tokens that the same body's prompt has, by reading it as [`create`] does.
async fn count(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (turn, _) = receive(&app, &service, tenant, body, Purpose::Count).await?;
    let tokens: usize = turn.jobs.iter().map(Job::asked).sum();
    let mut response = Json(json!({"input_tokens": tokens})).into_response();
    warn(&mut response, turn.warnings);
    Ok(response)
}

async fn receive(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    body: Body,
    purpose: Purpose,
) -> Result<(Turn, Asked), ApiError> {
    let names = Arc::new(OnceLock::<Names>::new());
    let normalize = **app.normalize.load();
    let translate = {
        let names = Arc::clone(&names);
        move |body, _: &Service| {
            let Translated {
                body,
                asked,
                names: found,
                warnings,
            } = request::translate(&body, purpose, normalize)?;
            let _ = names.set(found);
            Ok((body, (asked, warnings)))
        }
    };
    let received = turn::receive(app, service, tenant, body, translate).await;
    // What is wrong with the translation, or of no effect, is told in the caller's words.
    let Some(names) = names.get() else {
        return received.map(|(turn, (asked, _))| (turn, asked));
    };
    let (mut turn, (asked, mut warnings)) = received.map_err(|error| names.callers(error))?;
    let others = turn.warnings.into_iter();
    warnings.extend(others.map(|warning| names.callers_warning(&warning)));
    turn.warnings = warnings;
    Ok((turn, asked))
}

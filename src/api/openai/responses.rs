//! `/v1/responses`: items in, items out; kept, continued and read again by their ids.

mod answer;
mod events;
mod history;
mod items;
mod kept;
mod messages;
mod names;
mod output;
mod refused;
mod request;
mod resource;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod tools;

use std::{
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};

pub(in crate::api) use self::store::Store;
use self::{
    answer::{Answer, Owner, Whole},
    events::Events,
    history::History,
    names::Names,
    request::Asked,
};
use super::{params::Delivery, wire::warn};
use crate::{
    api::{
        App, Service,
        auth::Tenant,
        error::ApiError,
        random,
        record::Record,
        reply::Run,
        tape::Chosen,
        turn::{self, Turn},
    },
    engine::Job,
};

pub(in crate::api) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/responses", post(create))
        .route("/v1/responses/input_tokens", post(input_tokens))
        .route("/v1/responses/{id}", get(kept::get).delete(kept::delete))
        .route("/v1/responses/{id}/cancel", post(kept::cancel))
        .route("/v1/responses/{id}/input_items", get(kept::input_items))
}

async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (turn, asked) = receive(&app, &service, tenant, body).await?;
    let Turn {
        jobs,
        readers,
        delivery,
        warnings,
    } = turn;
    let Some(reader) = readers.into_iter().next() else {
        return Err(ApiError::Internal("a turn without a reader".to_owned()));
    };
    let copies = jobs.len();
    let owner = Owner {
        app: Arc::clone(&app),
        tenant: tenant.claimant.key,
    };
    let stands_alone = asked.stands_alone;
    let answer = Answer::new(asked, reader, Some(owner));
    let mut response = match delivery {
        Delivery::Whole => {
            let run = Run::submit(service, jobs, copies, "input", Whole(answer), record)?;
            run.whole().await?
        }
        Delivery::Stream(_) => {
            let events = Events::new(answer);
            let run = Run::submit(service, jobs, copies, "input", events, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    if !stands_alone {
        // What depends on kept answers cannot be replayed later.
        response.extensions_mut().remove::<Chosen>();
    }
    warn(&mut response, warnings);
    Ok(response)
}

/// How many tokens the model would read.
async fn input_tokens(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let (turn, _) = receive(&app, &service, tenant, body).await?;
    let tokens = turn.jobs.first().map_or(0, Job::asked);
    Ok(Json(json!({
        "object": "response.input_tokens",
        "input_tokens": tokens,
    })))
}

/// The request as a turn of a chat. Errors and warnings are in the words of this endpoint.
async fn receive(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    body: Body,
) -> Result<(Turn, Asked), ApiError> {
    let names = Arc::new(OnceLock::new());
    let translate = {
        let (app, names) = (Arc::clone(app), Arc::clone(&names));
        move |body, service: &Service| {
            let mut history = History::new(&app.responses, tenant.claimant.key);
            let mut learnt = Names::default();
            let (chat, mut asked) =
                request::read(body, &mut history, &service.identity, &mut learnt)?;
            // What is refused later is refused in the words of the chat request.
            let _ = names.set(learnt);
            if !app.responses.is_open() {
                asked.keep_nothing();
            }
            Ok((chat, asked))
        }
    };
    let received = turn::receive(app, service, tenant, body, translate).await;
    // Without names the request was refused here, in its own words.
    let Some(names) = names.get() else {
        return received;
    };
    let (mut turn, mut asked) = received.map_err(|error| names.error(error))?;
    let told = turn.warnings.iter().map(|warning| names.text(warning));
    turn.warnings = asked.warnings.drain(..).chain(told).collect();
    if let Some(job) = turn.jobs.first() {
        asked.resource.sampling = (&job.sampling).into();
    }
    Ok((turn, asked))
}

/// A new id, such as `msg_0123…`.
fn id(prefix: &str) -> String {
    format!("{prefix}_{:016x}{:016x}", random(), random())
}

/// Seconds since the epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

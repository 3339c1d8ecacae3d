//! `POST /v1/chat/completions`: messages in, the assistant's next message out.

mod answer;
mod functions;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use axum::{Extension, body::Body, extract::State, response::Response};

use self::{
    answer::{Chunks, Whole},
    functions::{Offer, Old},
};
use super::{
    params::Delivery,
    wire::{Head, warn},
};
use crate::api::{
    App, Service,
    auth::Tenant,
    error::ApiError,
    record::Record,
    reply::Run,
    turn::{self, Turn},
};

pub(in crate::api) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (turn, offer) = receive(&app, &service, tenant, body).await?;
    let Turn {
        jobs,
        readers,
        delivery,
        warnings,
    } = turn;
    let copies = jobs.len();
    let mut response = match delivery {
        Delivery::Whole => {
            let head = Head::new("chatcmpl", "chat.completion", &service.identity);
            let answer = Whole::new(&head, readers, offer);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(usage) => {
            let head = Head::new("chatcmpl", "chat.completion.chunk", &service.identity);
            let answer = Chunks::new(&head, readers, usage, offer);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

async fn receive(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    body: Body,
) -> Result<(Turn, Offer), ApiError> {
    let said = Arc::new(OnceLock::<Old>::new());
    let translate = {
        let said = Arc::clone(&said);
        move |mut body, _: &Service| {
            let old = functions::translate(&mut body)?;
            let offer = old.offer;
            let _ = said.set(old);
            Ok((body, offer))
        }
    };
    let received = turn::receive(app, service, tenant, body, translate).await;
    // What is refused later, or of no effect, is told in the caller's words.
    let nothing = Old::default();
    let old = said.get().unwrap_or(&nothing);
    let (mut turn, offer) = received.map_err(|error| old.error(error))?;
    let warnings = turn.warnings.into_iter();
    turn.warnings = warnings.map(|warning| old.warning(&warning)).collect();
    Ok((turn, offer))
}

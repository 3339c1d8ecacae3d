//! `POST /v1/chat/completions`: messages in, the assistant's next message out.

mod answer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};

use self::answer::{Chunks, Whole};
use super::{
    params::Delivery,
    wire::{Head, warn},
};
use crate::api::{
    App,
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
    let as_it_is = |body, _: &_| Ok((body, ()));
    let (turn, ()) = turn::receive(&app, &service, tenant, body, as_it_is).await?;
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
            let answer = Whole::new(&head, readers);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.whole().await?
        }
        Delivery::Stream(usage) => {
            let head = Head::new("chatcmpl", "chat.completion.chunk", &service.identity);
            let answer = Chunks::new(&head, readers, usage);
            let run = Run::submit(service, jobs, copies, "messages", answer, record)?;
            run.stream(app.limits().keep_alive).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

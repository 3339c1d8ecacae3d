//! `POST /infill`: the text that belongs between two others.

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::Value;

use super::{
    completion::{self, Wanted},
    fim::{Extra, Gap, Marks},
};
use crate::api::{App, auth::Tenant, body, error::ApiError, fields::Fields, record::Record};

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    let (engine, _) = service.work.generator()?;
    let marks = Marks::of(&*service.vocab)?;
    let context = engine.shape().context as usize;
    let body = body::receive(body, &app.limits()).await?;
    let wanted = {
        let (app, service) = (Arc::clone(&app), Arc::clone(&service));
        body::prepare(body, move |body| {
            let object = app.with_defaults(body::parse(body)?);
            let vocab = &*service.vocab;
            let asked = Asked::read(Fields::new(&object))?;
            let gap = marks.prompt(asked.gap(), vocab);
            Wanted::read(object, &service, &app.limits(), tenant, |max_tokens| {
                // The gap itself is never cut: if it is too long, the request is refused.
                let answer = usize::try_from(max_tokens)
                    .unwrap_or(context)
                    .min(context / 4);
                let room = context.saturating_sub(gap.len() + answer + 1);
                let mut prompt = marks.files(&asked.extras, room, vocab);
                prompt.extend(gap);
                Ok(vec![prompt])
            })
        })
        .await?
    };
    completion::answer(&app, service, wanted, "input_prefix", record).await
}

struct Asked {
    before: String,
    after: String,
    begins: String,
    extras: Vec<Extra>,
}

impl Asked {
    fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let text = |name| {
            fields
                .text(name)?
                .ok_or_else(|| fields.wrong(name, "a string"))
        };
        let extras = fields.array("input_extra")?.map_or(&[][..], Vec::as_slice);
        let extras = extras.iter().enumerate().map(|(at, item)| extra(at, item));
        Ok(Self {
            before: text("input_prefix")?.to_owned(),
            after: text("input_suffix")?.to_owned(),
            begins: fields.text("prompt")?.unwrap_or_default().to_owned(),
            extras: extras.collect::<Result<_, _>>()?,
        })
    }

    fn gap(&self) -> Gap<'_> {
        Gap {
            before: &self.before,
            after: &self.after,
            begins: &self.begins,
        }
    }
}

/// `{"filename": …, "text": …}`
fn extra(at: usize, item: &Value) -> Result<Extra, ApiError> {
    let path = format!("input_extra[{at}].");
    let Some(object) = item.as_object() else {
        let message = format!("input_extra[{at}]: expected an object with `text` and `filename`");
        return Err(ApiError::invalid(format!("input_extra[{at}]"), message));
    };
    let fields = Fields::within(object, &path);
    let text = fields.text("text")?;
    Ok(Extra {
        text: text
            .ok_or_else(|| fields.wrong("text", "a string"))?
            .to_owned(),
        filename: fields.text("filename")?.unwrap_or("tmp").to_owned(),
    })
}

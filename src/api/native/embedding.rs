//! `POST /embedding`, as llama-server answers: a list of vectors for each text, which without pooling has one for each
//! token.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use serde::Serialize;

use crate::{
    api::{
        App, Service, body,
        encode::{self, Input},
        error::ApiError,
        fields::Fields,
        openai::models::known,
        record::Record,
    },
    engine::embed::{Output, unit},
};

#[derive(Serialize)]
pub(super) struct Embedding {
    index: usize,
    embedding: Vec<Vec<f32>>,
}

/// `embd_normalize`.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// As computed.
    Own,
    One,
}

pub(super) async fn embedding(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    body: Body,
) -> Result<Json<Vec<Embedding>>, ApiError> {
    let service = app.service()?;
    let engine = service.work.embedder()?;
    let body = body::receive(body, &app.limits()).await?;
    let (input, length) = {
        let service = Arc::clone(&service);
        body::prepare(body, move |body| parse(body, &service)).await?
    };
    let name = input.namer();
    let encoded = encode::run(&service, engine, &app.limits(), input.texts, record, name).await?;
    let outputs = (0..).zip(encoded.outputs);
    let answer = outputs.map(|(index, output)| Embedding {
        index,
        embedding: match (output, length) {
            (Output::Pooled(vector), Length::One) => vec![unit(vector)],
            (Output::Pooled(vector), Length::Own) => vec![vector],
            // llama-server leaves the tokens' vectors as they are, too.
            (Output::Tokens(vectors), _) => vectors,
        },
    });
    Ok(Json(answer.collect()))
}

fn parse(body: &[u8], service: &Service) -> Result<(Input, Length), ApiError> {
    let object = body::parse(body)?;
    let fields = Fields::new(&object);
    if let Some(model) = fields.text("model")? {
        known(model, &service.identity)?;
    }
    encode::refuse(&object, &["dimensions", "image_data", "truncate"])?;
    if !matches!(fields.text("encoding_format")?, None | Some("float")) {
        return Err(fields.wrong("encoding_format", "\"float\" (base64: /v1/embeddings)"));
    }
    let length = match fields.integer::<i64>("embd_normalize", -1..=i64::MAX)? {
        None | Some(2) => Length::One,
        Some(-1) => Length::Own,
        Some(_) => return Err(fields.wrong("embd_normalize", "2 or -1")),
    };
    let field = if fields.get("input").is_none() && fields.get("content").is_some() {
        "content"
    } else {
        "input"
    };
    Ok((Input::parse(fields, field, &*service.vocab)?, length))
}

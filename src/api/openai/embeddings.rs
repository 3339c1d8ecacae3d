//! `POST /v1/embeddings`: texts or tokens in, a vector of length 1 for each out.

use std::sync::Arc;

use axum::{Extension, Json, body::Body, extract::State};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::models::known;
use crate::{
    api::{
        App, Service, body,
        encode::{self, Input},
        error::ApiError,
        fields::Fields,
        record::Record,
    },
    engine::{
        embed::{Facts, Output, unit},
        task::Pooling,
    },
};

/// Known elsewhere; each would change the vectors.
const UNSUPPORTED: &[&str] = &[
    "add_special_tokens",
    "embedding_types",
    "input_type",
    "late_chunking",
    "prompt_name",
    "task",
    "truncate",
    "truncate_prompt_tokens",
];

#[derive(Serialize)]
pub(in crate::api) struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Spent,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    #[serde(rename = "embedding")]
    vector: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Little-endian f32 in base64.
    Base64(String),
}

/// Tokens that the request took.
#[derive(Serialize)]
pub(in crate::api) struct Spent {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl Spent {
    pub(in crate::api) fn reading(tokens: u32) -> Self {
        Self {
            prompt_tokens: tokens,
            total_tokens: tokens,
        }
    }
}

pub(in crate::api) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    body: Body,
) -> Result<Json<Embeddings>, ApiError> {
    let service = app.service()?;
    let engine = service.work.embedder()?;
    let body = body::receive(body, &app.limits()).await?;
    let (input, format) = {
        let (service, facts) = (Arc::clone(&service), engine.facts());
        body::prepare(body, move |body| parse(body, &service, facts)).await?
    };
    let name = input.namer();
    let encoded = encode::run(&service, engine, &app.limits(), input.texts, record, name).await?;
    let data = (0..).zip(encoded.outputs).map(|(index, output)| Embedding {
        object: "embedding",
        index,
        vector: format.vector(output),
    });
    Ok(Json(Embeddings {
        object: "list",
        data: data.collect(),
        model: service.identity.model.clone(),
        usage: Spent::reading(encoded.tokens),
    }))
}

fn parse(body: &[u8], service: &Service, facts: Facts) -> Result<(Input, Format), ApiError> {
    let object = body::parse(body)?;
    let fields = Fields::new(&object);
    if let Some(model) = fields.text("model")? {
        known(model, &service.identity)?;
    }
    encode::refuse(&object, UNSUPPORTED)?;
    fields.text("user")?;
    if facts.pooling == Pooling::None {
        return Err(ApiError::WrongWork(
            "engine.pooling = 'none gives a vector for each token, which only /embedding answers with; \
             /v1/embeddings needs 'mean, 'cls or 'last"
                .into(),
        ));
    }
    let dimensions = fields.integer::<u32>("dimensions", 1..=i64::from(u32::MAX))?;
    if dimensions.is_some_and(|wanted| wanted != facts.width) {
        // Nothing in a file says that a part of its vectors is a vector too.
        let expected = format_args!("{}, which this model's vectors have", facts.width);
        return Err(fields.wrong("dimensions", expected));
    }
    let format = match fields.text("encoding_format")? {
        None | Some("float") => Format::Numbers,
        Some("base64") => Format::Base64,
        Some(_) => return Err(fields.wrong("encoding_format", "\"float\" or \"base64\"")),
    };
    Ok((Input::parse(fields, "input", &*service.vocab)?, format))
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Numbers,
    Base64,
}

impl Format {
    fn vector(self, output: Output) -> Vector {
        let vector = match output {
            Output::Pooled(vector) => unit(vector),
            Output::Tokens(vectors) => vectors.concat(), // `parse` has refused this pooling
        };
        match self {
            Self::Numbers => Vector::Numbers(vector),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

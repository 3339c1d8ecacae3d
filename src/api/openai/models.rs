//! `GET /v1/models` and `GET /v1/models/{id}`: the one model, under each of its names.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use crate::api::{App, Identity, Service, Work, error::ApiError, id::Id, moment};

/// OpenAI's list, and what Anthropic's has beside it: the clients of both read it.
#[derive(Serialize)]
pub(in crate::api) struct List {
    object: &'static str,
    data: Vec<Model>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

#[derive(Serialize)]
pub(in crate::api) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    r#type: &'static str,
    display_name: String,
    created_at: String,
    architecture: Architecture,
    meta: Meta,
}

/// llama-server's names for what goes in and what comes out.
#[derive(Serialize)]
struct Architecture {
    input_modalities: Vec<&'static str>,
    output_modalities: Vec<&'static str>,
}

/// llama-server's names for what the file says of the model.
#[derive(Serialize)]
struct Meta {
    vocab_type: i32,
    n_vocab: u32,
    /// Tokens for each request, and those the model was trained with.
    n_ctx: u32,
    n_ctx_train: u32,
    n_embd: u32,
    n_params: u64,
    /// Bytes.
    size: u64,
    ftype: String,
}

/// The model's own name first: clients that choose for themselves take the first.
pub(in crate::api) async fn list(State(app): State<Arc<App>>) -> Result<Json<List>, ApiError> {
    let service = app.service()?;
    let names = names(&service.identity);
    Ok(Json(List {
        object: "list",
        data: names.iter().map(|name| model(name, &service)).collect(),
        first_id: names.first().cloned(),
        last_id: names.last().cloned(),
        has_more: false,
    }))
}

/// `id` may contain slashes.
pub(in crate::api) async fn one(
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<Model>, ApiError> {
    let service = app.service()?;
    known(&id, &service.identity)?;
    Ok(Json(model(&id, &service)))
}

/// Whether a request may call the served model `wanted`.
pub(in crate::api) fn known(wanted: &str, identity: &Identity) -> Result<(), ApiError> {
    let aliases = identity.aliases.load();
    let fits = |alias: &String| alias == "*" || alias == wanted;
    let adapter = identity.loras.aliases().any(|alias| alias == wanted);
    if wanted == identity.model || adapter || aliases.iter().any(fits) {
        return Ok(());
    }
    Err(ApiError::UnknownModel {
        wanted: wanted.to_owned(),
        served: identity.model.clone(),
    })
}

pub(in crate::api) fn names(identity: &Identity) -> Vec<String> {
    let aliases = identity.aliases.load();
    let aliases = aliases.iter().filter(|alias| *alias != "*");
    let adapters = identity.loras.aliases().map(str::to_owned);
    std::iter::once(&identity.model)
        .chain(aliases)
        .cloned()
        .chain(adapters)
        .collect()
}

fn architecture(work: &Work) -> Architecture {
    let inputs = [
        ("text", true),
        ("image", work.sees()),
        ("audio", work.hears()),
    ];
    let taken = inputs.into_iter().filter(|(_, taken)| *taken);
    Architecture {
        input_modalities: taken.map(|(name, _)| name).collect(),
        output_modalities: match work {
            Work::Generate { .. } => vec!["text"],
            Work::Embed { .. } | Work::Rank { .. } => Vec::new(),
        },
    }
}

fn model(name: &str, service: &Service) -> Model {
    let about = &service.about;
    Model {
        id: name.to_owned(),
        object: "model",
        created: service.identity.created,
        owned_by: "llm-server",
        r#type: "model",
        display_name: name.to_owned(),
        created_at: moment::at(service.identity.created),
        architecture: architecture(&service.work),
        meta: Meta {
            vocab_type: about.vocabulary_type,
            n_vocab: about.vocabulary,
            n_ctx: service.work.size().context,
            n_ctx_train: about.trained_context,
            n_embd: about.width,
            n_params: about.parameters,
            size: about.bytes,
            ftype: about.quantization.clone(),
        },
    }
}

//! What is served, in Ollama's words: `/api/tags`, `/api/ps`, `/api/show` and `/api/version`.

use std::sync::Arc;

use axum::{Json, body::Body, extract::State};
use serde_json::{Map, Value, json};

use super::names;
use crate::{
    api::{App, Service, Work, body, error::ApiError, fields::Fields, moment, openai},
    engine::model::About,
};

/// The version of Ollama whose interface this is: some clients ask for a least one.
const VERSION: &str = "0.33.0";

/// No model is ever unloaded.
const NEVER: &str = "9999-12-31T23:59:59Z";

pub(super) async fn version() -> Json<Value> {
    let server = concat!("llm-server ", env!("CARGO_PKG_VERSION"));
    Json(json!({"version": VERSION, "server": server}))
}

/// `GET /api/tags`: the one model, under each of its names.
pub(super) async fn tags(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let modified = moment::at(service.identity.created);
    let entries = entries(&service, |entry| {
        entry.insert("modified_at".to_owned(), modified.as_str().into());
        entry.insert("capabilities".to_owned(), capabilities(&service));
    });
    Ok(Json(json!({"models": entries})))
}

/// `GET /api/ps`.
pub(super) async fn running(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let vram = vram(&service.plan);
    let entries = entries(&service, |entry| {
        entry.insert("expires_at".to_owned(), NEVER.into());
        entry.insert("size_vram".to_owned(), vram.into());
        let context = service.work.size().context;
        entry.insert("context_length".to_owned(), context.into());
    });
    Ok(Json(json!({"models": entries})))
}

fn entries(service: &Service, mut add: impl FnMut(&mut Map<String, Value>)) -> Vec<Value> {
    let names = openai::models::names(&service.identity);
    let entry = |name: &String| {
        let name = names::tagged(name);
        let mut entry = Map::from_iter([
            ("name".to_owned(), name.as_str().into()),
            ("model".to_owned(), name.as_str().into()),
            ("size".to_owned(), service.about.bytes.into()),
            ("digest".to_owned(), digest(service)),
            ("details".to_owned(), details(service)),
        ]);
        add(&mut entry);
        Value::Object(entry)
    };
    names.iter().map(entry).collect()
}

/// SHA-256 of the weights.
fn digest(service: &Service) -> Value {
    let digest = &service.identity.version["model"]["sha256"];
    digest.as_str().unwrap_or_default().into()
}

fn details(service: &Service) -> Value {
    let about = &service.about;
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": about.architecture,
        "families": [about.architecture],
        "parameter_size": size(about.parameters),
        "quantization_level": quantization(&about.quantization),
        "context_length": service.work.size().context,
        "embedding_length": about.width,
    })
}

fn capabilities(service: &Service) -> Value {
    let Work::Generate { chat, .. } = &service.work else {
        return json!(["embedding"]);
    };
    let can = chat.capabilities();
    let fim = service.vocab.fim();
    let fills = fim.prefix.and(fim.suffix).and(fim.middle).is_some();
    let all = [
        ("completion", true),
        ("tools", can.tool_calls),
        ("insert", fills),
        ("vision", service.work.sees()),
        ("thinking", can.thinking),
    ];
    all.iter()
        .filter(|(_, can)| *can)
        .map(|(name, _)| *name)
        .collect()
}

/// Planned bytes on all devices but the machine's memory.
fn vram(plan: &Value) -> u64 {
    let devices = plan["devices"].as_array().map_or(&[][..], Vec::as_slice);
    let gpus = devices.iter().filter(|device| device["name"] != "host");
    gpus.filter_map(|device| device["used"].as_u64()).sum()
}

/// `POST /api/show`.
pub(super) async fn show(State(app): State<Arc<App>>, body: Body) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let body = body::receive(body, &app.limits()).await?;
    let object = body::parse(&body)?;
    let fields = Fields::new(&object);
    let model = names::wanted(fields, &service)?;
    if fields.flag("verbose")? == Some(true) {
        let message = "verbose: not supported, for the file itself has tensors and vocabulary";
        return Err(ApiError::invalid("verbose", message));
    }
    let size = service.work.size();
    let template = match &service.work {
        Work::Generate { chat, .. } => chat.source(),
        Work::Embed { .. } | Work::Rank { .. } => "",
    };
    Ok(Json(json!({
        "modelfile": format!("FROM {model}\n# The server's configuration file sets it, models.lock pins it.\n"),
        "parameters": format!("num_ctx {}", size.context),
        "template": template,
        "details": details(&service),
        "model_info": model_info(&service.identity.model, &service.about, size.context),
        "capabilities": capabilities(&service),
        "modified_at": moment::at(service.identity.created),
    })))
}

/// In the names of the file's header. `context`: clients take what is told here for what they may ask for.
fn model_info(name: &str, about: &About, context: u32) -> Value {
    let architecture = &about.architecture;
    json!({
        "general.architecture": architecture,
        // Editors call the model by this.
        "general.basename": name,
        "general.parameter_count": about.parameters,
        (format!("{architecture}.context_length")): context,
        (format!("{architecture}.embedding_length")): about.width,
        (format!("{architecture}.vocab_size")): about.vocabulary,
    })
}

/// `134.52M`, `8B`.
fn size(parameters: u64) -> String {
    let (unit, digits, letter) = match parameters {
        1_000_000_000.. => (1e9, 1, "B"),
        1_000_000.. => (1e6, 2, "M"),
        1_000.. => (1e3, 0, "K"),
        _ => return parameters.to_string(),
    };
    let count = parameters as f64 / unit;
    let digits = if count.fract() == 0.0 { 0 } else { digits };
    format!("{count:.digits$}{letter}")
}

/// `Q4_K - Medium` is `Q4_K_M` with Ollama.
fn quantization(name: &str) -> String {
    let name = match name.split_once(" - ") {
        Some((kind, size)) => format!("{kind}_{}", size.chars().next().unwrap_or('M')),
        None => name.to_owned(),
    };
    name.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_quantisations_are_told_as_ollama_tells_them() {
        assert_eq!(
            [999, 45_600, 134_515_008, 8_000_000_000, 30_532_122_624].map(size),
            ["999", "46K", "134.52M", "8B", "30.5B"]
        );
        assert_eq!(quantization("Q4_K - Medium"), "Q4_K_M");
        assert_eq!(quantization("Q8_0"), "Q8_0");
        assert_eq!(quantization("all F32"), "all");
    }
}

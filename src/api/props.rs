//! `GET /props`: what is served, where it lies, and how the GPUs are; with the fields that llama-server's clients read.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;

use super::{App, error::ApiError};
use crate::{chat, engine::Sampling, gpu::Reading};

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "names and facts as llama-server has them"
)]
pub(super) struct Props {
    model: String,
    /// `chat`, `embedding` or `rerank`.
    kind: &'static str,
    /// Tokens for each sequence.
    context: u32,
    parallel: u32,
    system_fingerprint: String,
    /// As `GET /version` answers.
    version: Value,
    /// As `llm-server plan --json` prints; null when none was made.
    plan: Value,
    /// Null: the driver does not answer.
    gpus: Option<Vec<Reading>>,

    // llama-server's names for what clients look at.
    default_generation_settings: Settings,
    total_slots: u32,
    model_alias: String,
    modalities: Modalities,
    chat_template: String,
    chat_template_caps: Capabilities,
    build_info: String,
    endpoint_slots: bool,
    endpoint_props: bool,
    endpoint_metrics: bool,
    is_sleeping: bool,
}

#[derive(Serialize)]
struct Settings {
    n_ctx: u32,
    params: Params,
}

/// What a request gets that says nothing of it.
#[derive(Serialize)]
struct Params {
    temperature: f32,
    dynatemp_range: f32,
    dynatemp_exponent: f32,
    top_k: i32,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    top_n_sigma: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    repeat_last_n: i32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: i32,
    dry_penalty_last_n: i32,
    dry_sequence_breakers: Vec<String>,
    mirostat: u8,
    mirostat_tau: f32,
    mirostat_eta: f32,
    /// -1: what is left of the context.
    max_tokens: i64,
}

#[derive(Serialize)]
struct Modalities {
    vision: bool,
    audio: bool,
}

#[derive(Default, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as they go on the wire"
)]
struct Capabilities {
    supports_tools: bool,
    supports_tool_calls: bool,
    supports_parallel_tool_calls: bool,
    supports_system_role: bool,
    supports_reasoning_effort: bool,
}

/// Where files lie is not told: callers need no paths of this machine.
pub(super) async fn props(State(app): State<Arc<App>>) -> Result<Json<Props>, ApiError> {
    let service = app.service()?;
    let (size, identity) = (service.work.size(), &service.identity);
    let chat = service.work.generator().ok().map(|(_, chat)| chat);
    let gpus = service.gpus.now().await;
    Ok(Json(Props {
        model: identity.model.clone(),
        kind: service.work.kind(),
        context: size.context,
        parallel: size.parallel,
        system_fingerprint: identity.fingerprint.clone(),
        version: identity.version.clone(),
        plan: service.plan.clone(),
        gpus,
        default_generation_settings: Settings {
            n_ctx: size.context,
            params: params(app.limits().max_tokens),
        },
        total_slots: size.parallel,
        model_alias: identity.model.clone(),
        modalities: Modalities {
            vision: service.work.sees(),
            audio: service.work.hears(),
        },
        chat_template: chat.map_or_else(String::new, |chat| chat.source().to_owned()),
        chat_template_caps: chat
            .map(|chat| chat.capabilities().into())
            .unwrap_or_default(),
        build_info: concat!("llm-server ", env!("CARGO_PKG_VERSION")).to_owned(),
        endpoint_slots: true,
        endpoint_props: false,
        endpoint_metrics: true,
        is_sleeping: false,
    }))
}

fn params(max_tokens: Option<u32>) -> Params {
    let defaults = Sampling::default();
    Params {
        temperature: defaults.temperature,
        dynatemp_range: defaults.dynatemp_range,
        dynatemp_exponent: defaults.dynatemp_exponent,
        top_k: defaults.top_k,
        top_p: defaults.top_p,
        min_p: defaults.min_p,
        typical_p: defaults.typical_p,
        top_n_sigma: defaults.top_n_sigma,
        xtc_probability: defaults.xtc_probability,
        xtc_threshold: defaults.xtc_threshold,
        repeat_last_n: defaults.repeat_last_n,
        repeat_penalty: defaults.repeat_penalty,
        presence_penalty: defaults.presence_penalty,
        frequency_penalty: defaults.frequency_penalty,
        dry_multiplier: defaults.dry_multiplier,
        dry_base: defaults.dry_base,
        dry_allowed_length: defaults.dry_allowed_length,
        dry_penalty_last_n: defaults.dry_penalty_last_n,
        dry_sequence_breakers: defaults.dry_sequence_breakers,
        mirostat: defaults.mirostat,
        mirostat_tau: defaults.mirostat_tau,
        mirostat_eta: defaults.mirostat_eta,
        max_tokens: max_tokens.map_or(-1, i64::from),
    }
}

impl From<chat::Capabilities> for Capabilities {
    fn from(template: chat::Capabilities) -> Self {
        Self {
            supports_tools: template.describes_tools,
            supports_tool_calls: template.tool_calls,
            supports_parallel_tool_calls: template.parallel_tool_calls,
            supports_system_role: template.system_role,
            supports_reasoning_effort: template.reasoning_effort,
        }
    }
}

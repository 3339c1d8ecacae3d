//! `GET /props`: what is served, where it lies, and how the GPUs are; with the fields that llama-server's clients read.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    App, Service,
    auth::Tenant,
    error::ApiError,
    fields::Fields,
    openai::params::{self, UNSEEDED},
};
use crate::{
    chat,
    engine::{Claimant, Sampling},
    gpu::Reading,
};

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
    model_ftype: String,
    /// The model's name, as for adapters: callers need no paths of this machine.
    model_path: String,
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
    /// llama.cpp's number for "another one each time", unless the configuration fixes it.
    seed: u32,
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
    n_predict: i64,
    stop: Vec<String>,
    ignore_eos: bool,
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
            params: params(&app, &service)?,
        },
        total_slots: size.parallel,
        model_alias: identity.model.clone(),
        model_ftype: service.about.quantization.clone(),
        model_path: identity.model.clone(),
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

/// What the configuration gives to a request that says nothing. A model that answers none has llama.cpp's own.
fn params(app: &App, service: &Service) -> Result<Params, ApiError> {
    let limits = app.limits();
    if service.work.generator().is_err() {
        let own = Sampling {
            seed: UNSEEDED,
            ..Sampling::default()
        };
        return Ok(told(own, limits.max_tokens));
    }
    let body = app.with_defaults(Map::new());
    let nobody = Tenant {
        claimant: Claimant::default(),
        cache: 0,
    };
    let read = params::read(
        Fields::new(&body),
        service,
        &limits,
        nobody,
        &["max_tokens"],
    )?;
    let mut job = read.job;
    if !body.contains_key("seed") {
        job.sampling.seed = UNSEEDED;
    }
    let bounded = limits.max_tokens.is_some() || body.contains_key("max_tokens");
    Ok(Params {
        stop: job.stop,
        ..told(job.sampling, bounded.then_some(job.max_tokens))
    })
}

fn told(sampling: Sampling, max_tokens: Option<u32>) -> Params {
    let max_tokens = max_tokens.map_or(-1, i64::from);
    Params {
        seed: sampling.seed,
        temperature: sampling.temperature,
        dynatemp_range: sampling.dynatemp_range,
        dynatemp_exponent: sampling.dynatemp_exponent,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        typical_p: sampling.typical_p,
        top_n_sigma: sampling.top_n_sigma,
        xtc_probability: sampling.xtc_probability,
        xtc_threshold: sampling.xtc_threshold,
        repeat_last_n: sampling.repeat_last_n,
        repeat_penalty: sampling.repeat_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        dry_multiplier: sampling.dry_multiplier,
        dry_base: sampling.dry_base,
        dry_allowed_length: sampling.dry_allowed_length,
        dry_penalty_last_n: sampling.dry_penalty_last_n,
        dry_sequence_breakers: sampling.dry_sequence_breakers,
        mirostat: sampling.mirostat,
        mirostat_tau: sampling.mirostat_tau,
        mirostat_eta: sampling.mirostat_eta,
        max_tokens,
        n_predict: max_tokens,
        stop: Vec::new(),
        ignore_eos: false,
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

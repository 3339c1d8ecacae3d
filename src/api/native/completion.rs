//! `POST /completion`: prompts in, their continuations out, as llama-server words them.

mod answer;
mod options;
mod settings;

use std::sync::Arc;

use axum::{Extension, body::Body, extract::State, response::Response};
use serde_json::{Map, Value};

use self::{
    answer::{Asked, Chunks, Whole},
    options::Options,
};
use super::{
    prompt::{prompts, text_of},
    samplers,
};
use crate::{
    api::{
        App, Service,
        auth::Tenant,
        body,
        error::ApiError,
        fields::Fields,
        openai::{
            constraint::{self, Pending},
            params::{self, Delivery},
            wire::warn,
        },
        record::Record,
        reply::Run,
    },
    config::Limits,
    engine::{Job, Token},
};

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(tenant): Extension<Tenant>,
    body: Body,
) -> Result<Response, ApiError> {
    let service = app.service()?;
    service.work.generator()?;
    let body = body::receive(body, &app.limits()).await?;
    let wanted = {
        let (app, service) = (Arc::clone(&app), Arc::clone(&service));
        body::prepare(body, move |body| {
            let object = app.with_defaults(body::parse(body)?);
            let prompts = prompts(Fields::new(&object), &*service.vocab)?;
            Wanted::read(object, &service, &app.limits(), tenant, |_| Ok(prompts))
        })
        .await?
    };
    answer(&app, service, wanted, "prompt", record).await
}

/// `param`: the field that the prompt came from.
pub(super) async fn answer(
    app: &App,
    service: Arc<Service>,
    wanted: Wanted,
    param: &'static str,
    record: Arc<Record>,
) -> Result<Response, ApiError> {
    let Wanted {
        mut jobs,
        copies,
        asked,
        options,
        delivery,
        pending,
    } = wanted;
    let mut warnings = options.warnings;
    warnings.extend(params::cut(&jobs));
    if let Some(pending) = pending {
        warnings.extend(pending.apply(&service, &mut jobs).await?);
    }
    let mut response = match delivery {
        Delivery::Whole => {
            let run = Run::submit(service, jobs, copies, param, Whole::new(asked), record)?;
            run.whole().await?
        }
        Delivery::Stream(_) => {
            let run = Run::submit(service, jobs, copies, param, Chunks::new(asked), record)?;
            let silence = options.ping.unwrap_or(app.limits().keep_alive);
            run.stream(silence).await?
        }
    };
    warn(&mut response, warnings);
    Ok(response)
}

/// A request, understood.
pub(super) struct Wanted {
    jobs: Vec<Job>,
    copies: usize,
    /// What the answer says of the request.
    asked: Asked,
    options: Options,
    delivery: Delivery,
    /// What the answers must be, to be compiled.
    pending: Option<Pending>,
}

impl Wanted {
    /// `prompts` is told how many tokens may be generated.
    pub(super) fn read(
        mut body: Map<String, Value>,
        service: &Service,
        limits: &Limits,
        tenant: Tenant,
        prompts: impl FnOnce(u32) -> Result<Vec<Vec<Token>>, ApiError>,
    ) -> Result<Self, ApiError> {
        let shape = service.work.generator()?.0.shape();
        let options = Options::take(&mut body, shape)?;
        let samplers = body.shift_remove_entry("samplers");
        let names = ["n_predict", "max_tokens", "max_completion_tokens"];
        let fields = Fields::new(&body);
        let mut params = params::read(fields, service, limits, tenant, &names)?;
        let samplers = Map::from_iter(samplers);
        let samplers = samplers::choose(Fields::new(&samplers), &mut params.job.sampling)?;
        params.job.enough = options.enough;
        params.job.logprobs = options.scores();
        if options.nothing {
            params.job.max_tokens = 0;
        }
        let pending = constraint::apply(fields, &mut params.job)?;
        let prompts = prompts(params.job.max_tokens)?;
        params.check_choices(fields, prompts.len())?;
        let vocab = &*service.vocab;
        let spell = |job: &Job| {
            if options.shows("prompt") {
                text_of(&job.prompt, vocab)
            } else {
                String::new()
            }
        };
        let copies = params.n;
        let jobs = params.jobs(prompts);
        if options.timings_per_token && jobs.len() > 1 {
            let message = "timings_per_token: only for a single answer";
            return Err(ApiError::invalid("timings_per_token", message));
        }
        let asked = Asked {
            model: service.identity.model.clone(),
            context: shape.context,
            prompts: jobs.iter().map(spell).collect(),
            settings: jobs
                .iter()
                .map(|job| settings::told(job, &options, &samplers, params.delivery))
                .collect(),
            prompt_tokens: jobs.iter().map(|job| job.prompt.len()).collect(),
            fields: options.response_fields.clone(),
            probabilities: options.n_probs > 0,
            tokens: options.return_tokens,
            timings: options.timings_per_token,
        };
        Ok(Self {
            jobs,
            copies,
            asked,
            options,
            delivery: params.delivery,
            pending,
        })
    }
}

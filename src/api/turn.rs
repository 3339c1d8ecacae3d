//! One turn of a conversation: a chat request of whatever dialect, understood and ready for the engine.

mod message;
mod reader;
mod thinking;

use std::sync::Arc;

use axum::body::Body;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

pub(super) use self::{
    message::Message,
    reader::{Part, Reader},
};
use super::{
    App, Service,
    auth::Tenant,
    body,
    error::ApiError,
    fields::Fields,
    fill,
    images::{self, Images, Remote},
    openai::{
        constraint::{self, Form, Kind, Pending, Purpose},
        params::{self, Delivery},
    },
};
use crate::{
    chat::{Chat, Rendered},
    config::Limits,
    engine::{self, Claimant, Grammar, Job, Token, constrain::Source, model::Vocab},
};

/// What a request came to. Answers to it differ in their wording only, which is the dialect's matter.
pub(super) struct Turn {
    pub(super) jobs: Vec<Job>,
    /// One for each job.
    pub(super) readers: Vec<Reader>,
    pub(super) delivery: Delivery,
    /// What of the request has no effect.
    pub(super) warnings: Vec<String>,
}

/// Receives a request. `translate` brings its body into the shape of OpenAI's, and keeps of it what the answer's
/// wording needs.
pub(super) async fn receive<T: Send + 'static>(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    body: Body,
    translate: impl FnOnce(Map<String, Value>, &Service) -> Result<(Map<String, Value>, T), ApiError>
    + Send
    + 'static,
) -> Result<(Turn, T), ApiError> {
    service.work.generator()?;
    let limits = app.limits();
    let remote = Arc::new(app.remote());
    let body = body::receive(body, &limits).await?;
    let (read, kept) = {
        let (app, service, limits) = (Arc::clone(app), Arc::clone(service), Arc::clone(&limits));
        let remote = Arc::clone(&remote);
        let parse = move |body: &[u8]| {
            let (body, kept) = translate(body::parse(body)?, &service)?;
            let mut body = app.with_defaults(body);
            let images = Images::take(&mut body, service.work.senses(), &limits, &remote)?;
            let read = if images.is_empty() {
                let images = images::Ready::none();
                Read::Text(Turn::parse(body, &images, &service, &limits, tenant)?)
            } else {
                Read::Images(body, images)
            };
            Ok((read, kept))
        };
        body::prepare(body, parse).await?
    };
    let turn = understand(read, service, &limits, &remote, tenant).await?;
    Ok((turn, kept))
}

/// A request of OpenAI's shape, made here of something else; its images and sounds are taken out already.
pub(super) async fn make(
    app: &Arc<App>,
    service: &Arc<Service>,
    tenant: Tenant,
    body: Map<String, Value>,
    images: Images,
) -> Result<Turn, ApiError> {
    let read = Read::Images(app.with_defaults(body), images);
    understand(
        read,
        service,
        &app.limits(),
        &Arc::new(app.remote()),
        tenant,
    )
    .await
}

async fn understand(
    read: Read,
    service: &Arc<Service>,
    limits: &Arc<Limits>,
    remote: &Arc<Remote>,
    tenant: Tenant,
) -> Result<Turn, ApiError> {
    let (mut turn, pending) = match (read, service.work.senses()) {
        (Read::Images(body, images), Some(senses)) => {
            let images = images
                .perceive(senses, tenant.cache, limits, remote)
                .await?;
            let limits = Arc::clone(limits);
            let service = Arc::clone(service);
            let parse = move || Turn::parse(body, &images, &service, &limits, tenant);
            spawn_blocking(parse)
                .await
                .map_err(|error| ApiError::Internal(error.to_string()))??
        }
        (Read::Images(..), None) => return Err(ApiError::Internal("no projector".to_owned())),
        (Read::Text(turn), _) => turn,
    };
    for pending in pending {
        let told = pending.apply(service, &mut turn.jobs).await?;
        turn.warnings.extend(told);
    }
    Ok(turn)
}

/// A request that was read.
enum Read {
    Text((Turn, Vec<Pending>)),
    /// Its images and sounds must be perceived first.
    Images(Map<String, Value>, Images),
}

impl Turn {
    /// The turn, and what its answers must be, to be compiled or at least checked.
    fn parse(
        body: Map<String, Value>,
        images: &images::Ready,
        service: &Service,
        limits: &Limits,
        tenant: Tenant,
    ) -> Result<(Self, Vec<Pending>), ApiError> {
        let fields = Fields::new(&body);
        let vocab = &*service.vocab;
        let names = ["max_completion_tokens", "max_tokens", "n_predict"];
        let mut params = params::read(fields, service, limits, tenant, &names)?;
        params.job.logprobs = logprobs(fields)?;
        check_modalities(fields)?;
        check_echo(fields)?;
        let form = constraint::read(fields)?;
        let budget = thinking::read(fields)?;
        let strict = constraint::strict_tools(fields);
        let (rendered, form) = render(service.work.generator()?.1, body, form)?;
        let prompt = images.prompt(&rendered.prompt, vocab)?;
        params.job.visible = visible(&rendered, vocab);
        let mut warnings = rendered.warnings.clone();
        if let Some(wish) = budget {
            params.job.sampling.budget = wish.budget(&rendered, vocab, &mut warnings);
        }
        params.job.stop.extend(rendered.stops.iter().cloned());
        params.job.grammar = rendered.grammar.clone().map(Grammar::Gbnf);
        params.job.media = prompt.media;
        let jobs = params.jobs(vec![prompt.tokens]);
        warnings.extend(params::cut(&jobs));
        let readers = jobs.iter().map(|_| Reader::new(&rendered));
        let turn = Self {
            readers: readers.collect::<Result<_, _>>()?,
            jobs,
            delivery: params.delivery,
            warnings,
        };
        Ok((turn, form.into_iter().chain(strict).collect()))
    }

    /// Has the prompts, which are of text alone, go on from these tokens. `begin`: the token that begins every prompt.
    pub(super) fn follow(&mut self, before: &[Token], begin: Option<Token>) {
        for job in &mut self.jobs {
            let first = job.prompt.first().copied();
            let there = begin.is_some() && first == begin && before.first().copied() == begin;
            let known = usize::from(there);
            job.prompt.splice(..known, before.iter().copied());
            // Adapters that wait for words of the prompt find them later.
            if let Some(from) = job.adapters.border(0) {
                job.adapters = job.adapters.clone().after(from + before.len() - known);
            }
        }
    }
}

/// Whether a request may have all these parameters. A model that answers no chats needs none.
pub(super) fn check_defaults(
    service: &Service,
    limits: &Limits,
    defaults: &Map<String, Value>,
) -> Result<(), ApiError> {
    if defaults.is_empty() || service.work.generator().is_err() {
        return Ok(());
    }
    let mut body = Map::new();
    body.insert(
        "messages".to_owned(),
        json!([{"role": "user", "content": "?"}]),
    );
    fill(&mut body, defaults);
    let nobody = Tenant {
        claimant: Claimant::default(),
        cache: 0,
    };
    Turn::parse(body, &images::Ready::none(), service, limits, nobody).map(drop)
}

/// The prompt, and what is to be compiled for its answer.
fn render(
    chat: &Chat,
    body: Map<String, Value>,
    form: Option<Form>,
) -> Result<(Rendered, Option<Pending>), ApiError> {
    let Some(Form { param, kind }) = form else {
        return Ok((chat.render(&Value::Object(body))?, None));
    };
    let mut body = constraint::without(body);
    let content = match kind {
        Kind::Gbnf(text) => {
            body.insert("grammar".to_owned(), text.into());
            return Ok((chat.render(&Value::Object(body))?, None));
        }
        Kind::Body(content) => content,
    };
    let body = Value::Object(body);
    if let Some((rendered, frame)) = chat.render_framed(&body, &param)? {
        let pending = Pending {
            param,
            source: Source {
                body: content,
                frame,
            },
            purpose: Purpose::Hold,
        };
        return Ok((rendered, Some(pending)));
    }
    // llama.cpp knows more about the answers of this family; what it cannot do of a schema is still refused.
    let mut body = body;
    let mut purpose = Purpose::Hold;
    if let engine::constrain::Body::Json { schema, .. } = &content {
        body["json_schema"] = schema.clone();
        purpose = Purpose::Check;
    }
    let pending = Pending {
        param,
        source: content.into(),
        purpose,
    };
    Ok((chat.render(&body)?, Some(pending)))
}

/// The control tokens that the answer's parser must see.
fn visible(rendered: &Rendered, vocab: &dyn Vocab) -> Vec<Token> {
    let single = |text: &String| match vocab.tokenize(text, false, true)[..] {
        [token] => Some(token),
        _ => None,
    };
    rendered.preserved.iter().filter_map(single).collect()
}

fn logprobs(fields: Fields<'_>) -> Result<Option<u8>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let top = fields.integer::<u8>("top_logprobs", 0..=20)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "top_logprobs: only allowed together with `logprobs: true`";
            Err(ApiError::invalid("top_logprobs", message))
        }
    }
}

/// Nobody's chat answers with its own messages.
fn check_echo(fields: Fields<'_>) -> Result<(), ApiError> {
    if fields.flag("echo")? == Some(true) {
        let message = "echo: only /v1/completions knows it; leave it out";
        return Err(ApiError::invalid("echo", message));
    }
    Ok(())
}

fn check_modalities(fields: Fields<'_>) -> Result<(), ApiError> {
    match fields.array("modalities")?.map(Vec::as_slice) {
        None => Ok(()),
        Some([only]) if only == "text" => Ok(()),
        Some(_) => Err(fields.wrong("modalities", "[\"text\"]")),
    }
}

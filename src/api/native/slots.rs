//! `GET /slots`: what each sequence is doing, without a word of what was said in it; and `POST /slots/{id}`: its state
//! saved to a file, restored from one, erased.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::{RawQuery, State},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use url::form_urlencoded;

use crate::{
    api::{App, auth::Tenant, body, error::ApiError, fields::Fields, id::Id},
    engine::{
        Engine, Sequence,
        state::{Done, FileName, NotDone, SlotError, Slots},
    },
};

#[derive(Serialize)]
pub(super) struct Slot {
    id: u32,
    /// Tokens.
    n_ctx: u32,
    is_processing: bool,
    /// Tokens in the sequence's cache.
    n_prompt_tokens: u32,
    /// Of the prompt, computed for the present request.
    n_prompt_tokens_processed: u32,
    /// Of the prompt, found in the cache.
    n_prompt_tokens_cache: u32,
    next_token: [Next; 1],
}

#[derive(Serialize)]
struct Next {
    has_next_token: bool,
    /// -1 where nothing runs.
    n_remain: i64,
    n_decoded: u32,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Slot>>, ApiError> {
    let service = app.service()?;
    let (engine, _) = service.work.generator()?;
    let sequences = engine.sequences();
    let all_run = sequences.iter().all(|sequence| sequence.running);
    // Whatever it says, a server without a free sequence answers 503.
    let wish = said(query.as_deref(), "fail_on_no_slot");
    if all_run && wish.is_some_and(|wish| !wish.is_empty()) {
        return Err(ApiError::NoFreeSequence);
    }
    let context = engine.shape().context;
    let slots = (0..).zip(sequences).map(|(id, now)| slot(id, context, now));
    Ok(Json(slots.collect()))
}

fn slot(id: u32, context: u32, now: Sequence) -> Slot {
    let computed = now.kept.min(now.prompt);
    Slot {
        id,
        n_ctx: context,
        is_processing: now.running,
        n_prompt_tokens: now.kept,
        n_prompt_tokens_processed: computed.saturating_sub(now.cached),
        n_prompt_tokens_cache: now.cached,
        next_token: [Next {
            has_next_token: now.left > 0,
            n_remain: if now.running { now.left.into() } else { -1 },
            n_decoded: now.generated,
        }],
    }
}

/// What the query says under `name`; of several the last.
fn said(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let named = pairs.filter(|(key, _)| key == name);
    named.last().map(|(_, value)| value.into_owned())
}

/// What is to be done with a sequence.
enum Act {
    Save(FileName),
    Restore(FileName),
    Erase,
}

/// `POST /slots/{id}`: `id` is the sequence's number, as the list has it. It waits while a request has the sequence.
pub(super) async fn act(
    State(app): State<Arc<App>>,
    Extension(tenant): Extension<Tenant>,
    Id(id): Id,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let service = app.service()?;
    let (engine, _) = service.work.generator()?;
    let Some(slots) = engine.slots() else {
        return Err(ApiError::invalid(
            "action",
            "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the \
             configuration; computed prompts are found again by what they say (cache.ram, cache.disk)",
        ));
    };
    let last = engine.shape().sequences.saturating_sub(1);
    let sequence = id.parse().ok().filter(|id| *id <= last);
    let sequence = sequence.ok_or_else(|| {
        ApiError::invalid(
            "id",
            format!("id: expected a sequence, 0–{last}, got {id:?}"),
        )
    })?;
    let limits = app.limits();
    let bytes = body::receive(body, &limits).await?;
    let action = said(query.as_deref(), "action");
    let act = Act::read(action.as_deref(), &bytes)?;
    let patience = limits.queue_wait;
    // Of the caller's sequences those with the adapters that hold for all requests.
    let adapters = service.identity.loras.usual(&[]).unwrap_or_default();
    let owner = adapters.owner(tenant.cache);
    timeout(patience, act.run(engine, slots, sequence, owner))
        .await
        .map_err(|_| ApiError::QueueWait(patience))?
        .map(Json)
}

impl Act {
    fn read(action: Option<&str>, body: &[u8]) -> Result<Self, ApiError> {
        match action {
            Some("save") => file_name(body).map(Self::Save),
            Some("restore") => file_name(body).map(Self::Restore),
            // llama-server does not look at the body.
            Some("erase") => Ok(Self::Erase),
            other => Err(ApiError::invalid(
                "action",
                format!(
                    "action: expected \"save\", \"restore\" or \"erase\", {}",
                    other.map_or("but it is missing".to_owned(), |other| format!(
                        "got {other:?}"
                    ))
                ),
            )),
        }
    }

    async fn run(
        self,
        engine: &Engine,
        slots: &Arc<Slots>,
        id: u32,
        tenant: u64,
    ) -> Result<Value, ApiError> {
        match self {
            Self::Save(name) => {
                let outcome = slots.save(engine, id, tenant, &name).await;
                let Done {
                    tokens,
                    bytes,
                    took,
                } = outcome.map_err(refused)?;
                Ok(json!({
                    "id_slot": id,
                    "filename": name.as_str(),
                    "n_saved": tokens,
                    "n_written": bytes,
                    "timings": {"save_ms": millis(took)},
                }))
            }
            Self::Restore(name) => {
                let outcome = slots.restore(engine, id, tenant, &name).await;
                let Done {
                    tokens,
                    bytes,
                    took,
                } = outcome.map_err(refused)?;
                Ok(json!({
                    "id_slot": id,
                    "filename": name.as_str(),
                    "n_restored": tokens,
                    "n_read": bytes,
                    "timings": {"restore_ms": millis(took)},
                }))
            }
            Self::Erase => {
                let outcome = engine.forget(id, tenant).await;
                let tokens = outcome.map_err(|error| refused(error.into()))?;
                Ok(json!({"id_slot": id, "n_erased": tokens}))
            }
        }
    }
}

fn file_name(body: &[u8]) -> Result<FileName, ApiError> {
    let object = body::parse(body)?;
    let fields = Fields::new(&object);
    let name = fields.text("filename")?;
    let name = name.ok_or_else(|| fields.wrong("filename", "a string"))?;
    FileName::parse(name).map_err(|expected| {
        ApiError::invalid("filename", format!("filename: {expected}, got {name:?}"))
    })
}

fn refused(error: SlotError) -> ApiError {
    let named = |why: String| ApiError::invalid("filename", format!("filename: {why}"));
    match error {
        SlotError::NoFile | SlotError::Unusable(_) => named(error.to_string()),
        SlotError::NotDone(why @ (NotDone::TooLong { .. } | NotDone::NotTaken)) => {
            named(why.to_string())
        }
        SlotError::NotDone(why @ (NotDone::NoSequence { .. } | NotDone::NotTheirs(_))) => {
            ApiError::invalid("id", format!("id: {why}"))
        }
        SlotError::NotDone(NotDone::Stopped) => ApiError::Draining,
        SlotError::NotDone(NotDone::NotGiven) | SlotError::NotWritten(_) | SlotError::Lost => {
            ApiError::Internal(error.to_string())
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

//! `GET /slots`: what each sequence is doing, without a word of what was said in it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};

use crate::{
    api::{App, error::ApiError},
    engine::Sequence,
};

#[derive(Deserialize)]
pub(super) struct Wish {
    /// Whatever it says, a server without a free sequence answers 503.
    fail_on_no_slot: Option<String>,
}

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
    n_remain: u32,
    n_decoded: u32,
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    Query(wish): Query<Wish>,
) -> Result<Json<Vec<Slot>>, ApiError> {
    let service = app.service()?;
    let (engine, _) = service.work.generator()?;
    let sequences = engine.sequences();
    let all_run = sequences.iter().all(|sequence| sequence.running);
    if all_run && wish.fail_on_no_slot.is_some_and(|wish| !wish.is_empty()) {
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
            n_remain: now.left,
            n_decoded: now.generated,
        }],
    }
}

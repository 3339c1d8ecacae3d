//! Routes of llama-server that would change the server: told what to do instead.

use axum::extract::Query;
use serde::Deserialize;

use crate::api::error::ApiError;

pub(super) async fn props() -> ApiError {
    ApiError::Unacceptable(
        "the properties of this server are set in its configuration file and do not change while it runs".into(),
    )
}

#[derive(Deserialize)]
pub(super) struct Action {
    action: Option<String>,
}

/// `POST /slots/{id}`.
pub(super) async fn slots(Query(Action { action }): Query<Action>) -> ApiError {
    let why = match action.as_deref() {
        Some("save" | "restore") => {
            "sequences are not saved to files: prompts that were computed are kept in host memory (cache.ram) and found \
             again by what they say"
        }
        Some("erase") => {
            "what a sequence holds is never shown to others and makes room by itself; `cache_prompt: false` keeps a \
             request from using or leaving any of it"
        }
        _ => "expected \"save\", \"restore\" or \"erase\", none of which this server offers",
    };
    ApiError::invalid("action", format!("action: {why}"))
}

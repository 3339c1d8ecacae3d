//! Requests that say nothing to the model and only want it loaded, which it is, or unloaded, which it never is.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{keep_alive::KeepAlive, names};
use crate::api::{Service, body, error::ApiError, fields::Fields, moment, openai::wire::warn};

/// Longer requests say something.
const LONGEST_BYTES: usize = 4 << 10;

/// The answer to such a request; `None`: it is another. `said`: the field that would say something, and how the answer
/// says nothing.
pub(super) fn answer(
    bytes: &[u8],
    service: &Service,
    said: (&str, Value),
) -> Result<Option<Response>, ApiError> {
    if bytes.len() > LONGEST_BYTES {
        return Ok(None);
    }
    let object = body::parse(bytes)?;
    let fields = Fields::new(&object);
    let (field, nothing) = said;
    let silent = match fields.get(field) {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if !silent
        || fields
            .text("suffix")
            .is_ok_and(|suffix| suffix.is_some_and(|text| !text.is_empty()))
    {
        return Ok(None);
    }
    let model = names::wanted(fields, service)?;
    service.work.generator()?;
    let (reason, warning) = match KeepAlive::read(fields)? {
        KeepAlive::Stay => ("load", None),
        // Clients wait for the word.
        KeepAlive::Unload => (
            "unload",
            Some("keep_alive: the model stays loaded".to_owned()),
        ),
    };
    let mut answer = json!({"model": model, "created_at": moment::now()});
    if let (Value::Object(answer), Value::Object(nothing)) = (&mut answer, nothing) {
        answer.extend(nothing);
    }
    answer["done"] = true.into();
    answer["done_reason"] = reason.into();
    let mut response = Json(answer).into_response();
    warn(&mut response, warning.into_iter().collect());
    Ok(Some(response))
}

//! Sounds: in messages, and as files to be written down.

mod answer;
mod decode;
mod form;
mod transcriptions;

use std::sync::Arc;

use axum::{Router, routing::post};
use serde_json::Value;

pub(super) use self::decode::{Undecoded, samples};
use super::{App, base64, error::ApiError, images::refused};
use crate::config::Limits;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/audio/transcriptions", post(transcriptions::create))
        .route("/audio/transcriptions", post(transcriptions::create))
}

/// What a part may say that its file is. The file itself decides.
const FORMATS: [&str; 9] = [
    "wav", "mp3", "mpeg", "mpga", "flac", "ogg", "m4a", "mp4", "aac",
];

/// The file of an `input_audio` part: base64, bare as in OpenAI's API or in a data URL as some clients send it.
pub(super) fn file(path: &str, part: &Value, limits: &Limits) -> Result<Vec<u8>, ApiError> {
    let field = &part["input_audio"];
    let wrong = |name: &str, why: &str| refused(format!("{path}.input_audio{name}"), why);
    if !field.is_object() {
        return Err(wrong("", "expected an object with data and format"));
    }
    let format = &field["format"];
    if !format.is_null() && !FORMATS.iter().any(|known| format == known) {
        return Err(wrong(".format", &format!("expected one of {FORMATS:?}")));
    }
    let Some(data) = field["data"].as_str() else {
        return Err(wrong(".data", "expected a file in base64"));
    };
    let data = match data.split_once(',') {
        Some((head, data)) if head.starts_with("data:") => data,
        _ => data,
    };
    base64::decode(data, limits.audio_bytes).map_err(|error| wrong(".data", &error.of("sound")))
}

#[cfg(test)]
mod tests;

//! The OpenAI dialect: a file per endpoint, and what the two completion endpoints share.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod constraint;
pub(super) mod embeddings;
pub(super) mod models;
pub(super) mod params;
pub(super) mod responses;
mod sampling;
pub(super) mod wire;

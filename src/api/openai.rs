//! The OpenAI dialect: a file per endpoint, and what the two completion endpoints share.

pub(super) mod chat;
pub(super) mod completions;
mod constraint;
pub(super) mod embeddings;
pub(super) mod models;
mod params;
mod sampling;
mod wire;

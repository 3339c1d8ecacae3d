//! The OpenAI dialect: a file per endpoint, and what the two completion endpoints share.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod models;
mod constraint;
mod params;
mod sampling;
mod wire;

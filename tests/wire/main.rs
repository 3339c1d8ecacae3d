//! The wire, as clients see it: status, headers and body of every route and of every way it fails,
//! with the real router, scheduler and chat templates over a model that repeats the last line of its prompt.

mod agent;
mod anthropic;
mod audio;
mod chat;
mod completions;
mod embeddings;
mod errors;
mod health;
mod images;
mod life;
mod metrics;
mod models;
mod native;
mod ollama;
mod openapi;
mod property;
mod props;
mod remote_images;
mod rerank;
mod responses;
mod slots;
mod status;
mod support;

//! llm-server: one pinned language model, one declarative file, an OpenAI-compatible HTTP API.
//!
//! The path of a request is a straight line down and back:
//! `api` parses it into a [`engine::Job`], `chat` has turned its messages into a prompt,
//! `engine` queues it, `engine::worker` plans, decodes, samples and commits on one thread,
//! and [`engine::Event`]s come back to `api::reply`, which writes JSON or server-sent events.

pub mod api;
pub mod chat;
pub mod cli;
pub mod config;
pub mod engine;
pub mod fetch;
pub mod gpu;
pub mod lock;
pub mod log;
mod metrics;
pub mod replay;
pub mod report;
pub mod serve;
pub mod systemd;

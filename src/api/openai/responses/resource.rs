//! The response object: what was asked, and what has become of it.

use serde::Serialize;
use serde_json::Value;

use super::output::Item;
use crate::engine::{Sampling, Usage};

/// What stays the same from the first event to the last.
#[derive(Serialize)]
pub(super) struct Resource {
    pub(super) id: String,
    pub(super) object: &'static str,
    /// Seconds since the epoch.
    pub(super) created_at: u64,
    pub(super) background: bool,
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) max_tool_calls: Option<u32>,
    pub(super) model: String,
    pub(super) parallel_tool_calls: bool,
    pub(super) previous_response_id: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) reasoning: Value,
    pub(super) safety_identifier: Option<String>,
    pub(super) service_tier: &'static str,
    pub(super) store: bool,
    pub(super) text: Value,
    pub(super) tool_choice: Value,
    pub(super) tools: Vec<Value>,
    pub(super) top_logprobs: u8,
    pub(super) truncation: &'static str,
    pub(super) user: Option<String>,
    pub(super) metadata: Value,
    pub(super) system_fingerprint: String,
    #[serde(flatten)]
    pub(super) sampling: Sampled,
}

/// The sampling in effect, as far as OpenAI tells it.
#[derive(Default, Serialize)]
pub(super) struct Sampled {
    temperature: f32,
    top_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
}

impl From<&Sampling> for Sampled {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
        }
    }
}

/// What a response has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    /// Its tokens were used up.
    Incomplete,
    Failed,
}

/// A response at some moment.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
    #[serde(flatten)]
    pub(super) resource: &'a Resource,
    pub(super) status: Status,
    pub(super) completed_at: Option<u64>,
    pub(super) error: Option<Error>,
    pub(super) incomplete_details: Option<IncompleteDetails>,
    pub(super) output: &'a [Item],
    pub(super) usage: Option<UsageBody>,
}

#[derive(Serialize)]
pub(super) struct Error {
    pub(super) code: &'static str,
    pub(super) message: String,
}

#[derive(Serialize)]
pub(super) struct IncompleteDetails {
    pub(super) reason: &'static str,
}

/// Token counts as this endpoint reports them.
#[derive(Serialize)]
pub(super) struct UsageBody {
    input_tokens: u32,
    input_tokens_details: InputDetails,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
    total_tokens: u32,
}

#[derive(Serialize)]
struct InputDetails {
    cached_tokens: u32,
    /// What OpenAI bills for keeping a prompt. Keeping costs nothing here, and nothing is counted.
    cache_write_tokens: u32,
}

#[derive(Serialize)]
struct OutputDetails {
    reasoning_tokens: u32,
}

impl UsageBody {
    pub(super) fn new(usage: Usage, reasoning_tokens: u32) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

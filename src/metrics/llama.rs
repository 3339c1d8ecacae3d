//! The same under llama-server's names, so that dashboards made for it go on.

use std::time::Duration;

use super::{
    Served,
    families::{Families, Sample},
};
use crate::engine::Done;

/// What had been done when somebody last asked.
#[derive(Default)]
pub(super) struct Window(Done);

pub(super) fn add(families: &mut Families, served: &Served, window: &mut Window) {
    let done = served.watch.done();
    let last = std::mem::replace(&mut window.0, done);
    let mut counter = |name: &str, help: &str, value: f64| {
        families.counter(name, help, [Sample::of(value)]);
    };
    counter(
        "llamacpp:prompt_tokens_total",
        "As llm_server_prefill_tokens_total.",
        done.prefill_tokens as f64,
    );
    counter(
        "llamacpp:prompt_tokens_cached_total",
        "As llm_server_cached_prompt_tokens_total.",
        done.cached_tokens as f64,
    );
    counter(
        "llamacpp:prompt_seconds_total",
        "As llm_server_prefill_seconds_total.",
        done.prefill.as_secs_f64(),
    );
    counter(
        "llamacpp:tokens_predicted_total",
        "As llm_server_generated_tokens_total.",
        done.generated_tokens as f64,
    );
    counter(
        "llamacpp:tokens_predicted_seconds_total",
        "As llm_server_decode_seconds_total.",
        done.decode.as_secs_f64(),
    );
    counter(
        "llamacpp:n_decode_total",
        "As llm_server_steps_total.",
        done.steps as f64,
    );
    counter(
        "llamacpp:spec_decode_num_draft_tokens_total",
        "Guessed tokens, accepted or rejected.",
        (done.accepted_tokens + done.rejected_tokens) as f64,
    );
    counter(
        "llamacpp:spec_decode_num_accepted_tokens_total",
        "As llm_server_speculation_accepted_tokens_total.",
        done.accepted_tokens as f64,
    );

    let busy = served.watch.busy();
    let mut gauge = |name: &str, help: &str, value: f64| {
        families.gauge(name, help, [Sample::of(value)]);
    };
    gauge(
        "llamacpp:prompt_tokens_seconds",
        "Prompt tokens computed a second, since somebody last asked.",
        per_second(
            done.prefill_tokens - last.prefill_tokens,
            done.prefill.saturating_sub(last.prefill),
        ),
    );
    gauge(
        "llamacpp:predicted_tokens_seconds",
        "Tokens generated a second, since somebody last asked.",
        per_second(
            done.generated_tokens - last.generated_tokens,
            done.decode.saturating_sub(last.decode),
        ),
    );
    gauge(
        "llamacpp:requests_processing",
        "As llm_server_requests_running.",
        busy.running.into(),
    );
    gauge(
        "llamacpp:requests_deferred",
        "As llm_server_requests_queued.",
        busy.queued.into(),
    );
    if let Some(capacity) = served.capacity_tokens.filter(|&capacity| capacity > 0) {
        gauge(
            "llamacpp:kv_cache_usage_ratio",
            "llm_server_kv_tokens over llm_server_kv_capacity_tokens.",
            f64::from(served.watch.kept().tokens) / capacity as f64,
        );
    }
}

/// 0 when nothing was computed.
fn per_second(tokens: u64, took: Duration) -> f64 {
    if took.is_zero() {
        return 0.0;
    }
    tokens as f64 / took.as_secs_f64()
}

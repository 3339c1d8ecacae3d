//! What the engine thread has done, does and keeps.

use super::{
    Served,
    families::{Families, Sample},
};
use crate::engine::{Done, Watch};

pub(super) fn add(families: &mut Families, served: &Served) {
    add_done(families, &served.watch.done());
    add_load(families, &served.watch);
    if let Some(capacity_tokens) = served.capacity_tokens {
        add_kept(families, &served.watch, capacity_tokens);
    }
}

fn add_done(families: &mut Families, done: &Done) {
    let mut counter = |name: &str, help: &str, value: f64| {
        families.counter(name, help, [Sample::of(value)]);
    };
    counter(
        "llm_server_prompt_tokens_total",
        "Tokens of prompts of requests that began to run, computed or found in the cache.",
        done.prompt_tokens as f64,
    );
    counter(
        "llm_server_cached_prompt_tokens_total",
        "Tokens of such prompts that were found in the cache.",
        done.cached_tokens as f64,
    );
    counter(
        "llm_server_prefill_tokens_total",
        "Tokens of prompts that were computed, counted after every step.",
        done.prefill_tokens as f64,
    );
    counter(
        "llm_server_generated_tokens_total",
        "Tokens that were generated, counted after every step.",
        done.generated_tokens as f64,
    );
    counter(
        "llm_server_speculation_accepted_tokens_total",
        "Guessed tokens that came true.",
        done.accepted_tokens as f64,
    );
    counter(
        "llm_server_speculation_rejected_tokens_total",
        "Guessed tokens that were computed in vain.",
        done.rejected_tokens as f64,
    );
    counter(
        "llm_server_steps_total",
        "Batches that were computed.",
        done.steps as f64,
    );
    counter(
        "llm_server_prefill_seconds_total",
        "Time of steps that computed prompts, whatever else they computed.",
        done.prefill.as_secs_f64(),
    );
    counter(
        "llm_server_decode_seconds_total",
        "Time of steps that generated, whatever else they computed.",
        done.decode.as_secs_f64(),
    );
}

fn add_load(families: &mut Families, watch: &Watch) {
    let (busy, shape) = (watch.busy(), watch.shape());
    let mut gauge = |name: &str, help: &str, value: f64| {
        families.gauge(name, help, [Sample::of(value)]);
    };
    gauge(
        "llm_server_requests_running",
        "Answers that are being computed; a request may want several.",
        busy.running.into(),
    );
    gauge(
        "llm_server_requests_queued",
        "Answers that wait for a sequence.",
        busy.queued.into(),
    );
    gauge(
        "llm_server_queue_capacity",
        "Answers that may wait; one more is refused.",
        shape.queue.into(),
    );
    gauge(
        "llm_server_sequences",
        "Answers (or texts to be read) that can be computed together.",
        shape.sequences.into(),
    );
    gauge(
        "llm_server_seconds_since_last_step",
        "How long the engine has been inside its present step without a sign of progress; 0 while it is idle.",
        watch.pulse().step_age().as_secs_f64(),
    );
}

fn add_kept(families: &mut Families, watch: &Watch, capacity_tokens: u64) {
    let (kept, shape) = (watch.kept(), watch.shape());
    let mut gauge = |name: &str, help: &str, value: f64| {
        families.gauge(name, help, [Sample::of(value)]);
    };
    gauge(
        "llm_server_kv_tokens",
        "Tokens in the KV cache, of running requests and of earlier ones that may be taken up again.",
        kept.tokens.into(),
    );
    gauge(
        "llm_server_kv_capacity_tokens",
        "Tokens that all sequences together can hold.",
        capacity_tokens as f64,
    );
    gauge(
        "llm_server_prefix_cache_bytes",
        "States of sequences in host memory.",
        kept.bytes as f64,
    );
    gauge(
        "llm_server_prefix_cache_capacity_bytes",
        "Host memory that such states may take.",
        shape.cache_bytes as f64,
    );
    gauge(
        "llm_server_prefix_cache_entries",
        "Sequences that were put aside in host memory.",
        kept.aside.into(),
    );
}

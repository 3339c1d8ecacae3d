//! `generation_settings`: what a completion was made with, in llama-server's names.

use serde_json::{Value, json};

use super::options::Options;
use crate::{
    api::openai::params::Delivery,
    engine::{Grammar, Job},
};

pub(super) fn told(
    job: &Job,
    options: &Options,
    samplers: &[&'static str],
    delivery: Delivery,
) -> Value {
    let s = &job.sampling;
    let grammar = match &job.grammar {
        Some(Grammar::Gbnf(grammar)) => grammar.gbnf.as_str(),
        Some(Grammar::Guide(_)) | None => "",
    };
    // What forbids is told as llama-server takes it; JSON has no infinity.
    let bias = |&(token, bias): &(i32, f32)| json!({"token": token, "bias": bias.max(f32::MIN)});
    let worn = job.adapters.scaled().iter();
    let worn = worn.map(|one| json!({"id": one.adapter, "scale": one.scale}));
    let lora: Vec<_> = worn.collect();
    json!({
        "seed": s.seed,
        "temperature": s.temperature,
        "dynatemp_range": s.dynatemp_range,
        "dynatemp_exponent": s.dynatemp_exponent,
        "top_k": s.top_k,
        "top_p": s.top_p,
        "min_p": s.min_p,
        "top_n_sigma": s.top_n_sigma,
        "xtc_probability": s.xtc_probability,
        "xtc_threshold": s.xtc_threshold,
        "typical_p": s.typical_p,
        "repeat_last_n": s.repeat_last_n,
        "repeat_penalty": s.repeat_penalty,
        "presence_penalty": s.presence_penalty,
        "frequency_penalty": s.frequency_penalty,
        "dry_multiplier": s.dry_multiplier,
        "dry_base": s.dry_base,
        "dry_allowed_length": s.dry_allowed_length,
        "dry_penalty_last_n": s.dry_penalty_last_n,
        "dry_sequence_breakers": s.dry_sequence_breakers,
        "mirostat": s.mirostat,
        "mirostat_tau": s.mirostat_tau,
        "mirostat_eta": s.mirostat_eta,
        "stop": job.stop,
        "max_tokens": job.max_tokens,
        "n_predict": job.max_tokens,
        "n_keep": job.shift.map_or(0, |shift| shift.keep.map_or(-1, i64::from)),
        "n_discard": job.shift.map_or(0, |shift| shift.discard),
        "n_indent": options.indent,
        "ignore_eos": job.ignore_eos,
        "stream": delivery != Delivery::Whole,
        "logit_bias": s.logit_bias.iter().map(bias).collect::<Vec<_>>(),
        "n_probs": options.n_probs,
        "min_keep": 0,
        "grammar": grammar,
        "samplers": samplers,
        "timings_per_token": options.timings_per_token,
        "post_sampling_probs": false,
        "lora": lora,
    })
}

//! A request's wishes made into llama.cpp's samplers, in the order of `llama-server`, and its grammar.

use std::{ffi::CString, ptr, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    Weights,
    guard::{self, Dry, Fault, Start},
    sampler::Owned,
};
use crate::engine::{Gbnf, Sampling, Trigger, model::Vocab};

/// In the order of llama.cpp's `common_sampler`, without the samplers that would change nothing.
pub(super) fn chain(weights: &Arc<Weights>, s: &Sampling, context: u32) -> Result<Owned, String> {
    let mut stages = Vec::new();
    let size = i32::try_from(weights.size()).unwrap_or(i32::MAX);
    // More than the context is never there to be looked at, and llama.cpp allocates what it is told.
    let whole = i32::try_from(context).unwrap_or(i32::MAX);
    let look_back = |tokens: i32| if tokens < 0 { whole } else { tokens.min(whole) };

    let suppressed = weights
        .suppressed()
        .into_iter()
        .map(|token| (token, f32::NEG_INFINITY));
    let biases: Vec<_> = s.logit_bias.iter().copied().chain(suppressed).collect();
    let biases: Vec<_> = biases
        .into_iter()
        .map(|(token, bias)| sys::llama_logit_bias { token, bias })
        .collect();
    // SAFETY: constructors of plain samplers; arrays and their lengths belong together and are copied.
    unsafe {
        if !biases.is_empty() {
            let count = i32::try_from(biases.len()).unwrap_or(i32::MAX);
            stages.push(Owned(sys::llama_sampler_init_logit_bias(
                size,
                count,
                biases.as_ptr(),
            )));
        }
        if s.mirostat > 0 {
            stages.push(Owned(sys::llama_sampler_init_temp(s.temperature)));
            stages.push(Owned(match s.mirostat {
                1 => sys::llama_sampler_init_mirostat(
                    size,
                    s.seed,
                    s.mirostat_tau,
                    s.mirostat_eta,
                    100,
                ),
                _ => sys::llama_sampler_init_mirostat_v2(s.seed, s.mirostat_tau, s.mirostat_eta),
            }));
            return Ok(link(stages));
        }
        if s.penalises() {
            stages.push(Owned(sys::llama_sampler_init_penalties(
                size,
                look_back(s.repeat_last_n),
                s.repeat_penalty,
                s.frequency_penalty,
                s.presence_penalty,
            )));
        }
    }
    if s.dries() {
        let dry = Dry {
            multiplier: s.dry_multiplier,
            base: s.dry_base,
            allowed_length: s.dry_allowed_length,
            last_n: look_back(s.dry_penalty_last_n),
            breakers: s
                .dry_sequence_breakers
                .iter()
                .map(|text| c_text("dry_sequence_breakers", text))
                .collect::<Result<_, _>>()?,
        };
        // SAFETY: the vocabulary lives as long as the sampler, which holds the weights.
        let stage = unsafe { guard::dry(weights.vocab_ptr(), &dry) };
        stages.push(Owned(stage.map_err(|_| {
            "dry_sequence_breakers: the engine refused them".to_owned()
        })?));
    }
    if s.is_greedy() {
        return Ok(link(stages)); // truncation keeps the most likely token anyway
    }
    // SAFETY: as above.
    unsafe {
        if s.top_n_sigma > 0.0 {
            stages.push(Owned(sys::llama_sampler_init_top_n_sigma(s.top_n_sigma)));
        }
        if s.top_k > 0 {
            stages.push(Owned(sys::llama_sampler_init_top_k(s.top_k)));
        }
        if s.typical_p < 1.0 {
            stages.push(Owned(sys::llama_sampler_init_typical(s.typical_p, 1)));
        }
        if s.top_p < 1.0 {
            stages.push(Owned(sys::llama_sampler_init_top_p(s.top_p, 1)));
        }
        if s.min_p > 0.0 {
            stages.push(Owned(sys::llama_sampler_init_min_p(s.min_p, 1)));
        }
        if s.xtc_probability > 0.0 {
            stages.push(Owned(sys::llama_sampler_init_xtc(
                s.xtc_probability,
                s.xtc_threshold,
                1,
                s.seed,
            )));
        }
        stages.push(Owned(sys::llama_sampler_init_temp_ext(
            s.temperature,
            s.dynatemp_range,
            s.dynatemp_exponent,
        )));
        let infill = || Owned(sys::llama_sampler_init_infill(weights.vocab_ptr()));
        stages.extend(s.infill.then(infill));
        stages.push(Owned(sys::llama_sampler_init_dist(s.seed)));
    }
    Ok(link(stages))
}

fn link(stages: Vec<Owned>) -> Owned {
    if stages.is_empty() {
        return Owned(ptr::null_mut());
    }
    // SAFETY: the chain takes over its stages, which are therefore forgotten here.
    unsafe {
        let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
        for stage in stages {
            sys::llama_sampler_chain_add(chain, stage.0);
            std::mem::forget(stage);
        }
        Owned(chain)
    }
}

pub(super) fn compile(weights: &Arc<Weights>, grammar: &Gbnf) -> Result<Owned, String> {
    let gbnf = c_text("grammar", &grammar.gbnf)?;
    let mut patterns = Vec::new();
    let mut tokens = Vec::new();
    for trigger in &grammar.triggers {
        match trigger {
            Trigger::Token(token) => tokens.push(*token),
            Trigger::Word(word) => patterns.push(c_text("grammar trigger", &escape(word))?),
            Trigger::Pattern(pattern) => patterns.push(c_text("grammar trigger", pattern)?),
            Trigger::PatternFull(pattern) => {
                patterns.push(c_text("grammar trigger", &anchor(pattern))?);
            }
        }
    }
    let start = if grammar.triggers.is_empty() {
        Start::Now
    } else {
        Start::At { patterns, tokens }
    };
    // SAFETY: the vocabulary lives as long as the sampler, which holds the weights.
    let sampler = unsafe { guard::grammar(weights.vocab_ptr(), &gbnf, &start) };
    let sampler = Owned(sampler.map_err(|fault| match fault {
        Fault::Caught(why) => format!("the grammar cannot be used: {why}"),
        Fault::Code(_) => {
            "the grammar cannot be parsed; it must be GBNF with a rule named root".into()
        }
    })?);
    // What the template already wrote at the end of the prompt counts as generated.
    if let Start::Now = start {
        for token in weights.tokenize(&grammar.generation_prompt, false, true) {
            // SAFETY: the sampler is valid.
            unsafe { guard::accept(sampler.0, token) }.map_err(|_| {
                "the grammar does not allow the beginning of the answer that the prompt fixes"
                    .to_owned()
            })?;
        }
    }
    Ok(sampler)
}

fn c_text(name: &str, text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{name}: must not contain a NUL character"))
}

/// A word as a regular expression that matches just it.
fn escape(word: &str) -> String {
    let special = |c: char| ".^$|()*+?[]{}\\".contains(c);
    word.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

/// A regular expression that must match the whole.
fn anchor(pattern: &str) -> String {
    let start = if pattern.starts_with('^') { "" } else { "^" };
    let end = if pattern.ends_with('$') { "" } else { "$" };
    format!("{start}{pattern}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_becomes_a_pattern_that_matches_only_itself() {
        assert_eq!(escape("<a.b>(x)"), "<a\\.b>\\(x\\)");
        assert_eq!(anchor("abc$"), "^abc$");
    }
}

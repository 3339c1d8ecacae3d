//! A request's samplers: llama.cpp's chain, in the order of `llama-server`, and a grammar beside it.

use std::{ffi::CString, ptr, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    Weights,
    guard::{self, Dry, Fault, Start},
};
use crate::engine::{
    Grammar, Sampling, Token, Trigger,
    model::{SampleError, Vocab},
};

/// Sampler state of one request.
pub struct Sampler {
    /// Null when nothing changes the logits before a greedy choice.
    chain: Owned,
    grammar: Option<Owned>,
    greedy: bool,
    /// The samplers point into its vocabulary.
    _weights: Arc<Weights>,
}

/// A raw sampler that is freed with its owner.
struct Owned(*mut sys::llama_sampler);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: owned; null is allowed.
        unsafe { sys::llama_sampler_free(self.0) };
    }
}

type Candidates = Vec<sys::llama_token_data>;

impl Sampler {
    /// `Err`: what the request asked for cannot be done, in words for the client.
    pub(super) fn new(
        weights: &Arc<Weights>,
        sampling: &Sampling,
        grammar: Option<&Grammar>,
        context: u32,
    ) -> Result<Self, String> {
        let size = i32::try_from(weights.size()).unwrap_or(i32::MAX);
        for (token, _) in &sampling.logit_bias {
            if !(0..size).contains(token) {
                return Err(format!(
                    "logit_bias: token {token} is not in the vocabulary (0 to {})",
                    size - 1
                ));
            }
        }
        Ok(Self {
            chain: chain(weights, sampling, context)?,
            grammar: grammar
                .map(|grammar| compile(weights, grammar))
                .transpose()?,
            greedy: sampling.is_greedy(),
            _weights: Arc::clone(weights),
        })
    }

    /// Shows the chain a token of the prompt; a grammar speaks of the answer alone.
    pub(super) fn observe(&mut self, token: Token) {
        if !self.chain.0.is_null() {
            // SAFETY: the chain is valid; its samplers only count tokens.
            unsafe { sys::llama_sampler_accept(self.chain.0, token) };
        }
    }

    /// Chooses and accepts a token.
    pub(super) fn choose(
        &mut self,
        logits: &[f32],
        candidates: &mut Candidates,
    ) -> Result<Token, SampleError> {
        let mut token = self.pick(logits, candidates, Constraint::None)?;
        // Most free choices satisfy the grammar; only a refused one pays for a mask of the vocabulary.
        if let Some(grammar) = &self.grammar
            && !allows(grammar, token)?
        {
            token = self.pick(logits, candidates, Constraint::Grammar)?;
        }
        if !logits
            .get(usize::try_from(token).unwrap_or(usize::MAX))
            .is_some_and(|logit| logit.is_finite())
        {
            return Err(SampleError::NotFinite);
        }
        if let Some(grammar) = &self.grammar {
            // SAFETY: the grammar is valid.
            unsafe { guard::accept(grammar.0, token) }.map_err(grammar_failed)?;
        }
        self.observe(token);
        Ok(token)
    }

    fn pick(
        &self,
        logits: &[f32],
        candidates: &mut Candidates,
        constraint: Constraint,
    ) -> Result<Token, SampleError> {
        let masked = match (constraint, &self.grammar) {
            (Constraint::Grammar, Some(grammar)) => Some(grammar),
            _ => None,
        };
        if self.greedy && self.chain.0.is_null() && masked.is_none() {
            return Ok(argmax(logits));
        }
        candidates.clear();
        candidates.extend((0..).zip(logits).map(|(id, &logit)| sys::llama_token_data {
            id,
            logit,
            p: 0.0,
        }));
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        if let Some(grammar) = masked {
            // SAFETY: the grammar and the array are valid.
            unsafe { guard::apply(grammar.0, &mut array) }.map_err(grammar_failed)?;
            // SAFETY: `size` never grows, and `data` stays inside `candidates`.
            let left = unsafe { std::slice::from_raw_parts(array.data, array.size) };
            if left
                .iter()
                .all(|candidate| candidate.logit == f32::NEG_INFINITY)
            {
                return Err(SampleError::Grammar(
                    "the grammar allows no further token".into(),
                ));
            }
        }
        if !self.chain.0.is_null() {
            // SAFETY: the chain and the array are valid.
            unsafe { guard::apply(self.chain.0, &mut array) }
                .map_err(|_| SampleError::NotFinite)?;
        }
        // SAFETY: as above.
        let left = unsafe { std::slice::from_raw_parts(array.data, array.size) };
        let best = if self.greedy {
            left.iter().max_by(|a, b| a.logit.total_cmp(&b.logit))
        } else {
            usize::try_from(array.selected)
                .ok()
                .and_then(|at| left.get(at))
        };
        best.map(|candidate| candidate.id)
            .ok_or(SampleError::NotFinite)
    }
}

/// Whether a choice is made freely or among what the grammar allows.
#[derive(Clone, Copy)]
enum Constraint {
    None,
    Grammar,
}

fn grammar_failed(fault: Fault) -> SampleError {
    SampleError::Grammar(match fault {
        Fault::Caught(why) => format!("the grammar failed: {why}"),
        Fault::Code(code) => format!("the grammar failed ({code})"),
    })
}

fn allows(grammar: &Owned, token: Token) -> Result<bool, SampleError> {
    let mut one = sys::llama_token_data {
        id: token,
        logit: 1.0,
        p: 0.0,
    };
    let mut array = sys::llama_token_data_array {
        data: &raw mut one,
        size: 1,
        selected: -1,
        sorted: false,
    };
    // SAFETY: the grammar and the array of one are valid.
    unsafe { guard::apply(grammar.0, &mut array) }.map_err(grammar_failed)?;
    Ok(one.logit != f32::NEG_INFINITY)
}

/// In the order of llama.cpp's `common_sampler`, without the samplers that would change nothing.
fn chain(weights: &Arc<Weights>, sampling: &Sampling, context: u32) -> Result<Owned, String> {
    let mut stages = Vec::new();
    let size = i32::try_from(weights.size()).unwrap_or(i32::MAX);
    // More than the context is never there to be looked at, and llama.cpp allocates what it is told.
    let whole = i32::try_from(context).unwrap_or(i32::MAX);
    let look_back = |tokens: i32| if tokens < 0 { whole } else { tokens.min(whole) };
    let s = sampling;

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

fn compile(weights: &Arc<Weights>, grammar: &Grammar) -> Result<Owned, String> {
    let gbnf = c_text("grammar", &grammar.gbnf)?;
    let mut patterns = Vec::new();
    let mut tokens = Vec::new();
    for trigger in &grammar.triggers {
        match trigger {
            Trigger::Token(token) => tokens.push(*token),
            Trigger::Word(word) => patterns.push(c_text("grammar trigger", &escape(word))?),
            Trigger::Pattern(pattern) => patterns.push(c_text("grammar trigger", pattern)?),
            Trigger::PatternFull(pattern) => {
                patterns.push(c_text("grammar trigger", &anchor(pattern))?)
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

/// The most likely token; the first of equals. NaN is never chosen unless there is nothing else.
fn argmax(logits: &[f32]) -> Token {
    // Two passes that vectorise are faster than one that branches.
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let at = logits.iter().position(|&logit| logit == best).unwrap_or(0);
    Token::try_from(at).unwrap_or(0)
}

/// Log-probabilities of `token` and of the `top` most likely tokens, best first, before any sampler.
pub(super) fn scores(logits: &[f32], token: Token, top: u8) -> (f32, Vec<(Token, f32)>) {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - best).exp()))
        .sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a logarithm of a vocabulary's size fits"
    )]
    let norm = best + sum.ln() as f32;
    let mut ranking: Vec<(Token, f32)> = Vec::with_capacity(usize::from(top) + 1);
    for (id, &logit) in (0..).zip(logits) {
        let full = ranking.len() == usize::from(top);
        if full && ranking.last().is_none_or(|last| logit <= last.1) {
            continue;
        }
        let at = ranking.partition_point(|other| other.1 >= logit);
        ranking.insert(at, (id, logit));
        ranking.truncate(usize::from(top));
    }
    for entry in &mut ranking {
        entry.1 -= norm;
    }
    let own = usize::try_from(token)
        .ok()
        .and_then(|at| logits.get(at))
        .map_or(f32::NEG_INFINITY, |l| l - norm);
    (own, ranking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_most_likely_is_chosen_and_nan_is_not() {
        assert_eq!(argmax(&[0.0, f32::NAN, 3.0, 3.0]), 2);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn scores_are_log_probabilities_in_falling_order() {
        let (own, top) = scores(&[0.0, 2.0, 1.0], 0, 2);
        let sum = 1.0_f32 + 2.0_f32.exp() + 1.0_f32.exp();
        assert!((own - -sum.ln()).abs() < 1e-6);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2]);
        assert!((top[0].1 - (2.0 - sum.ln())).abs() < 1e-6);
    }

    #[test]
    fn a_word_becomes_a_pattern_that_matches_only_itself() {
        assert_eq!(escape("<a.b>(x)"), "<a\\.b>\\(x\\)");
        assert_eq!(anchor("abc$"), "^abc$");
    }
}

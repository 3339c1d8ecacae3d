//! A request's sampler state: how the next token is chosen.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::{
    Weights,
    chain::{chain, compile},
    guard::{self, Fault},
    scores::{argmax, best},
};
use crate::engine::{
    Grammar, Sampling, Token,
    model::{SampleError, Vocab},
};

/// Sampler state of one request.
pub struct Sampler {
    /// Null when nothing changes the logits before a greedy choice.
    chain: Owned,
    grammar: Option<Owned>,
    greedy: bool,
    /// The chain looks at so many of the most likely tokens only.
    shortlist: Option<usize>,
    /// The samplers point into its vocabulary.
    _weights: Arc<Weights>,
}

// SAFETY: the samplers belong to this alone, and llama.cpp's have no ties to the thread that made them; the vocabulary
// they point into is only read.
unsafe impl Send for Sampler {}

/// A raw sampler that is freed with its owner.
pub(super) struct Owned(pub(super) *mut sys::llama_sampler);

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
            shortlist: shortlist(weights, sampling),
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
        let shortlist = self.shortlist.filter(|_| masked.is_none());
        if let Some(count) = shortlist {
            // Choosing among a quarter of a million would cost a hundred times as much.
            best(logits, count, candidates);
        } else {
            candidates.clear();
            candidates.extend((0..).zip(logits).map(|(id, &logit)| sys::llama_token_data {
                id,
                logit,
                p: 0.0,
            }));
        }
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: shortlist.is_some(),
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
        let chosen = if self.greedy {
            left.iter().max_by(|a, b| a.logit.total_cmp(&b.logit))
        } else {
            usize::try_from(array.selected)
                .ok()
                .and_then(|at| left.get(at))
        };
        chosen
            .map(|candidate| candidate.id)
            .ok_or(SampleError::NotFinite)
    }
}

/// How many of the most likely tokens the chain keeps in its first stage; `None`: something comes before that.
fn shortlist(weights: &Weights, sampling: &Sampling) -> Option<usize> {
    let s = sampling;
    let first = s.mirostat == 0
        && !s.is_greedy()
        && !s.penalises()
        && !s.dries()
        && s.top_n_sigma <= 0.0
        && s.logit_bias.is_empty()
        && weights.suppressed().is_empty();
    // A long list is cheaper sorted as a whole.
    let count = usize::try_from(s.top_k).ok()?;
    (first && (1..=512).contains(&count)).then_some(count)
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

//! A request's sampler state: how the next token is chosen.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::{
    Weights,
    chain::chain,
    guard,
    rule::Rule,
    scores::{argmax, best},
};
use crate::engine::{
    Grammar, Hold, Sampling, Token,
    budget::Spending,
    model::{SampleError, Vocab},
};

/// Sampler state of one request.
pub struct Sampler {
    /// Null when nothing changes the logits before a greedy choice.
    chain: Owned,
    rule: Option<Rule>,
    spending: Option<Spending>,
    hold: Option<Hold>,
    /// Tokens that must never be chosen, in rising order.
    forbidden: Vec<Token>,
    greedy: bool,
    /// Only so many of the most likely tokens can matter to the chain.
    shortlist: Option<usize>,
    /// The samplers point into its vocabulary.
    weights: Arc<Weights>,
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

pub(super) type Candidates = Vec<sys::llama_token_data>;

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
            rule: grammar
                .map(|grammar| Rule::new(weights, grammar))
                .transpose()?,
            spending: sampling.budget.clone().map(Spending::new),
            hold: sampling.hold.clone(),
            forbidden: forbidden(weights, sampling),
            greedy: sampling.is_greedy(),
            shortlist: shortlist(weights, sampling),
            weights: Arc::clone(weights),
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
        if let Some(token) = self.spending.as_ref().and_then(Spending::forced) {
            return self.accept(token);
        }
        let token = match self.without_held(logits) {
            // A rule may allow nothing but what is held back.
            Some(open) => self
                .find(&open, candidates)
                .or_else(|_| self.find(logits, candidates))?,
            None => self.find(logits, candidates)?,
        };
        self.accept(token)
    }

    /// The logits with those of tokens that must wait taken out; `None`: none must.
    fn without_held(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let hold = self.hold.as_ref().filter(|hold| hold.choices > 0)?;
        let mut open = logits.to_vec();
        for &token in &hold.tokens {
            if let Some(logit) = usize::try_from(token).ok().and_then(|at| open.get_mut(at)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Some(open)
    }

    fn find(&mut self, logits: &[f32], candidates: &mut Candidates) -> Result<Token, SampleError> {
        let mut token = self.pick(logits, candidates, Choice::Free)?;
        // Most free choices satisfy the rule; only a refused one pays for a mask of the vocabulary.
        if let Some(rule) = &mut self.rule
            && !rule.allows(token)?
        {
            token = self.pick(logits, candidates, Choice::Ruled)?;
        }
        if !logits
            .get(usize::try_from(token).unwrap_or(usize::MAX))
            .is_some_and(|logit| logit.is_finite())
        {
            return Err(SampleError::NotFinite);
        }
        Ok(token)
    }

    fn accept(&mut self, token: Token) -> Result<Token, SampleError> {
        if let Some(rule) = &mut self.rule {
            rule.accept(token)?;
        }
        self.spend(token);
        self.observe(token);
        Ok(token)
    }

    fn spend(&mut self, token: Token) {
        if let Some(hold) = &mut self.hold {
            hold.choices = hold.choices.saturating_sub(1);
        }
        if let Some(spending) = &mut self.spending {
            let mut bytes = Vec::new();
            self.weights.piece(token, true, &mut bytes);
            spending.observe(token, &bytes);
        }
    }

    /// Tokens that the rule leaves no choice about, accepted.
    pub(super) fn forced(&mut self, most: usize) -> Vec<Token> {
        let Some(rule) = &mut self.rule else {
            return Vec::new();
        };
        let forbidden = &self.forbidden;
        let forced = rule.forced(most, |token| forbidden.binary_search(&token).is_err());
        for &token in &forced {
            self.spend(token);
            self.observe(token);
        }
        forced
    }

    fn pick(
        &mut self,
        logits: &[f32],
        candidates: &mut Candidates,
        choice: Choice,
    ) -> Result<Token, SampleError> {
        let rule = match choice {
            Choice::Free => None,
            Choice::Ruled => self.rule.as_mut(),
        };
        if self.greedy && self.chain.0.is_null() && rule.is_none() {
            return Ok(argmax(logits));
        }
        match rule {
            // Choosing among a quarter of a million would cost a hundred times as much.
            None if let Some(count) = self.shortlist => best(logits, count, candidates),
            None => candidates_of_all(logits, candidates),
            Some(rule) => {
                rule.candidates(logits, candidates)?;
                if candidates
                    .iter()
                    .all(|candidate| candidate.logit == f32::NEG_INFINITY)
                {
                    return Err(SampleError::Grammar(
                        "the grammar allows no further token".into(),
                    ));
                }
            }
        }
        let mut array = array_of(candidates);
        if !self.chain.0.is_null() {
            // SAFETY: the chain and the array are valid.
            unsafe { guard::apply(self.chain.0, &mut array) }
                .map_err(|_| SampleError::NotFinite)?;
        }
        // SAFETY: `size` never grows, and `data` stays inside `candidates`.
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

/// How many of the most likely tokens can matter to the chain; `None`: any may.
fn shortlist(weights: &Weights, sampling: &Sampling) -> Option<usize> {
    const LONGEST: usize = 1024; // a longer list is cheaper sorted as a whole
    let s = sampling;
    let looks_at_all = s.mirostat > 0
        || s.penalises()
        || s.dries()
        || (s.top_n_sigma > 0.0 && !s.is_greedy())
        // What a bias raises may come from anywhere; what it lowers only makes room for others.
        || s.logit_bias.iter().any(|(_, bias)| *bias > 0.0);
    let kept = if s.is_greedy() { 1 } else { s.top_k };
    let kept = usize::try_from(kept).ok().filter(|&kept| kept > 0)?;
    let count = kept + s.logit_bias.len() + weights.suppressed().len();
    (!looks_at_all && count <= LONGEST).then_some(count)
}

fn forbidden(weights: &Weights, sampling: &Sampling) -> Vec<Token> {
    let biased = sampling.logit_bias.iter();
    let biased = biased.filter(|(_, bias)| *bias == f32::NEG_INFINITY);
    let mut tokens = weights.suppressed();
    tokens.extend(biased.map(|(token, _)| *token));
    tokens.sort_unstable();
    tokens
}

/// Whether a token is chosen among all or among those that the rule allows.
#[derive(Clone, Copy)]
enum Choice {
    Free,
    Ruled,
}

/// The whole vocabulary.
pub(super) fn candidates_of_all(logits: &[f32], candidates: &mut Candidates) {
    candidates.clear();
    candidates.extend((0..).zip(logits).map(|(id, &logit)| sys::llama_token_data {
        id,
        logit,
        p: 0.0,
    }));
}

pub(super) fn array_of(candidates: &mut [sys::llama_token_data]) -> sys::llama_token_data_array {
    sys::llama_token_data_array {
        data: candidates.as_mut_ptr(),
        size: candidates.len(),
        selected: -1,
        sorted: false,
    }
}

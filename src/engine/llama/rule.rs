//! What an answer is held to while it is sampled: llama.cpp's grammar, or a compiled constraint.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::{
    Weights,
    chain::compile,
    guard::{self, Fault},
    sampler::{Candidates, Owned, array_of, candidates_of_all},
};
use crate::engine::{Grammar, Token, constrain::Guide, model::SampleError};

pub(super) enum Rule {
    Gbnf(Owned),
    Guide(Box<Guide>),
}

impl Rule {
    /// `Err`: in words for the client.
    pub(super) fn new(weights: &Arc<Weights>, grammar: &Grammar) -> Result<Self, String> {
        Ok(match grammar {
            Grammar::Gbnf(gbnf) => Self::Gbnf(compile(weights, gbnf)?),
            Grammar::Guide(constraint) => Self::Guide(Box::new(constraint.begin())),
        })
    }

    pub(super) fn allows(&mut self, token: Token) -> Result<bool, SampleError> {
        match self {
            Self::Guide(guide) => guide.allows(token).map_err(guide_failed),
            Self::Gbnf(grammar) => {
                let mut one = [sys::llama_token_data {
                    id: token,
                    logit: 1.0,
                    p: 0.0,
                }];
                let mut array = array_of(&mut one);
                // SAFETY: the grammar and the array of one are valid.
                unsafe { guard::apply(grammar.0, &mut array) }.map_err(grammar_failed)?;
                Ok(one[0].logit != f32::NEG_INFINITY)
            }
        }
    }

    /// The tokens to choose from; what is not allowed may be among them with a logit of negative infinity.
    pub(super) fn candidates(
        &mut self,
        logits: &[f32],
        candidates: &mut Candidates,
    ) -> Result<(), SampleError> {
        match self {
            Self::Guide(guide) => {
                let allowed = guide.allowed().map_err(guide_failed)?;
                candidates.clear();
                candidates.extend(allowed.iter().filter_map(|id| {
                    Some(sys::llama_token_data {
                        id: id.cast_signed(),
                        logit: *logits.get(usize::try_from(id).ok()?)?,
                        p: 0.0,
                    })
                }));
            }
            Self::Gbnf(grammar) => {
                candidates_of_all(logits, candidates);
                let mut array = array_of(candidates);
                // SAFETY: the grammar and the array are valid; it changes logits only.
                unsafe { guard::apply(grammar.0, &mut array) }.map_err(grammar_failed)?;
            }
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, token: Token) -> Result<(), SampleError> {
        match self {
            Self::Guide(guide) => guide.accept(token).map_err(guide_failed),
            Self::Gbnf(grammar) => {
                // SAFETY: the grammar is valid.
                unsafe { guard::accept(grammar.0, token) }.map_err(grammar_failed)
            }
        }
    }

    /// Tokens that must come next, accepted. Where that fails there are none, and the next choice says why.
    pub(super) fn forced(&mut self, most: usize, free: impl Fn(Token) -> bool) -> Vec<Token> {
        match self {
            Self::Guide(guide) => guide.forced(most, free).unwrap_or_default(),
            Self::Gbnf(_) => Vec::new(),
        }
    }
}

fn guide_failed(why: impl std::fmt::Display) -> SampleError {
    SampleError::Grammar(format!("the constraint failed: {why}"))
}

fn grammar_failed(fault: Fault) -> SampleError {
    SampleError::Grammar(match fault {
        Fault::Caught(why) => format!("the grammar failed: {why}"),
        Fault::Code(code) => format!("the grammar failed ({code})"),
    })
}

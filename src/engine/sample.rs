//! What a request may ask of sampling, in llama.cpp's terms.

use std::sync::Arc;

use super::constrain::Constraint;

/// Parameters of the sampler chain. Defaults are llama.cpp's own, so that answers match `llama-server`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 or less: greedy.
    pub temperature: f32,
    pub dynatemp_range: f32,
    pub dynatemp_exponent: f32,
    /// 0 or less: the whole vocabulary.
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub typical_p: f32,
    /// Negative: off.
    pub top_n_sigma: f32,
    pub xtc_probability: f32,
    pub xtc_threshold: f32,
    /// Tokens the penalties look back on; 0: off.
    pub repeat_last_n: i32,
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// 0: off.
    pub dry_multiplier: f32,
    pub dry_base: f32,
    pub dry_allowed_length: i32,
    /// -1: the whole context.
    pub dry_penalty_last_n: i32,
    pub dry_sequence_breakers: Vec<String>,
    /// 0: off, 1 or 2: that version of mirostat, in place of the truncation samplers.
    pub mirostat: u8,
    pub mirostat_tau: f32,
    pub mirostat_eta: f32,
    /// Ends an answer that fills a gap where it is likely complete, and joins tokens that begin alike.
    pub infill: bool,
    /// Added to the logits of these tokens; negative infinity forbids.
    pub logit_bias: Vec<(super::Token, f32)>,
    pub seed: u32,
    /// Tokens to think with.
    pub budget: Option<super::Budget>,
    /// Tokens to begin with that are none of some.
    pub hold: Option<Hold>,
}

/// Tokens that are not chosen at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub tokens: Vec<super::Token>,
    /// Choices without them.
    pub choices: u32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            infill: false,
            logit_bias: Vec::new(),
            seed: 0,
            budget: None,
            hold: None,
        }
    }
}

impl Sampling {
    /// Whether the most likely token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 && self.mirostat == 0 && !self.infill
    }

    pub(crate) fn penalises(&self) -> bool {
        let neutral = (
            self.repeat_penalty,
            self.frequency_penalty,
            self.presence_penalty,
        );
        self.repeat_last_n != 0 && neutral != (1.0, 0.0, 0.0)
    }

    pub(crate) fn dries(&self) -> bool {
        self.dry_multiplier > 0.0 && self.dry_base >= 1.0 && self.dry_penalty_last_n != 0
    }

    /// Whether the sampler must see the prompt's tokens.
    pub(crate) fn looks_back(&self) -> bool {
        self.penalises() || self.dries()
    }
}

/// What the answer must follow.
#[derive(Debug, Clone)]
pub enum Grammar {
    Gbnf(Gbnf),
    Guide(Arc<Constraint>),
}

/// A grammar of llama.cpp.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gbnf {
    pub gbnf: String,
    /// Empty: from the first token on. Otherwise only once one of these appears.
    pub triggers: Vec<Trigger>,
    /// Text of the prompt's end that the grammar counts as already generated.
    pub generation_prompt: String,
}

/// What switches a lazy grammar on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    Token(super::Token),
    Word(String),
    /// A regular expression found anywhere in the answer.
    Pattern(String),
    /// A regular expression that must match the whole answer so far.
    PatternFull(String),
}

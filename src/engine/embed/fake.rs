//! An encoder for tests: no weights; a text's vector is how often each of eight classes of bytes is in it.

use super::{Encoder, Facts, Output};
use crate::engine::{
    Token,
    fake::FakeVocab,
    model::{DecodeError, Vocab},
    task::Pooling,
};

/// What goes wrong, asked before each step.
pub type Fault = Box<dyn FnMut(&[&[Token]]) -> Option<DecodeError> + Send>;

pub struct FakeEncoder {
    facts: Facts,
    fault: Fault,
}

pub const WIDTH: usize = 8;

impl FakeEncoder {
    pub fn new(pooling: Pooling) -> Self {
        let width = match pooling {
            Pooling::Rank => 1,
            _ => WIDTH,
        };
        Self {
            facts: Facts {
                pooling,
                longest: 32,
                limit: Some("engine.ubatch"),
                width: u32::try_from(width).unwrap_or(u32::MAX),
                vocab: FakeVocab.size(),
                texts: 4,
                rows: 32,
            },
            fault: Box::new(|_| None),
        }
    }

    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn output(&self, text: &[Token]) -> Output {
        let one_hot = |token: &Token| {
            let mut vector = vec![0.0; WIDTH];
            vector[token.unsigned_abs() as usize % WIDTH] = 1.0;
            vector
        };
        match self.facts.pooling {
            Pooling::None => Output::Tokens(text.iter().map(one_hot).collect()),
            // The longer the text, the better.
            Pooling::Rank => Output::Pooled(vec![text.len() as f32 - 8.0]),
            Pooling::Mean | Pooling::Cls | Pooling::Last => {
                let mut sum = vec![0.0; WIDTH];
                for token in text {
                    sum[token.unsigned_abs() as usize % WIDTH] += 1.0;
                }
                Output::Pooled(sum)
            }
        }
    }
}

impl Encoder for FakeEncoder {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn encode(
        &mut self,
        texts: &[&[Token]],
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Output>, DecodeError> {
        if let Some(error) = (self.fault)(texts) {
            return Err(error);
        }
        // As llama.cpp asks, between nodes.
        if (0..64).any(|_| abandoned()) {
            return Err(DecodeError::Abandoned);
        }
        Ok(texts.iter().map(|text| self.output(text)).collect())
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        Ok(())
    }
}

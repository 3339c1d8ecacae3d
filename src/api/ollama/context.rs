//! `context`: the tokens of a prompt and its answer, with which a later prompt goes on from there.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    api::{
        error::ApiError,
        fields::{Fields, as_i64},
    },
    engine::{Token, model::Vocab},
};

/// What an answer will tell.
pub(super) struct Context {
    vocab: Arc<dyn Vocab>,
    prompt: Vec<Token>,
    /// As it was generated, thoughts and marks included.
    answer: String,
}

impl Context {
    pub(super) fn new(vocab: Arc<dyn Vocab>, prompt: Vec<Token>) -> Self {
        Self {
            vocab,
            prompt,
            answer: String::new(),
        }
    }

    pub(super) fn hear(&mut self, text: &str) {
        self.answer.push_str(text);
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        let answer = self.vocab.tokenize(&self.answer, false, true);
        [self.prompt.as_slice(), &answer].concat()
    }
}

/// What an earlier answer told; nothing where the request has none.
pub(super) fn read(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<Token>, ApiError> {
    let size = vocab.size();
    let token = |id: &Value| {
        let id = u32::try_from(as_i64(id)?).ok().filter(|id| *id < size)?;
        Token::try_from(id).ok()
    };
    let expected = format_args!("an array of token ids below {size}, as an answer told it");
    let ids = fields.array("context")?.into_iter().flatten();
    ids.map(|id| token(id).ok_or_else(|| fields.wrong("context", expected)))
        .collect()
}

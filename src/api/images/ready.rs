//! A rendered prompt's tokens, with images and sounds where their marks stand.

use super::refused;
use crate::{
    api::error::ApiError,
    engine::{
        Token,
        media::Prompt,
        model::Vocab,
        senses::{self, Perceived},
    },
};

/// The images and sounds of a request as the model takes them.
pub(in crate::api) struct Ready {
    pub(super) mark: String,
    /// Each with the field that it came in.
    pub(super) images: Vec<(String, Perceived)>,
}

impl Ready {
    /// For a request without any.
    pub(in crate::api) fn none() -> Self {
        Self {
            mark: String::new(),
            images: Vec::new(),
        }
    }

    /// The rendered prompt's tokens, with the images where their marks stand.
    pub(in crate::api) fn prompt(&self, text: &str, vocab: &dyn Vocab) -> Result<Prompt, ApiError> {
        let mut prompt = Prompt::default();
        if self.images.is_empty() {
            prompt.tokens = vocab.tokenize(text, true, true);
            return Ok(prompt);
        }
        let mut pieces = text.split(self.mark.as_str());
        // What begins a text belongs to its first piece only.
        let first = pieces.next().unwrap_or_default();
        prompt.text(&vocab.tokenize(first, true, true));
        let mut stood = vec![false; self.images.len()];
        for piece in pieces {
            let found = piece.split_once('e').and_then(|(number, rest)| {
                let number: usize = number.parse().ok()?;
                Some((number, self.images.get(number)?, rest))
            });
            let Some((number, (_, perceived), rest)) = found else {
                return Err(ApiError::Unacceptable(
                    "the chat template changes what stands for an image or a sound".to_owned(),
                ));
            };
            stood[number] = true;
            senses::place(perceived, &mut prompt);
            let tokens: Vec<Token> = match rest {
                "" => Vec::new(),
                rest => vocab.tokenize(rest, false, true),
            };
            prompt.text(&tokens);
        }
        match stood.iter().zip(&self.images).find(|(stood, _)| !**stood) {
            Some((_, (path, _))) => Err(refused(
                path.clone(),
                "the model's chat template leaves this out",
            )),
            None => Ok(prompt),
        }
    }
}

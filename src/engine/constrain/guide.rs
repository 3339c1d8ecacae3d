//! One answer's way through a constraint, token by token.

use llguidance::Matcher;
use toktrie::SimpleVob;

use super::brief;
use crate::engine::Token;

/// The state of one answer. A call that fails ends it: every later one fails too.
pub struct Guide {
    matcher: Matcher,
    /// The tokens that end an answer.
    ends: Vec<Token>,
    /// One of these was taken.
    ended: bool,
}

impl Guide {
    pub(super) fn new(matcher: Matcher, ends: Vec<Token>) -> Self {
        Self {
            matcher,
            ends,
            ended: false,
        }
    }

    /// Whether `token` may come next. Far cheaper than [`Self::allowed`].
    pub fn allows(&mut self, token: Token) -> Result<bool, String> {
        if self.ended {
            return Ok(false);
        }
        if self.is_complete() {
            return Ok(self.ends.contains(&token));
        }
        let valid = self.matcher.validate_tokens(&[token.cast_unsigned()]);
        valid.map(|count| count == 1).map_err(brief)
    }

    /// All tokens that may come next.
    pub fn allowed(&mut self) -> Result<SimpleVob, String> {
        if self.ended {
            return Err("the answer has ended".to_owned());
        }
        self.matcher.compute_mask_or_eos().map_err(brief)
    }

    /// Takes a token that is allowed.
    pub fn accept(&mut self, token: Token) -> Result<(), String> {
        if self.ends.contains(&token) && (self.is_complete() || self.is_accepting()?) {
            self.ended = true;
            return Ok(());
        }
        let outcome = self.matcher.consume_token(token.cast_unsigned());
        outcome.map_err(brief)
    }

    /// Takes and returns the tokens that must come next, up to `most` and to the first that is not `free`; none
    /// where there is a choice, or where the model's tokenizer cannot be relied on. An end-of-generation token
    /// comes last, once.
    pub fn forced(
        &mut self,
        most: usize,
        free: impl Fn(Token) -> bool,
    ) -> Result<Vec<Token>, String> {
        let mut forced = Vec::new();
        if most == 0 || self.ended {
            return Ok(forced);
        }
        if !self.is_complete() {
            let tokens = self.matcher.compute_ff_tokens();
            forced.extend(tokens.into_iter().map(TokenId::cast_signed));
            let usable = forced.iter().take_while(|token| free(**token)).count();
            forced.truncate(usable.min(most));
            for token in &forced {
                self.accept(*token)?;
            }
        }
        if forced.len() < most && self.is_complete() {
            let end = self.ends.iter().copied().find(|token| free(*token));
            self.ended = end.is_some();
            forced.extend(end);
        }
        Ok(forced)
    }

    /// Whether the answer is whole and nothing can be added.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    fn is_accepting(&mut self) -> Result<bool, String> {
        self.matcher.is_accepting().map_err(brief)
    }
}

type TokenId = toktrie::TokenId;

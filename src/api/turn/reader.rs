//! Follows one chat answer: which of its text is content, and which tokens that content is made of.

use crate::{
    api::error::ApiError,
    chat::{Delta, Parser, Rendered},
    engine::{Piece, Scored},
};

pub(in crate::api) struct Reader {
    parser: Parser,
    /// Scored tokens whose text has not become content yet.
    pending: Vec<Scored>,
    /// Tokens since the last delta.
    unread_tokens: u32,
    completion_tokens: u32,
    reasoning_tokens: u32,
    called_tools: bool,
}

/// A fragment of the answer.
pub(in crate::api) struct Part {
    pub(in crate::api) delta: Delta,
    /// The tokens of its content, when log-probabilities are wanted.
    pub(in crate::api) scored: Vec<Scored>,
}

impl Reader {
    pub(in crate::api) fn new(rendered: &Rendered) -> Result<Self, ApiError> {
        Ok(Self {
            parser: Parser::new(rendered)?,
            pending: Vec::new(),
            unread_tokens: 0,
            completion_tokens: 0,
            reasoning_tokens: 0,
            called_tools: false,
        })
    }

    pub(in crate::api) fn read(&mut self, mut piece: Piece) -> Vec<Part> {
        self.pending.append(&mut piece.tokens);
        self.unread_tokens += piece
            .completion_tokens
            .saturating_sub(self.completion_tokens);
        self.completion_tokens = piece.completion_tokens;
        let deltas = self.parser.push(&piece.text);
        self.parts(deltas)
    }

    /// What the parser held back until it knew that the answer is complete.
    pub(in crate::api) fn finish(&mut self) -> Vec<Part> {
        let deltas = self.parser.finish();
        self.parts(deltas)
    }

    /// Tokens that became reasoning, as far as the parser's deltas tell.
    pub(in crate::api) fn reasoning_tokens(&self) -> u32 {
        self.reasoning_tokens
    }

    /// The finish reason if tools were called takes the place of "stop".
    pub(in crate::api) fn finish_reason(&self, reason: &'static str) -> &'static str {
        if self.called_tools && reason == "stop" {
            "tool_calls"
        } else {
            reason
        }
    }

    fn parts(&mut self, deltas: Vec<Delta>) -> Vec<Part> {
        let parts = deltas.into_iter().map(|delta| {
            self.called_tools |= !delta.tool_calls.is_empty();
            let read = std::mem::take(&mut self.unread_tokens);
            if delta.reasoning_content.is_some() {
                self.reasoning_tokens += read;
            }
            let scored = if let Some(content) = &delta.content {
                take_tokens(&mut self.pending, content.as_bytes())
            } else {
                // What came before were the tokens of something else.
                self.pending.clear();
                Vec::new()
            };
            Part { delta, scored }
        });
        parts.collect()
    }
}

/// Takes the tokens that `content` is made of, and drops those before it: marks that the parser
/// swallowed. Tokens after it wait for the content they become.
fn take_tokens(pending: &mut Vec<Scored>, content: &[u8]) -> Vec<Scored> {
    let joined: Vec<u8> = pending
        .iter()
        .flat_map(|token| &token.bytes)
        .copied()
        .collect();
    let found = joined
        .windows(content.len().max(1))
        .position(|part| part == content);
    let Some(begin) = found else {
        return Vec::new();
    };
    let end = begin + content.len();
    let mut at = 0;
    let mut taken = Vec::new();
    let mut rest = Vec::new();
    for token in pending.drain(..) {
        let (from, to) = (at, at + token.bytes.len());
        at = to;
        if from >= end {
            rest.push(token);
        } else if to > begin {
            taken.push(token);
        }
    }
    *pending = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(texts: &[&str]) -> Vec<Scored> {
        let scored = |text: &&str| Scored {
            token: 0,
            bytes: text.as_bytes().to_vec(),
            logprob: -0.5,
            top: Vec::new(),
        };
        texts.iter().map(scored).collect()
    }

    #[test]
    fn content_takes_its_own_tokens_and_drops_the_marks_before_it() {
        let mut pending = tokens(&["</think>", "\n", "Pa", "ris", "<to"]);
        assert_eq!(take_tokens(&mut pending, b"Paris"), tokens(&["Pa", "ris"]));
        assert_eq!(pending, tokens(&["<to"]));
    }

    #[test]
    fn content_that_no_token_explains_takes_none() {
        let mut pending = tokens(&["a"]);
        assert_eq!(take_tokens(&mut pending, b"b"), []);
        assert_eq!(take_tokens(&mut Vec::new(), b""), []);
    }
}

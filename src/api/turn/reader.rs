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
                take_tokens(&mut self.pending, content)
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
fn take_tokens(pending: &mut Vec<Scored>, content: &str) -> Vec<Scored> {
    let (text, places) = readable(pending);
    let Some(begin) = text.find(content) else {
        return Vec::new();
    };
    let end = begin + content.len();
    let mut from = 0;
    let mut taken = Vec::new();
    let mut rest = Vec::new();
    for (token, to) in pending.drain(..).zip(places) {
        if from >= end {
            rest.push(token);
        } else if to > begin {
            taken.push(token);
        }
        from = to;
    }
    *pending = rest;
    taken
}

/// The tokens' text as answers carry it, with U+FFFD for what is no UTF-8, and the byte in it where each token ends.
fn readable(tokens: &[Scored]) -> (String, Vec<usize>) {
    let joined: Vec<u8> = tokens
        .iter()
        .flat_map(|token| &token.bytes)
        .copied()
        .collect();
    let mut text = String::with_capacity(joined.len());
    // For each byte of the tokens, where it ends in the text.
    let mut ends = Vec::with_capacity(joined.len());
    for chunk in joined.utf8_chunks() {
        ends.extend((1..=chunk.valid().len()).map(|byte| text.len() + byte));
        text.push_str(chunk.valid());
        if let Some(last) = chunk.invalid().len().checked_sub(1) {
            ends.extend((1..=last).map(|byte| text.len() + byte));
            text.push(char::REPLACEMENT_CHARACTER);
            ends.push(text.len());
        }
    }
    let mut byte = 0;
    let places = tokens.iter().map(|token| {
        byte += token.bytes.len();
        byte.checked_sub(1).map_or(0, |last| ends[last])
    });
    (text, places.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens<T: AsRef<[u8]>>(texts: &[T]) -> Vec<Scored> {
        let scored = |text: &T| Scored {
            token: 0,
            bytes: text.as_ref().to_vec(),
            logprob: -0.5,
            top: Vec::new(),
        };
        texts.iter().map(scored).collect()
    }

    #[test]
    fn content_takes_its_own_tokens_and_drops_the_marks_before_it() {
        let mut pending = tokens(&["</think>", "\n", "Pa", "ris", "<to"]);
        assert_eq!(take_tokens(&mut pending, "Paris"), tokens(&["Pa", "ris"]));
        assert_eq!(pending, tokens(&["<to"]));
    }

    #[test]
    fn a_character_that_never_became_whole_takes_its_tokens_too() {
        let whole: &[&[u8]] = &[b" \xF0\x9F", b"\x8C", b"\x8D!", b"\xF0\x9F", b"\x8C"];
        let mut pending = tokens(whole);
        let content = " \u{1F30D}!\u{FFFD}";
        assert_eq!(take_tokens(&mut pending, content), tokens(whole));
        let mut pending = tokens(&whole[3..]);
        assert_eq!(take_tokens(&mut pending, "\u{FFFD}"), tokens(&whole[3..]));
    }

    #[test]
    fn content_that_no_token_explains_takes_none() {
        let mut pending = tokens(&["a"]);
        assert_eq!(take_tokens(&mut pending, "b"), []);
        assert_eq!(take_tokens(&mut Vec::new(), ""), []);
    }
}

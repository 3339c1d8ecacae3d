//! For tests of dialects: the bytes of an answer whose text comes in pieces.

use super::Wording;
use crate::engine::{Finish, Finished, Piece, Times, Usage};

/// All that `wording` says of one choice, in a piece a token. `prompt`: the counts before the first of them.
pub(in crate::api) fn speak<'a>(
    wording: &mut impl Wording,
    prompt: Usage,
    pieces: impl IntoIterator<Item = &'a str>,
    reason: Finish,
) -> String {
    let mut out = Vec::new();
    let mut usage = prompt;
    wording.open(0, usage, &mut out);
    for text in pieces {
        usage.completion_tokens += 1;
        let piece = Piece {
            text: text.to_owned(),
            tokens: Vec::new(),
            completion_tokens: usage.completion_tokens,
        };
        wording.text(0, piece, usage, &mut out);
    }
    let finished = Finished {
        last: None,
        reason,
        usage,
        times: Times::default(),
    };
    wording.end(0, &finished, usage, &mut out);
    wording.close(usage, &mut out);
    String::from_utf8(out).unwrap()
}

/// `text`, which is ASCII, a few bytes at a time.
pub(in crate::api) fn in_bits(text: &str) -> impl Iterator<Item = &str> {
    let bits = text.as_bytes().chunks(3);
    bits.map(|bytes| std::str::from_utf8(bytes).unwrap())
}

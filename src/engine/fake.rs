//! A model for tests: no weights, a byte-level vocabulary, and answers that follow from the prompt.

use super::{Token, model::Vocab};

/// 256 byte tokens, then `<eos>` (256) and `<tool>` (257, a control token).
pub struct FakeVocab;

pub const EOS: Token = 256;

impl Vocab for FakeVocab {
    fn size(&self) -> u32 {
        258
    }
    fn tokenize(&self, text: &str, _add_special: bool, _parse_special: bool) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }
    fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        match u8::try_from(token) {
            Ok(byte) => out.push(byte),
            Err(_) if special && token == EOS => out.extend_from_slice(b"<eos>"),
            Err(_) if special => out.extend_from_slice(b"<tool>"),
            Err(_) => {}
        }
    }
    fn is_eog(&self, token: Token) -> bool {
        token == EOS
    }
}

/// Answers every prompt by repeating it (after its last newline, if any), then `<eos>`.
pub struct Fake {
    _todo: (),
}

impl Fake {
    pub fn new(_sequences: u32, _context: u32) -> Self {
        todo!()
    }
}

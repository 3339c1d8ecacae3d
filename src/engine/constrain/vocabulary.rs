//! A model's vocabulary as llguidance wants it: a trie of the tokens' bytes, and the model's own way to cut text.

use std::sync::Arc;

use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::engine::{Token, model::Vocab};

/// Texts that a tokenizer must give back byte by byte, or its tokens cannot be used to write what is forced.
const PROBES: [&str; 4] = ["{\"name\": [1, \"ä\"]}", "a", " a", "\n\n"];

struct Environment {
    trie: TokTrie,
    vocab: Arc<dyn Vocab>,
    /// Whether the tokenizer adds nothing of its own, such as a leading space.
    faithful: bool,
}

/// Walks the whole vocabulary: tens of milliseconds for 50,000 tokens.
pub(super) fn environment(vocab: Arc<dyn Vocab>) -> Result<TokEnv, String> {
    let ids = || (0..vocab.size()).filter_map(|id| Token::try_from(id).ok());
    let ends: Vec<TokenId> = ids()
        .filter(|&token| vocab.is_eog(token))
        .map(Token::cast_unsigned)
        .collect();
    let Some(&end) = ends.first() else {
        return Err("the model has no token that ends an answer".to_owned());
    };
    let words: Vec<Vec<u8>> = ids().map(|token| spell(&*vocab, token)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab.size(), end), &words).with_eos_tokens(&ends);
    let faithful = PROBES.iter().all(|probe| {
        let tokens = vocab.tokenize(probe, false, false);
        let tokens: Vec<_> = tokens.into_iter().map(Token::cast_unsigned).collect();
        trie.decode_raw(&tokens) == probe.as_bytes()
    });
    Ok(Arc::new(Environment {
        trie,
        vocab,
        faithful,
    }))
}

/// The bytes of a token; those of a control token begin with a byte that no text holds.
fn spell(vocab: &dyn Vocab, token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    vocab.piece(token, false, &mut bytes);
    if bytes.is_empty() {
        bytes.push(TokTrie::SPECIAL_TOKEN_MARKER);
        vocab.piece(token, true, &mut bytes);
        if bytes.len() == 1 {
            bytes.clear();
        }
    }
    bytes
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let cut = |text: &str| {
            let tokens = self.vocab.tokenize(text, false, false);
            tokens.into_iter().map(Token::cast_unsigned).collect()
        };
        self.trie.tokenize_with_greedy_fallback(bytes, cut)
    }

    /// Without this nothing is forced, and every token is chosen by the model.
    fn tokenize_is_canonical(&self) -> bool {
        self.faithful
    }
}

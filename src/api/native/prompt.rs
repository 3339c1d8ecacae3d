//! llama-server's prompts: texts, tokens, and both mixed.

use serde_json::Value;

use crate::{
    api::{
        error::ApiError,
        fields::{Fields, as_i64},
    },
    engine::{Token, model::Vocab},
};

/// Most prompts of one request.
const MOST_PROMPTS: usize = 32;

/// `"text"`, `[1, 2]` or `[1, "text", 2]`.
#[derive(Debug, PartialEq)]
pub(super) struct Mixed(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Token(Token),
}

impl Mixed {
    /// The field `name`, which must be there.
    pub(super) fn read(
        fields: Fields<'_>,
        name: &str,
        vocab: &dyn Vocab,
    ) -> Result<Self, ApiError> {
        let mixed = fields.get(name).and_then(|value| Self::parse(value, vocab));
        mixed.ok_or_else(|| {
            let size = vocab.size();
            let expected =
                format_args!("a string, or an array of token ids below {size} and strings");
            fields.wrong(name, expected)
        })
    }

    fn parse(value: &Value, vocab: &dyn Vocab) -> Option<Self> {
        let part = |value: &Value| match value {
            Value::String(text) => Some(Part::Text(text.clone())),
            id => token(id, vocab).map(Part::Token),
        };
        let parts = match value {
            Value::Array(parts) => parts.iter().map(part).collect(),
            Value::String(_) => part(value).map(|part| vec![part]),
            _ => None,
        };
        parts.map(Self)
    }

    /// `add_special`: the vocabulary's own first token comes first, unless a token is already there.
    pub(super) fn tokens(
        self,
        vocab: &dyn Vocab,
        add_special: bool,
        parse_special: bool,
    ) -> Vec<Token> {
        let mut tokens = Vec::new();
        for (at, part) in self.0.into_iter().enumerate() {
            match part {
                Part::Token(token) => tokens.push(token),
                Part::Text(text) => {
                    let add_special = add_special && at == 0;
                    tokens.append(&mut vocab.tokenize(&text, add_special, parse_special));
                }
            }
        }
        tokens
    }
}

/// The prompts of the field `prompt`, as tokens: one, or an array of several. `{"prompt_string": …}` is one, too.
pub(super) fn prompts(fields: Fields<'_>, vocab: &dyn Vocab) -> Result<Vec<Vec<Token>>, ApiError> {
    let wrong = || {
        let size = vocab.size();
        let expected = format_args!(
            "a string, an array of token ids below {size} and strings, or an array of at most {MOST_PROMPTS} such prompts, \
             none of them empty"
        );
        fields.wrong("prompt", expected)
    };
    let one = |value: &Value| {
        let text = match value {
            Value::Object(object) => {
                let nothing = |media: &Value| match media {
                    Value::Null => true,
                    Value::Array(items) => items.is_empty(),
                    _ => false,
                };
                if object
                    .get("multimodal_data")
                    .is_some_and(|media| !nothing(media))
                {
                    let message = "prompt.multimodal_data: images and sounds go with the messages of a chat \
                                   (/v1/chat/completions), not with a text to continue";
                    return Err(ApiError::invalid("prompt.multimodal_data", message));
                }
                object.get("prompt_string").ok_or_else(wrong)?
            }
            value => value,
        };
        let mixed = Mixed::parse(text, vocab).ok_or_else(wrong)?;
        match mixed.tokens(vocab, true, true) {
            tokens if tokens.is_empty() => Err(wrong()),
            tokens => Ok(tokens),
        }
    };
    match fields.get("prompt") {
        // With a number in it, it is one prompt; without, each of its items is one.
        Some(Value::Array(items)) if !items.iter().any(Value::is_number) => {
            if items.is_empty() || items.len() > MOST_PROMPTS {
                return Err(wrong());
            }
            items.iter().map(one).collect()
        }
        Some(value) => one(value).map(|prompt| vec![prompt]),
        None => Err(wrong()),
    }
}

/// The id, if the vocabulary has it.
pub(super) fn token(value: &Value, vocab: &dyn Vocab) -> Option<Token> {
    let id = as_i64(value)?;
    let known = (0..i64::from(vocab.size())).contains(&id);
    known.then(|| Token::try_from(id).ok())?
}

/// Control tokens are spelled out; what is no text is replaced.
pub(super) fn text_of(tokens: &[Token], vocab: &dyn Vocab) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        vocab.piece(token, true, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::engine::fake::FakeVocab;

    fn read(prompt: Value) -> Result<Vec<Vec<Token>>, String> {
        let object = Map::from_iter([("prompt".to_owned(), prompt)]);
        prompts(Fields::new(&object), &FakeVocab).map_err(|error| error.to_string())
    }

    #[test]
    fn a_prompt_is_text_or_tokens_or_both_and_there_may_be_several() {
        let is = |prompt, tokens: &[&[Token]]| assert_eq!(read(prompt).unwrap(), tokens);
        is(json!("ab"), &[&[97, 98]]);
        is(json!([97, 256]), &[&[97, 256]]);
        is(json!([97, "bc", 100]), &[&[97, 98, 99, 100]]);
        is(json!(["bc", 100]), &[&[98, 99, 100]]);
        is(json!(["a", "b"]), &[&[97], &[98]]);
        is(json!(["a", [98], ["c", 100]]), &[&[97], &[98], &[99, 100]]);
        is(json!({"prompt_string": "a"}), &[&[97]]);
        is(
            json!({"prompt_string": "a", "multimodal_data": []}),
            &[&[97]],
        );
    }

    #[test]
    fn what_is_no_prompt_is_refused_by_name() {
        let no = |prompt| read(prompt).unwrap_err();
        insta::assert_snapshot!(no(json!("")), @"prompt: expected a string, an array of token ids below 258 and strings, or an array of at most 32 such prompts, none of them empty, got \"\"");
        for prompt in [
            json!([]),
            json!([[]]),
            json!([258]),
            json!([1.5]),
            json!({"text": "a"}),
            json!([null]),
            json!(vec!["a"; 33]),
        ] {
            assert!(no(prompt).starts_with("prompt: expected a string"));
        }
        for media in [json!(["aGk="]), json!("aGk="), json!({})] {
            let prompt = json!({"prompt_string": "a", "multimodal_data": media});
            assert!(no(prompt).starts_with("prompt.multimodal_data: "));
        }
    }
}

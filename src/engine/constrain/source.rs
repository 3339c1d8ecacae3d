//! What an answer may be, as a request says it, and as llguidance reads it.

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cache::Key;
use crate::engine::{Token, model::Vocab};

/// Longest regular expression, in bytes. Real ones have some hundred.
const MOST_REGEX_BYTES: usize = 16 << 10;
/// Longest Lark grammar, in bytes.
const MOST_LARK_BYTES: usize = 256 << 10;
/// Brackets in a Lark grammar: llguidance calls itself for each that is open.
const MOST_BRACKETS: usize = 8 << 10;
const MOST_CHOICES: usize = 10_000;

/// A constraint before it is compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub body: Body,
    pub frame: Frame,
}

/// What the answer itself must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Json {
        schema: Value,
        strictness: Strictness,
    },
    /// Must match the whole answer.
    Regex(String),
    /// A grammar in llguidance's variant of Lark.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// What happens to a part of a schema that cannot be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// The schema is refused.
    Strict,
    /// The part is left out, with a warning.
    Relaxed,
}

/// What the model writes around the answer, reasoning above all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub parts: Vec<Part>,
    /// The beginning of the answer, where the prompt already holds it.
    pub begun: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This text, which may hold control tokens.
    Mark(String),
    /// Either all of these or nothing.
    Optional(Vec<Part>),
    /// Any text up to this mark, and the mark.
    Until(String),
    /// A little white space or none.
    Space,
    /// What the body describes.
    Answer,
}

impl Default for Frame {
    /// The answer and nothing else.
    fn default() -> Self {
        Self {
            parts: vec![Part::Answer],
            begun: String::new(),
        }
    }
}

impl From<Body> for Source {
    fn from(body: Body) -> Self {
        Self {
            body,
            frame: Frame::default(),
        }
    }
}

impl Source {
    pub(super) fn key(&self) -> Key {
        Sha256::digest(format!("{self:?}")).into()
    }

    /// About how many bytes it has.
    pub(super) fn size(&self) -> usize {
        match &self.body {
            Body::Json { schema, .. } => schema.to_string().len(),
            Body::Regex(text) | Body::Lark(text) => text.len(),
            Body::Choice(texts) => texts.iter().map(String::len).sum(),
        }
    }

    /// `Err`: in words for the client. A schema is not looked at here.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.body {
            Body::Regex(text) if text.len() > MOST_REGEX_BYTES => {
                Err(format!("expected at most {MOST_REGEX_BYTES} bytes"))
            }
            Body::Lark(text) if text.len() > MOST_LARK_BYTES => {
                Err(format!("expected at most {MOST_LARK_BYTES} bytes"))
            }
            Body::Lark(text) if text.matches(['(', '[', '{']).count() > MOST_BRACKETS => {
                Err(format!("expected at most {MOST_BRACKETS} brackets"))
            }
            Body::Choice(texts) if texts.is_empty() || texts.len() > MOST_CHOICES => {
                Err(format!("expected 1 to {MOST_CHOICES} texts"))
            }
            Body::Choice(texts) if texts.iter().any(String::is_empty) => {
                Err("expected texts that are not empty".to_owned())
            }
            Body::Json { .. } | Body::Regex(_) | Body::Lark(_) | Body::Choice(_) => Ok(()),
        }
    }

    /// `schema` takes the place of the body's own, if that is one.
    pub(super) fn grammar(
        &self,
        schema: Option<Value>,
        vocab: &dyn Vocab,
    ) -> Result<TopLevelGrammar, String> {
        let mut body = match (&self.body, schema) {
            (_, Some(schema)) => GrammarWithLexer::from_json_schema(schema),
            (Body::Json { schema, .. }, None) => GrammarWithLexer::from_json_schema(schema.clone()),
            (Body::Regex(text), None) => GrammarWithLexer::from_regex(unanchored(text)),
            (Body::Lark(text), None) => GrammarWithLexer::from_lark(text.clone()),
            (Body::Choice(texts), None) => {
                let texts: Vec<_> = texts.iter().map(|text| literal(text)).collect();
                GrammarWithLexer::from_lark(format!("start: {}", texts.join(" | ")))
            }
        };
        if self.frame.parts == [Part::Answer] {
            return Ok(TopLevelGrammar::from_grammar(body));
        }
        body.name = Some("answer".to_owned());
        let mut lark = Lark::default();
        let start = lark.sequence(&self.frame.parts, vocab)?;
        let frame = format!(
            "start: {start}\n{}SPACE: /[ \\t\\r\\n]{{1,4}}/\n",
            lark.rules
        );
        Ok(TopLevelGrammar {
            grammars: vec![GrammarWithLexer::from_lark(frame), body],
            max_tokens: None,
        })
    }
}

/// A regular expression is matched against the whole answer anyway.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) => {
            // After an odd number of backslashes it is a character.
            let backslashes = rest.len() - rest.trim_end_matches('\\').len();
            if backslashes.is_multiple_of(2) {
                rest
            } else {
                regex
            }
        }
        None => regex,
    }
}

/// A text as a Lark string, which is a JSON string.
fn literal(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A frame as Lark.
#[derive(Default)]
struct Lark {
    /// Rules beside `start`.
    rules: String,
    count: usize,
}

impl Lark {
    fn sequence(&mut self, parts: &[Part], vocab: &dyn Vocab) -> Result<String, String> {
        let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.part(part, vocab)).collect();
        parts.map(|parts| parts.join(" "))
    }

    fn part(&mut self, part: &Part, vocab: &dyn Vocab) -> Result<String, String> {
        Ok(match part {
            Part::Mark(text) => mark(text, vocab)?.join(" "),
            Part::Optional(parts) => format!("({})?", self.sequence(parts, vocab)?),
            Part::Space => "SPACE?".to_owned(),
            Part::Answer => "@answer".to_owned(),
            Part::Until(end) => {
                self.count += 1;
                let name = format!("until{}", self.count);
                let pieces = mark(end, vocab)?;
                let rule = match &pieces[..] {
                    [text] if text.starts_with('"') => {
                        format!("{name}[suffix={text}]: /(?s:.*)/\n")
                    }
                    // A control token ends any text by itself.
                    [token] => format!("{name}: /(?s:.*)/ {token}\n"),
                    _ => return Err(format!("a mark of several tokens ends the text: {end}")),
                };
                self.rules.push_str(&rule);
                name
            }
        })
    }
}

/// Control tokens as ids, the text between them as strings.
fn mark(text: &str, vocab: &dyn Vocab) -> Result<Vec<String>, String> {
    let mut pieces = Vec::new();
    let mut run = Vec::new();
    let flush = |run: &mut Vec<u8>, pieces: &mut Vec<String>| match String::from_utf8(
        std::mem::take(run),
    ) {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(text) => {
            pieces.push(literal(&text));
            Ok(())
        }
        Err(_) => Err(format!("a mark is cut inside a character: {text}")),
    };
    for token in vocab.tokenize(text, false, true) {
        let before = run.len();
        vocab.piece(token, false, &mut run);
        if run.len() == before {
            flush(&mut run, &mut pieces)?;
            pieces.push(control(token));
        }
    }
    flush(&mut run, &mut pieces)?;
    Ok(pieces)
}

fn control(token: Token) -> String {
    format!("<[{token}]>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_anchors_are_cut_off_a_regular_expression() {
        assert_eq!(unanchored("^a$"), "a");
        assert_eq!(unanchored(r"a\$"), r"a\$");
        assert_eq!(unanchored(r"a\\$"), r"a\\");
        assert_eq!(unanchored("a^b$c"), "a^b$c");
    }
}

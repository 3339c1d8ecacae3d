//! How a query and a document become the one text that a reranking model reads.

use crate::engine::{Token, model::Vocab};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pairing {
    /// The model's own words around `{query}` and `{document}`.
    Template(String),
    /// Both texts between tokens.
    Tokens {
        begin: Vec<Token>,
        between: Vec<Token>,
        end: Vec<Token>,
    },
}

impl Pairing {
    /// The text of each document together with the query.
    pub fn texts(&self, vocab: &dyn Vocab, query: &str, documents: &[String]) -> Vec<Vec<Token>> {
        match self {
            Self::Template(template) => documents
                .iter()
                .map(|document| vocab.tokenize(&fill(template, query, document), false, true))
                .collect(),
            Self::Tokens {
                begin,
                between,
                end,
            } => {
                // Control tokens written in the texts are plain text: they would forge a border.
                let query = vocab.tokenize(query, false, false);
                let head = [begin.as_slice(), &query, between].concat();
                documents
                    .iter()
                    .map(|document| {
                        let document = vocab.tokenize(document, false, false);
                        [head.as_slice(), &document, end].concat()
                    })
                    .collect()
            }
        }
    }
}

/// In one pass, so that a query with `{document}` in it stays what it is.
fn fill(template: &str, query: &str, document: &str) -> String {
    let mut out = String::with_capacity(template.len() + query.len() + document.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        rest = if let Some(after) = from.strip_prefix("{query}") {
            out.push_str(query);
            after
        } else if let Some(after) = from.strip_prefix("{document}") {
            out.push_str(document);
            after
        } else {
            out.push('{');
            &from[1..]
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeVocab;

    #[test]
    fn a_template_is_filled_once_whatever_the_texts_say() {
        assert_eq!(
            fill("Q: {query} D: {document} {x}{", "{document}", "d"),
            "Q: {document} D: d {x}{"
        );
    }

    #[test]
    fn tokens_stand_around_both_texts() {
        let pairing = Pairing::Tokens {
            begin: vec![1],
            between: vec![2, 3],
            end: vec![4],
        };
        let texts = pairing.texts(&FakeVocab, "a", &["b".into(), "cd".into()]);
        assert_eq!(
            texts,
            [vec![1, 97, 2, 3, 98, 4], vec![1, 97, 2, 3, 99, 100, 4]]
        );
    }
}

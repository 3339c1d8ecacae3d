//! Where in an answer its content stands: a template's parser, read as far as that can be told for certain.

use serde::Deserialize;

use super::format::Format;
use crate::engine::constrain::{Frame, Part};

/// Families whose parsers are larger are not read; their nodes are small.
const MOST_NODES: usize = 256;
const MOST_DEPTH: usize = 32;

#[derive(Deserialize)]
struct Arena {
    parsers: Vec<Node>,
    root: usize,
}

/// The nodes of llama.cpp's parsers that frames are made of.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Node {
    Epsilon,
    End,
    Space,
    Literal {
        literal: String,
    },
    Sequence {
        children: Vec<usize>,
    },
    Choice {
        children: Vec<usize>,
    },
    Repetition {
        child: usize,
        min_count: i32,
        max_count: i32,
    },
    Tag {
        child: usize,
        tag: String,
    },
    Until {
        delimiters: Vec<String>,
    },
    /// Looks ahead and reads nothing.
    And,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Mark(String),
    Space,
    Optional(Vec<Piece>),
    /// Up to one of these.
    Thought(Vec<String>),
    Content,
}

/// What the model is to write around its content, once the prompt's end is subtracted. `None`: this family's answers
/// have another shape.
pub(super) fn frame(format: &Format) -> Option<Frame> {
    let arena: Arena = serde_json::from_str(&format.arena).ok()?;
    if arena.parsers.len() > MOST_NODES {
        return None;
    }
    let pieces = arena.pieces(arena.root, 0)?;
    let (pieces, begun) = after(&pieces, &format.generation_prompt)?;
    let parts = parts(&pieces)?;
    let answers = parts.iter().filter(|part| **part == Part::Answer).count();
    (answers == 1).then_some(Frame { parts, begun })
}

impl Arena {
    fn pieces(&self, id: usize, depth: usize) -> Option<Vec<Piece>> {
        if depth > MOST_DEPTH {
            return None;
        }
        let inside = |id: usize| self.pieces(id, depth + 1);
        match self.parsers.get(id)? {
            Node::Epsilon | Node::End => Some(Vec::new()),
            Node::Space => Some(vec![Piece::Space]),
            Node::Literal { literal } if literal.trim().is_empty() => Some(vec![Piece::Space]),
            Node::Literal { literal } => Some(vec![Piece::Mark(literal.clone())]),
            Node::Sequence { children } => {
                let children: Option<Vec<_>> = children.iter().map(|id| inside(*id)).collect();
                children.map(|children| children.concat())
            }
            Node::Choice { children } => {
                let looks = |id: &&usize| matches!(self.parsers.get(**id), Some(Node::And));
                let mut real = children.iter().filter(|id| !looks(id));
                let only = inside(*real.next()?)?;
                real.next().is_none().then_some(only)
            }
            Node::Repetition {
                child,
                min_count: 0,
                max_count: 1,
            } => match &inside(*child)?[..] {
                [Piece::Space] => Some(vec![Piece::Space]),
                inner => Some(vec![Piece::Optional(inner.to_vec())]),
            },
            Node::Tag { child, tag } => match (tag.as_str(), self.parsers.get(*child)?) {
                ("content", Node::Until { .. }) => Some(vec![Piece::Content]),
                ("reasoning", Node::Until { delimiters }) => {
                    Some(vec![Piece::Thought(delimiters.clone())])
                }
                _ => None,
            },
            Node::Repetition { .. } | Node::Until { .. } | Node::And | Node::Other => None,
        }
    }
}

/// What is left of the pieces after the text that the prompt ends with, and what of the content it holds.
fn after(pieces: &[Piece], text: &str) -> Option<(Vec<Piece>, String)> {
    if text.is_empty() {
        return Some((pieces.to_vec(), String::new()));
    }
    let (first, rest) = pieces.split_first()?;
    match first {
        Piece::Mark(mark) => {
            if let Some(text) = text.strip_prefix(mark.as_str()) {
                return after(rest, text);
            }
            let left = mark.strip_prefix(text)?;
            let mut pieces = rest.to_vec();
            pieces.insert(0, Piece::Mark(left.to_owned()));
            Some((pieces, String::new()))
        }
        Piece::Space => after(rest, text.trim_start()),
        Piece::Optional(inner) => {
            let taken = [inner.as_slice(), rest].concat();
            after(&taken, text).or_else(|| after(rest, text))
        }
        Piece::Thought(ends) => {
            let end = ends.iter().filter_map(|end| text.find(end.as_str())).min();
            match end {
                Some(end) => after(rest, &text[end..]),
                None => Some((pieces.to_vec(), String::new())),
            }
        }
        Piece::Content => Some((pieces.to_vec(), text.to_owned())),
    }
}

fn parts(pieces: &[Piece]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Mark(mark) => parts.push(Part::Mark(mark.clone())),
            Piece::Optional(inner) => parts.push(Part::Optional(self::parts(inner)?)),
            Piece::Content => parts.push(Part::Answer),
            // White space before a thought is part of it.
            Piece::Space => match (parts.last(), pieces.peek()) {
                // And where nothing comes before the content, it begins at once.
                (Some(Part::Space), _)
                | (_, Some(Piece::Thought(_)))
                | (None, Some(Piece::Content)) => {}
                _ => parts.push(Part::Space),
            },
            Piece::Thought(ends) => {
                while pieces.next_if_eq(&&Piece::Space).is_some() {}
                match pieces.next() {
                    Some(Piece::Mark(end)) if ends.contains(end) => {
                        parts.push(Part::Until(end.clone()));
                    }
                    _ => return None,
                }
                // Models put an empty line here whatever the parser expects.
                parts.push(Part::Space);
            }
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use crate::chat::Chat;

    fn outline(template: &str, request: &serde_json::Value) -> String {
        let chat = Chat::from_template(template, "<s>", "</s>").unwrap();
        match chat.render_framed(request, "regex").unwrap() {
            Some((_, frame)) => format!("{:?} {:?}", frame.parts, frame.begun),
            None => "unknown".to_owned(),
        }
    }

    macro_rules! template {
        ($name:literal) => {
            include_str!(concat!("../../tests/templates/", $name, ".jinja"))
        };
    }

    #[test]
    fn the_place_of_the_content_is_known_where_a_family_has_a_simple_frame() {
        let plain = || serde_json::json!({"messages": [{"role": "user", "content": "Hi"}]});
        insta::assert_snapshot!(outline(template!("chatml"), &plain()), @r#"[Answer] """#);
        insta::assert_snapshot!(outline(template!("llama3"), &plain()), @r#"[Answer] """#);
        insta::assert_snapshot!(outline(template!("qwen3"), &plain()), @r#"[Space, Optional([Mark("<think>"), Until("</think>"), Space]), Answer] """#);
        insta::assert_snapshot!(outline(template!("qwen3-coder"), &plain()), @r#"[Until("</think>"), Space, Answer] """#);
        insta::assert_snapshot!(outline(template!("deepseek"), &plain()), @r#"[Until("</think>"), Space, Answer] """#);
        insta::assert_snapshot!(outline(template!("glm"), &plain()), @r#"[Space, Optional([Mark("<think>"), Until("</think>"), Space]), Answer] """#);
        insta::assert_snapshot!(outline(template!("command-r"), &plain()), @r#"[Space, Optional([Mark("<|START_THINKING|>"), Until("<|END_THINKING|>"), Space]), Mark("<|START_RESPONSE|>"), Answer, Mark("<|END_RESPONSE|>")] """#);
        insta::assert_snapshot!(outline(template!("harmony"), &plain()), @"unknown");
        insta::assert_snapshot!(outline(template!("gemma"), &plain()), @"unknown");
    }

    #[test]
    fn a_prompt_that_ends_thinking_or_begins_the_answer_leaves_less_to_write() {
        let mut request = serde_json::json!({"messages": [{"role": "user", "content": "Hi"}]});
        request["enable_thinking"] = false.into();
        insta::assert_snapshot!(outline(template!("qwen3"), &request), @r#"[Answer] """#);
        request["messages"] = serde_json::json!([
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{\"a\":"}
        ]);
        insta::assert_snapshot!(outline(template!("chatml"), &request), @r#"[Answer] "{\"a\":""#);
    }
}

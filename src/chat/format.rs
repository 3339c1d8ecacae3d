//! How a template's answers are to be read: a parser of llama.cpp in its own JSON.

use serde::Deserialize;

/// A parser of nothing but content is a handful of nodes; longer ones need no look.
const MAX_PLAIN_BYTES: usize = 4 * 1024;

/// The template's side of parsing, as the shim made it.
#[derive(Deserialize)]
pub(super) struct Format {
    pub(super) generation_prompt: String,
    pub(super) thinking_start: String,
    pub(super) thinking_ends: Vec<String>,
    pub(super) arena: String,
}

impl Format {
    /// Whether the prompt ends inside of thinking.
    pub(super) fn begins_thinking(&self) -> bool {
        let after = |mark: &String| {
            let at = self.generation_prompt.rfind(mark)?;
            Some(at + mark.len())
        };
        let begun = after(&self.thinking_start).filter(|_| !self.thinking_start.is_empty());
        let ended = self.thinking_ends.iter().filter_map(after).max();
        begun > ended
    }

    /// Whether every answer is content and nothing else: the parser is the prompt's end, then any text.
    pub(super) fn is_content_only(&self) -> bool {
        #[derive(Deserialize)]
        struct Arena {
            parsers: Vec<Node>,
            root: usize,
        }
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Node {
            Epsilon,
            End,
            Literal {
                literal: String,
            },
            Sequence {
                children: Vec<usize>,
            },
            Tag {
                child: usize,
                tag: String,
            },
            Until {
                delimiters: Vec<String>,
            },
            #[serde(other)]
            Other,
        }
        if self.arena.len() > MAX_PLAIN_BYTES {
            return false;
        }
        let Ok(arena) = serde_json::from_str::<Arena>(&self.arena) else {
            return false;
        };
        let node = |id: usize| arena.parsers.get(id);
        let mut prefix = String::new();
        let mut contents = 0;
        let mut open = vec![arena.root];
        while let Some(id) = open.pop() {
            match node(id) {
                Some(Node::Sequence { children }) if open.len() < arena.parsers.len() => {
                    open.extend(children.iter().rev());
                }
                Some(Node::Epsilon | Node::End) => {}
                Some(Node::Literal { literal }) if contents == 0 => prefix.push_str(literal),
                Some(Node::Tag { child, tag }) if tag == "content" => match node(*child) {
                    Some(Node::Until { delimiters }) if delimiters.is_empty() => contents += 1,
                    _ => return false,
                },
                _ => return false,
            }
        }
        // A prompt's end that goes on beyond the prefix is the caller's own beginning of the answer.
        contents == 1 && self.generation_prompt.starts_with(&prefix)
    }
}

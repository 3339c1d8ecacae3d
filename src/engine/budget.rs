//! A budget of tokens to think with: once it is spent, the end of thinking is put in the model's mouth (pure).

use super::Token;

/// What a request may spend on thinking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Tokens between the marks.
    pub tokens: u32,
    /// The mark that opens thinking; `None`: the prompt has opened it.
    pub begin: Option<String>,
    /// Any of these marks closes it.
    pub ends: Vec<String>,
    /// What is said when the budget is spent; it closes thinking.
    pub close: Vec<Token>,
}

/// A budget being spent.
#[derive(Debug)]
pub(crate) struct Spending {
    budget: Budget,
    state: State,
    /// The latest bytes of the answer, enough of them for the longest mark.
    tail: Vec<u8>,
    longest_mark: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The mark may still come.
    Before,
    Thinking {
        left: u32,
    },
    /// So many tokens of the close have been said.
    Closing {
        said: usize,
    },
    Over,
}

impl Spending {
    pub(crate) fn new(budget: Budget) -> Self {
        let marks = budget.ends.iter().chain(&budget.begin);
        Self {
            longest_mark: marks.map(String::len).max().unwrap_or(0),
            state: match budget.begin {
                Some(_) => State::Before,
                None => State::Thinking {
                    left: budget.tokens,
                },
            },
            tail: Vec::new(),
            budget,
        }
    }

    /// The token that must come next, if there is no choice.
    pub(crate) fn forced(&self) -> Option<Token> {
        let said = match self.state {
            // In the middle of a character nothing else can begin.
            State::Thinking { left: 0 } if !splits_a_character(&self.tail) => 0,
            State::Closing { said } => said,
            _ => return None,
        };
        self.budget.close.get(said).copied()
    }

    /// The token that came, with its bytes.
    pub(crate) fn observe(&mut self, token: Token, bytes: &[u8]) {
        let forced = self.forced();
        self.tail.extend_from_slice(bytes);
        let spare = self.tail.len().saturating_sub(self.longest_mark.max(4));
        self.tail.drain(..spare);
        let ends_with = |mark: &String| !mark.is_empty() && self.tail.ends_with(mark.as_bytes());
        self.state = match self.state {
            State::Before if self.budget.begin.iter().any(ends_with) => State::Thinking {
                left: self.budget.tokens,
            },
            State::Thinking { .. } | State::Closing { .. }
                if self.budget.ends.iter().any(ends_with) =>
            {
                State::Over
            }
            State::Thinking { .. } if forced == Some(token) => State::Closing { said: 1 },
            State::Thinking { left } => State::Thinking {
                left: left.saturating_sub(1),
            },
            State::Closing { said } if said + 1 < self.budget.close.len() => {
                State::Closing { said: said + 1 }
            }
            State::Closing { .. } | State::Over => State::Over,
            State::Before => return,
        };
    }
}

fn splits_a_character(bytes: &[u8]) -> bool {
    // What begins in the middle of a character was cut off in front; only the end matters.
    let starts = bytes.iter().position(|byte| byte & 0xC0 != 0x80);
    std::str::from_utf8(&bytes[starts.unwrap_or(0)..])
        .is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(tokens: u32, begin: Option<&str>) -> Spending {
        Spending::new(Budget {
            tokens,
            begin: begin.map(str::to_owned),
            ends: vec!["</think>".to_owned(), "<tool>".to_owned()],
            close: vec![100, 101],
        })
    }

    /// What is said when the model wants `texts`; a forced token is written as its number.
    fn say(mut spending: Spending, texts: &[&[u8]]) -> Vec<String> {
        let mut said = Vec::new();
        let mut texts = texts.iter();
        loop {
            if let Some(token) = spending.forced() {
                let bytes: &[u8] = if token == 101 { b"</think>" } else { b"\n" };
                spending.observe(token, bytes);
                said.push(token.to_string());
            } else if let Some(text) = texts.next() {
                spending.observe(7, text);
                said.push(String::from_utf8_lossy(text).into_owned());
            } else {
                return said;
            }
        }
    }

    #[test]
    fn a_spent_budget_ends_the_thinking_and_nothing_after_it() {
        let said = say(
            budget(2, Some("<think>")),
            &[b"<thi", b"nk>", b"a", b"b", b"c", b"d"],
        );
        assert_eq!(said, ["<thi", "nk>", "a", "b", "100", "101", "c", "d"]);
        assert_eq!(say(budget(0, None), &[b"a"]), ["100", "101", "a"]);
    }

    #[test]
    fn who_ends_in_time_is_not_interrupted() {
        for end in [&[b"</th".as_slice(), b"ink>"][..], &[b"<tool>"]] {
            let texts = [&[b"a".as_slice()], end, &[b"b", b"c", b"d", b"e"]].concat();
            assert_eq!(say(budget(4, None), &texts).len(), texts.len());
        }
        assert_eq!(
            say(budget(1, Some("<think>")), &[b"a", b"b", b"c"]),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_character_is_spoken_to_its_end() {
        let said = say(budget(1, None), &[b"\xE2", b"\x82", b"\xAC", b"a"]);
        assert_eq!(said[3..], ["100", "101", "a"]);
    }
}

//! When an answer is long enough though the model would go on: after some time, or where lines go back to the left (pure).

use std::time::Duration;

/// What ends an answer beside its stop strings. By default nothing does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enough {
    /// Counted from the first token; the answer ends with the next line break after that.
    pub after: Option<Duration>,
    /// Spaces and tabs that every line but the first begins with; the answer ends where one has fewer.
    pub indent: u32,
}

/// Follows the lines of one answer.
#[derive(Debug)]
pub(crate) struct Lines {
    enough: Enough,
    /// Spaces and tabs of the present line so far; `None`: its first word has begun.
    margin: Option<u32>,
}

impl Lines {
    pub(crate) fn new(enough: Enough) -> Self {
        Self {
            enough,
            margin: None,
        }
    }

    /// Takes the text that comes next, `age` after the first token. `Some`: the answer ends, and so many bytes of
    /// the text belong to it.
    pub(crate) fn follow(&mut self, text: &str, age: Duration) -> Option<usize> {
        let Enough { after, indent } = self.enough;
        if indent > 0 {
            for (at, character) in text.char_indices() {
                match (&mut self.margin, character) {
                    (Some(margin), ' ' | '\t') => *margin += 1,
                    (Some(margin), _) if *margin < indent => return Some(at),
                    (margin, '\n') => *margin = Some(0),
                    (margin, _) => *margin = None,
                }
            }
        }
        let late = after.is_some_and(|after| age > after);
        (late && text.contains('\n')).then_some(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn an_answer_ends_where_a_line_is_less_indented_however_it_is_cut_into_pieces() {
        let whole = "a:\n    b\n\t   c\n  d\n    e";
        for cut in 0..whole.len() {
            let mut lines = Lines::new(Enough {
                indent: 4,
                after: None,
            });
            let (first, second) = whole.split_at(cut);
            let end = lines
                .follow(first, NOW)
                .or_else(|| lines.follow(second, NOW).map(|at| cut + at));
            assert_eq!(end.map(|at| &whole[..at]), Some("a:\n    b\n\t   c\n  "));
        }
    }

    #[test]
    fn after_its_time_an_answer_ends_with_the_next_line_break() {
        let mut lines = Lines::new(Enough {
            after: Some(Duration::from_secs(1)),
            indent: 0,
        });
        assert_eq!(lines.follow("a\n", NOW), None);
        assert_eq!(lines.follow("b", Duration::from_secs(2)), None);
        assert_eq!(lines.follow("c\n", Duration::from_secs(2)), Some(2));
    }

    #[test]
    fn without_a_wish_nothing_ends_an_answer() {
        let mut lines = Lines::new(Enough::default());
        assert_eq!(lines.follow("a\nb\n", Duration::MAX), None);
    }
}

//! Guesses of the prediction layers: the last known token with the state before it, then each guess with its own.

use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::{Heads, state_row};
use crate::engine::{
    draft::{Drafter, Guesses, UNSURE, Wish},
    llama::{
        guard::{self, StateRow},
        scores,
    },
    model::{DecodeError, Row, Vocab},
    slot::small,
};

/// A wish on its way.
struct Course {
    /// The row of the latest batch that tells the next token.
    row: Option<usize>,
    /// Chance that all guesses so far come true.
    sure: f32,
    guesses: Guesses,
}

impl Heads {
    fn logits(&self, row: usize) -> Option<&[f32]> {
        let row = i32::try_from(row).ok()?;
        // SAFETY: every row of a batch of guesses asks for logits; they are valid until the next one, which needs
        // `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context, row);
            (!logits.is_null())
                .then(|| std::slice::from_raw_parts(logits, self.weights.size() as usize))
        }
    }

    /// Those that can be guessed for, each with the row of its last token.
    fn set_out(&self, wishes: &[Wish<'_>]) -> (Vec<Course>, Vec<StateRow>, Vec<f32>) {
        let (mut courses, mut rows, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for wish in wishes {
            let last = wish.tokens.last().filter(|_| self.is_ready(wish));
            courses.push(Course {
                row: last.map(|_| rows.len()),
                sure: 1.0,
                guesses: Guesses {
                    ready: last.is_some(),
                    tokens: Vec::new(),
                },
            });
            if let Some(&token) = last {
                self.push_latest(wish.sequence, &mut states);
                rows.push(state_row(&Row {
                    token,
                    position: self.followed[wish.sequence as usize].end,
                    sequence: wish.sequence,
                    logits: true,
                }));
            }
        }
        (courses, rows, states)
    }

    fn is_ready(&self, wish: &Wish<'_>) -> bool {
        let end = self
            .followed
            .get(wish.sequence as usize)
            .map(|followed| followed.end);
        end.is_some_and(|end| end as usize + 1 == wish.tokens.len() && end + 1 < self.length)
    }

    /// The next token of each course that goes on, and the rows and states that continue them.
    fn choose(
        &self,
        courses: &mut [Course],
        rows: &[StateRow],
    ) -> Result<(Vec<StateRow>, Vec<f32>), DecodeError> {
        let (mut next, mut states) = (Vec::new(), Vec::new());
        for course in courses {
            let Some(at) = course.row.take() else {
                continue;
            };
            let refuse = |why: &str| DecodeError::Refused(format!("the prediction layers {why}"));
            let (token, likely) = self
                .logits(at)
                .and_then(scores::likeliest)
                .ok_or_else(|| refuse("computed no finite logits"))?;
            course.sure *= likely;
            if course.sure < UNSURE {
                continue;
            }
            course.guesses.tokens.push(token);
            let position = rows[at].position + 1;
            if self.weights.is_eog(token) || position.cast_unsigned() >= self.length {
                continue;
            }
            // SAFETY: the context is valid and shows the states of rows with logits.
            let state = unsafe { guard::state(self.context, at, self.width) };
            states.extend_from_slice(state.ok_or_else(|| refuse("show no state"))?);
            course.row = Some(next.len());
            next.push(StateRow {
                token,
                position,
                ..rows[at]
            });
        }
        Ok((next, states))
    }
}

impl Drafter for Heads {
    fn seconds(&self, sequences: usize, guesses: usize) -> f64 {
        let one = self.pace.seconds(small(sequences)).unwrap_or(0.0);
        (0..guesses).map(|_| one).sum()
    }

    fn seconds_behind(&self, wish: &Wish<'_>) -> Option<f64> {
        self.is_ready(wish).then_some(0.0)
    }

    fn guess(
        &mut self,
        wishes: &[Wish<'_>],
        most: usize,
        _patience: Duration, // everything is read by following
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Guesses>, DecodeError> {
        let (mut courses, mut rows, mut states) = self.set_out(wishes);
        for wish in wishes {
            // What was guessed for an earlier end.
            let end = self
                .followed
                .get(wish.sequence as usize)
                .map_or(0, |followed| followed.end);
            self.remove(wish.sequence, end);
        }
        for _ in 0..most {
            if rows.is_empty() {
                break;
            }
            if abandoned() {
                return Err(DecodeError::Abandoned);
            }
            let began = Instant::now();
            self.decode(&rows, &states)
                .map_err(|fault| DecodeError::Broken(format!("prediction layers: {fault:?}")))?;
            let next = self.choose(&mut courses, &rows)?;
            self.pace.observe(rows.len(), began.elapsed(), true);
            (rows, states) = next;
        }
        Ok(courses.into_iter().map(|course| course.guesses).collect())
    }
}

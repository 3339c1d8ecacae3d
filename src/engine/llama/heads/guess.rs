//! Guesses of the prediction layers: the last known token with the state before it, then each guess with its own.

use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use super::{Batch, Followed, Heads};
use crate::engine::{
    draft::{Drafter, Guesses, UNSURE, Wish},
    llama::{
        guard::{self, Fault, StateRow},
        scores,
    },
    model::{DecodeError, Vocab},
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
        // SAFETY: a course's row asked for logits; they are valid until the next batch, which needs `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context, row);
            (!logits.is_null())
                .then(|| std::slice::from_raw_parts(logits, self.weights.size() as usize))
        }
    }

    /// Those that can be guessed for, each with what it still waits for and its last token.
    fn set_out(&self, wishes: &[Wish<'_>]) -> (Vec<Course>, Batch) {
        let mut batch = Batch::default();
        let mut set_out = |wish: &Wish<'_>| {
            let last = wish.tokens.last().filter(|_| self.is_ready(wish));
            if let Some(&token) = last {
                let followed = &self.followed[wish.sequence as usize];
                followed.push_waiting(wish.sequence, &mut batch);
                followed.push_next(wish.sequence, token, &mut batch);
            }
            Course {
                row: last.map(|_| batch.rows.len() - 1),
                sure: 1.0,
                guesses: Guesses {
                    ready: last.is_some(),
                    tokens: Vec::new(),
                },
            }
        };
        (wishes.iter().map(&mut set_out).collect(), batch)
    }

    /// What waits fits into one batch with what is asked next.
    fn make_room(&mut self, wishes: &[Wish<'_>]) -> Result<(), Fault> {
        let waiting = |wish: &Wish<'_>| {
            let followed = self.followed.get(wish.sequence as usize);
            followed.map_or(0, Followed::waiting) + 1
        };
        if wishes.iter().map(waiting).sum::<usize>() > self.room {
            for wish in wishes {
                if self.is_ready(wish) {
                    self.catch_up(wish.sequence)?;
                }
            }
        }
        Ok(())
    }

    fn is_ready(&self, wish: &Wish<'_>) -> bool {
        let end = self.followed.get(wish.sequence as usize).map(Followed::end);
        end.is_some_and(|end| end as usize + 1 == wish.tokens.len() && end + 1 < self.length)
    }

    /// The next token of each course that goes on, and what continues them.
    fn choose(&self, courses: &mut [Course], batch: &Batch) -> Result<Batch, DecodeError> {
        let mut next = Batch::default();
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
            let row = batch.rows[at];
            let position = row.position + 1;
            if self.weights.is_eog(token) || position.cast_unsigned() >= self.length {
                continue;
            }
            // SAFETY: the context is valid and shows the states of rows with logits.
            let state = unsafe { guard::state(self.context, at, self.width) };
            let state = state.ok_or_else(|| refuse("show no state"))?;
            next.states.extend_from_slice(state);
            course.row = Some(next.rows.len());
            next.rows.push(StateRow {
                token,
                position,
                ..row
            });
        }
        Ok(next)
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
        let broken = |fault| DecodeError::Broken(format!("prediction layers: {fault:?}"));
        self.make_room(wishes).map_err(broken)?;
        let (mut courses, mut batch) = self.set_out(wishes);
        let ready = wishes.iter().filter(|wish| self.is_ready(wish));
        let ready: Vec<_> = ready.map(|wish| wish.sequence).collect();
        for &sequence in &ready {
            // What was guessed for an earlier end.
            self.remove(sequence, self.followed[sequence as usize].computed());
        }
        for guessed in 0..most {
            if batch.rows.is_empty() {
                break;
            }
            if abandoned() {
                return Err(DecodeError::Abandoned);
            }
            let began = Instant::now();
            self.decode(&batch.rows, &batch.states).map_err(broken)?;
            if guessed == 0 {
                for &sequence in &ready {
                    self.followed[sequence as usize].caught_up();
                }
            }
            let next = self.choose(&mut courses, &batch)?;
            self.pace.observe(batch.rows.len(), began.elapsed(), true);
            batch = next;
        }
        Ok(courses.into_iter().map(|course| course.guesses).collect())
    }
}

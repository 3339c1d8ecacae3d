//! A smaller model as drafter: it keeps in step with what sequences hold by comparing tokens, and continues them greedily.

use std::time::{Duration, Instant};

use super::{Drafter, Guesses, UNSURE, Wish};
use crate::engine::{
    Token,
    model::{DecodeError, Model, Row},
    pace::Pace,
    prefix::common,
    slot::small,
};

/// So few tokens are read in a step whatever that takes: those of guesses that came true, and some more.
const READ_ANYWAY: u32 = 32;

/// A model of its own, whose caches follow those of the model that it guesses for.
pub struct Companion<M: Model> {
    model: M,
    /// What the cache of each sequence holds.
    held: Vec<Vec<Token>>,
    pace: Pace,
}

/// A wish on its way.
struct Course {
    sequence: usize,
    /// The row of the latest decode that tells the next token.
    row: Option<usize>,
    /// Chance that all guesses so far come true.
    sure: f32,
    guesses: Guesses,
}

impl<M: Model> Companion<M> {
    /// The model's state can be cut at any token.
    pub fn new(model: M) -> Self {
        debug_assert!(model.cuts_anywhere(), "such a model is refused by the plan");
        Self {
            held: vec![Vec::new(); model.sequences() as usize],
            pace: Pace::default(),
            model,
        }
    }

    /// Tokens at the beginning of the sequence that its cache holds. Its last one is always computed again: what follows
    /// it is wanted.
    fn reach(&self, wish: &Wish<'_>) -> usize {
        let held = &self.held[wish.sequence as usize];
        let reach = if wish.tokens.starts_with(held) {
            held.len()
        } else {
            common(held, wish.tokens)
        };
        reach.min(wish.tokens.len().saturating_sub(1))
    }

    fn fits(&self, wish: &Wish<'_>) -> bool {
        let size = usize::try_from(self.model.vocab().size()).unwrap_or(usize::MAX);
        let knows = |token: &Token| usize::try_from(*token).is_ok_and(|id| id < size);
        (wish.sequence as usize) < self.held.len()
            && wish.tokens.len() < self.model.context() as usize
            // The two vocabularies may differ in what lies behind their texts.
            && wish.tokens.last().is_some_and(knows)
    }

    /// Forgets what of the cache is not the sequence's beginning. Gives how much is.
    fn cut(&mut self, wish: &Wish<'_>) -> usize {
        let reach = self.reach(wish);
        let held = &mut self.held[wish.sequence as usize];
        if held.len() > reach {
            let whole = self.model.truncate(wish.sequence, small(reach));
            held.truncate(if whole { reach } else { 0 });
        }
        held.len()
    }

    /// Reads what is missing, a ubatch at most for all sequences together and no longer than `patience`; those that miss
    /// least go first.
    fn read(
        &mut self,
        wishes: &[Wish<'_>],
        patience: Duration,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Course>, DecodeError> {
        let mut shares: Vec<(usize, usize)> = Vec::new();
        for wish in wishes {
            let missing = if self.fits(wish) {
                wish.tokens.len() - self.cut(wish)
            } else {
                0
            };
            shares.push((missing, 0));
        }
        let most = small(self.model.ubatch());
        let room = self.pace.rows_beside_streams(patience, most);
        let mut room = room.max(READ_ANYWAY).min(most) as usize;
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by_key(|&at| shares[at].0);
        for at in order {
            let (missing, share) = &mut shares[at];
            *share = room.min(*missing);
            room -= *share;
        }
        let mut rows = Vec::new();
        let mut courses = Vec::new();
        for (wish, (missing, share)) in wishes.iter().zip(shares) {
            let sequence = wish.sequence as usize;
            let held = self.held[sequence].len();
            let ready = missing > 0 && share == missing;
            rows.extend(wish.tokens[held..held + share].iter().zip(held..).map(
                |(&token, position)| Row {
                    token,
                    position: small(position),
                    sequence: wish.sequence,
                    logits: ready && position + 1 == wish.tokens.len(),
                },
            ));
            courses.push(Course {
                sequence,
                row: ready.then(|| rows.len() - 1),
                sure: 1.0,
                guesses: Guesses {
                    ready,
                    tokens: Vec::new(),
                },
            });
        }
        self.decode(&rows, abandoned)?;
        Ok(courses)
    }

    fn decode(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        if rows.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.model.decode(rows, abandoned)?;
        self.pace.observe(rows.len(), began.elapsed(), true);
        for row in rows {
            self.held[row.sequence as usize].push(row.token);
        }
        Ok(())
    }

    /// The next token of each course that goes on. Gives the rows that continue them.
    fn choose(&mut self, courses: &mut [Course]) -> Result<Vec<Row>, DecodeError> {
        let mut rows = Vec::new();
        for course in courses {
            let Some(row) = course.row.take() else {
                continue;
            };
            let Some((token, likely)) = self.model.likeliest(row) else {
                let why = "the draft model computed no finite logits";
                return Err(DecodeError::Refused(why.into()));
            };
            course.sure *= likely;
            if course.sure < UNSURE {
                continue;
            }
            course.guesses.tokens.push(token);
            let position = self.held[course.sequence].len();
            if self.model.vocab().is_eog(token) || position + 1 >= self.model.context() as usize {
                continue;
            }
            course.row = Some(rows.len());
            rows.push(Row {
                token,
                position: small(position),
                sequence: small(course.sequence),
                logits: true,
            });
        }
        Ok(rows)
    }

    fn go(
        &mut self,
        wishes: &[Wish<'_>],
        most: usize,
        patience: Duration,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Guesses>, DecodeError> {
        let mut courses = self.read(wishes, patience, abandoned)?;
        for guessed in 1..=most {
            let rows = self.choose(&mut courses)?;
            if rows.is_empty() || guessed == most {
                break;
            }
            self.decode(&rows, abandoned)?;
        }
        Ok(courses.into_iter().map(|course| course.guesses).collect())
    }

    /// A batch was cut short: what the caches hold is not known any more.
    fn forget(&mut self) {
        for (sequence, held) in self.held.iter_mut().enumerate() {
            held.clear();
            self.model.truncate(small(sequence), 0);
        }
    }
}

impl<M: Model> Drafter for Companion<M> {
    fn seconds(&self, sequences: usize, guesses: usize) -> f64 {
        let one = self.pace.seconds(small(sequences)).unwrap_or(0.0);
        (0..guesses).map(|_| one).sum()
    }

    fn seconds_behind(&self, wish: &Wish<'_>) -> Option<f64> {
        if !self.fits(wish) {
            return None;
        }
        let missing = wish.tokens.len() - self.reach(wish);
        Some(self.pace.seconds(small(missing)).unwrap_or(0.0))
    }

    fn guess(
        &mut self,
        wishes: &[Wish<'_>],
        most: usize,
        patience: Duration,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Guesses>, DecodeError> {
        let outcome = self.go(wishes, most, patience, abandoned);
        if outcome == Err(DecodeError::Abandoned) {
            self.forget();
        }
        outcome
    }
}

#[cfg(test)]
mod tests;

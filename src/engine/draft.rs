//! Who guesses what sequences will say next: the seam behind which a smaller model does, or a model's prediction layers.

mod companion;

pub use companion::Companion;

use std::time::Duration;

use super::{Token, model::DecodeError};

/// Below this chance that all that was guessed so far comes true a drafter stops guessing.
pub(crate) const UNSURE: f32 = 0.3;

/// A sequence that wants guesses.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub sequence: u32,
    /// The whole sequence as it is known: text alone, nothing of an image.
    pub tokens: &'a [Token],
}

/// Guesses for one wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guesses {
    /// Whether the drafter was ready for this sequence; otherwise it has still to read some of it.
    pub ready: bool,
    /// Fewer than were asked for where the drafter is not sure.
    pub tokens: Vec<Token>,
}

/// Guesses what comes next. Nothing is trusted that it says: the model's sampler decides over each guess.
pub trait Drafter {
    /// Seconds that so many guesses for so many sequences probably take; 0: nothing is known yet.
    fn seconds(&self, sequences: usize, guesses: usize) -> f64;
    /// Seconds until it could guess for the sequence; `None`: never, because the sequence is too long for it.
    fn seconds_behind(&self, wish: &Wish<'_>) -> Option<f64>;
    /// At most `most` tokens that may come next, for each wish in its place; the sequences rise.
    ///
    /// Of sequences that it has not read yet it reads as much as `patience` allows, since others wait meanwhile.
    ///
    /// # Errors
    /// Nothing was guessed. After [`DecodeError::Abandoned`] it may be asked again, after anything else not.
    fn guess(
        &mut self,
        wishes: &[Wish<'_>],
        most: usize,
        patience: Duration,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Guesses>, DecodeError>;
}

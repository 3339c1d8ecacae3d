//! What a sequence computes next, and the rows of it.

use super::{Slot, small};
use crate::engine::{
    Scaled, Set,
    media::{self, Attention, ImageRows},
    model::Row,
    plan::Work,
};

/// More tokens than this at once are computed like a prompt, in turn with others.
const MOST_AT_ONCE: usize = 8;

impl<S> Slot<S> {
    /// What is to be computed next; `None`: nothing, or it waits for another sequence. `grid` as in [`Cuts`].
    ///
    /// [`Cuts`]: crate::engine::prefix::Cuts
    pub(crate) fn work(&self, grid: usize) -> Option<Work> {
        let active = self.active.as_ref()?;
        let computed = self.computed();
        let pending = active.tokens.len() - computed;
        if active.follows.is_some() || pending == 0 {
            return None;
        }
        let prompt = active.job.prompt.len();
        if let Some(placed) = media::image_at(&active.job.media, computed) {
            return Some(Work::Image {
                left: small(placed.at + placed.image.rows() - computed),
                whole: placed.image.attention() == Attention::Whole,
                turn: self.admission,
            });
        }
        if self.is_scoring() {
            return Some(Work::Scored {
                left: small(prompt - computed),
                turn: self.admission,
            });
        }
        if computed >= prompt && grid > 1 {
            // One after the other, as they were computed when they were generated.
            return Some(Work::Decode {
                rows: 1,
                whole: true,
            });
        }
        if computed >= prompt && pending <= MOST_AT_ONCE {
            return Some(Work::Decode {
                rows: small(pending + active.guesses.len()),
                whole: !active.guesses.is_empty(),
            });
        }
        let mut end = active.tokens.len();
        if grid > 1 {
            end = (computed + grid - computed % grid).min(prompt);
        }
        if let Some(&border) = active.borders.iter().find(|&&border| border > computed) {
            end = end.min(border);
        }
        if let Some(image) = media::next_image(&active.job.media, computed) {
            end = end.min(image);
        }
        if let Some(border) = active.job.adapters.border(computed) {
            end = end.min(border);
        }
        Some(Work::Prefill {
            left: small(pending),
            until: small(end - computed),
            turn: self.admission,
        })
    }

    /// The adapters with which the next token is computed.
    pub(crate) fn adapters(&self) -> (Set, &[Scaled]) {
        let computed = self.computed();
        self.active.as_ref().map_or((Set::PLAIN, &[]), |active| {
            let adapters = &active.job.adapters;
            (adapters.set_at(computed), adapters.scaled_at(computed))
        })
    }

    /// Whether what is computed next is a prompt whose every token is wanted with its log-probability.
    pub(crate) fn is_scoring(&self) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|it| it.job.score_prompt && self.computed() < it.job.prompt.len())
    }

    /// The next `count` rows to compute; the row of the last known token asks for logits, and every guess after it.
    pub(crate) fn rows(&self, count: usize) -> impl Iterator<Item = Row> {
        let known = self
            .active
            .as_ref()
            .map_or(&[][..], |active| &active.tokens);
        let guesses = self
            .active
            .as_ref()
            .map_or(&[][..], |active| &active.guesses);
        // Of a prompt that is scored every row asks.
        let first_output = if self.is_scoring() {
            0
        } else {
            known.len().saturating_sub(1)
        };
        let first = self.computed();
        let behind = first - self.position();
        let tokens = known[first..].iter().chain(guesses).take(count);
        (first..).zip(tokens).map(move |(at, &token)| Row {
            token,
            position: small(at - behind),
            sequence: self.sequence,
            logits: at >= first_output,
        })
    }

    /// The next `count` rows to compute, if they are those of an image.
    pub(crate) fn image_rows(&self, count: usize) -> Option<ImageRows<'_>> {
        let active = self.active.as_ref()?;
        let computed = self.computed();
        let placed = media::image_at(&active.job.media, computed)?;
        Some(ImageRows {
            sequence: self.sequence,
            position: small(media::position(&active.tokens, placed.at)),
            image: &placed.image,
            first: computed - placed.at,
            count,
            logits: computed + count == active.tokens.len(),
        })
    }

    /// The position of the next token to compute, which is not inside of an image.
    pub(crate) fn position(&self) -> usize {
        match &self.active {
            Some(active) if !active.job.media.is_empty() => self.prefix.position(self.computed()),
            _ => self.computed(),
        }
    }
}

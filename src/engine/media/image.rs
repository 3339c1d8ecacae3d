//! An image: what a projector makes of a picture or a sound, rows of numbers in place of tokens, and the tokens that stand
//! for it.
//!
//! A placeholder is a negative token id, most of it a piece of the image's digest. So sequences with images are compared
//! as sequences of tokens are, and equal placeholders mean the same image.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::engine::Token;

/// SHA-256 of what an image was made of.
pub type MediumDigest = [u8; 32];

/// A part of a picture or a sound as the model takes it: rows of numbers in place of tokens.
pub struct Image {
    digest: MediumDigest,
    layout: Layout,
    attention: Attention,
    rows: usize,
    /// Numbers of one row.
    width: usize,
    embeddings: Vec<f32>,
}

/// Where an image's rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One position a row, as text.
    Line,
    /// In two dimensions, over each other in time (M-RoPE): what follows begins where the longer side ends.
    Grid { columns: u32 },
}

/// What the rows of an image see of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Those before them.
    Causal,
    /// All of them, which are therefore computed at once.
    Whole,
}

/// Set in the first placeholder of an image only.
pub(super) const FIRST: i32 = 1 << 30;
/// Set in as many placeholders of an image as it takes positions.
pub(super) const STEP: i32 = 1 << 29;
const DIGEST_BITS: u32 = (1 << 29) - 1;

impl Image {
    /// `digest` names the medium, `part` counts what it was divided into. `None`: there are no rows, or they are not
    /// all of one width.
    pub fn new(
        digest: &MediumDigest,
        part: u32,
        layout: Layout,
        attention: Attention,
        width: usize,
        embeddings: Vec<f32>,
    ) -> Option<Self> {
        let rows = embeddings.len().checked_div(width)?;
        let columns = match layout {
            Layout::Line => 1,
            Layout::Grid { columns } => columns as usize,
        };
        let whole = rows > 0 && rows * width == embeddings.len();
        (whole && rows.checked_rem(columns) == Some(0)).then(|| Self {
            digest: Sha256::new()
                .chain_update(digest)
                .chain_update(part.to_le_bytes())
                .finalize()
                .into(),
            layout,
            attention,
            rows,
            width,
            embeddings,
        })
    }

    /// Tokens that the image takes of the context.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of each row.
    pub fn width(&self) -> usize {
        self.width
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub fn attention(&self) -> Attention {
        self.attention
    }

    /// Bytes in host memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.embeddings)
    }

    /// The numbers of `count` rows from `first` on; `None`: there are not so many.
    pub fn embeddings(&self, first: usize, count: usize) -> Option<&[f32]> {
        let end = first.checked_add(count)?.checked_mul(self.width)?;
        self.embeddings.get(first * self.width..end)
    }

    /// Positions that the image takes of the sequence.
    fn positions(&self) -> usize {
        match self.layout {
            Layout::Line => self.rows,
            Layout::Grid { columns } => {
                let columns = columns as usize;
                columns.max(self.rows / columns)
            }
        }
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = Token> {
        const WORDS: usize = 8;
        let positions = self.positions();
        let mut block = [0; 32];
        (0..self.rows).map(move |row| {
            if row % WORDS == 0 {
                block = Sha256::new()
                    .chain_update(self.digest)
                    .chain_update((row / WORDS).to_le_bytes())
                    .finalize()
                    .into();
            }
            let (words, _) = block.as_chunks();
            let word = u32::from_le_bytes(words[row % WORDS]) & DIGEST_BITS;
            let first = if row == 0 { FIRST } else { 0 };
            let step = if row < positions { STEP } else { 0 };
            i32::MIN | first | step | word.cast_signed()
        })
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layout,
            attention,
            rows,
            width,
            ..
        } = self;
        write!(f, "Image({rows} × {width}, {layout:?}, {attention:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_picture_are_different_images() {
        let part = |part| {
            Image::new(
                &[1; 32],
                part,
                Layout::Line,
                Attention::Causal,
                1,
                vec![0.0; 9],
            )
            .unwrap()
        };
        let words: Vec<Vec<_>> = [part(0), part(1)]
            .iter()
            .map(|image| image.placeholders().collect())
            .collect();
        assert!(words[0].iter().zip(&words[1]).all(|(a, b)| a != b));
    }

    #[test]
    fn rows_that_are_not_whole_are_no_image() {
        let with = |width, numbers| {
            let layout = Layout::Grid { columns: 2 };
            Image::new(
                &[0; 32],
                0,
                layout,
                Attention::Causal,
                width,
                vec![0.0; numbers],
            )
            .is_some()
        };
        assert!(with(3, 12));
        assert!(!with(3, 11));
        assert!(!with(3, 9), "half a row of the grid");
        assert!(!with(3, 0));
        assert!(!with(0, 0));
    }
}

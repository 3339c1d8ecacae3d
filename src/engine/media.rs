//! Images among a prompt's tokens (pure): the tokens that stand for them, and the places in the sequence that they take.
//!
//! A placeholder is a negative token id, most of it a piece of the image's digest. So sequences with images are compared
//! as sequences of tokens are, and equal placeholders mean the same image.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

use super::Token;

/// SHA-256 of what an image was made of.
pub type ImageDigest = [u8; 32];

/// A part of a picture as the model takes it: rows of numbers in place of tokens.
pub struct Image {
    digest: ImageDigest,
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

/// An image at its place in a prompt.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Index of its first placeholder.
    pub at: usize,
    pub image: Arc<Image>,
}

/// Rows of an image to compute, of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct ImageRows<'a> {
    pub sequence: u32,
    /// Of the image's first row.
    pub position: u32,
    pub image: &'a Image,
    /// The first of the rows.
    pub first: usize,
    pub count: usize,
    /// Whether the logits of the last one will be read.
    pub logits: bool,
}

/// A prompt under construction.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    pub tokens: Vec<Token>,
    pub media: Vec<Placed>,
}

/// Set in the first placeholder of an image only.
const FIRST: i32 = 1 << 30;
/// Set in as many placeholders of an image as it takes positions.
const STEP: i32 = 1 << 29;
const DIGEST_BITS: u32 = (1 << 29) - 1;

impl Image {
    /// `digest` names the picture, `part` counts what it was divided into. `None`: there are no rows, or they are not
    /// all of one width.
    pub fn new(
        digest: &ImageDigest,
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

    fn placeholders(&self) -> impl Iterator<Item = Token> {
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

impl Prompt {
    pub fn text(&mut self, tokens: &[Token]) {
        self.tokens.extend_from_slice(tokens);
    }

    pub fn image(&mut self, image: &Arc<Image>) {
        self.media.push(Placed {
            at: self.tokens.len(),
            image: Arc::clone(image),
        });
        self.tokens.extend(image.placeholders());
    }
}

/// Whether a token stands for a row of an image.
pub(crate) fn is_placeholder(token: Token) -> bool {
    token < 0
}

/// Whether a sequence may not be cut before this token: the image would be cut in two.
fn continues(token: Token) -> bool {
    is_placeholder(token) && token & FIRST == 0
}

/// The latest place at or before `at` that is not inside of an image.
pub(crate) fn whole(tokens: &[Token], mut at: usize) -> usize {
    while at > 0 && tokens.get(at).is_some_and(|&token| continues(token)) {
        at -= 1;
    }
    at
}

/// The position of the token at `at`, which is not inside of an image.
pub(crate) fn position(tokens: &[Token], at: usize) -> usize {
    let stands = |token: &&Token| is_placeholder(**token) && **token & STEP == 0;
    at - tokens[..at].iter().filter(stands).count()
}

/// The image that holds the token at `at`.
pub(crate) fn image_at(media: &[Placed], at: usize) -> Option<&Placed> {
    let before = media.partition_point(|placed| placed.at <= at);
    let placed = media[..before].last()?;
    (at < placed.at + placed.image.rows()).then_some(placed)
}

/// Where the next image after `at` begins.
pub(crate) fn next_image(media: &[Placed], at: usize) -> Option<usize> {
    let before = media.partition_point(|placed| placed.at <= at);
    media.get(before).map(|placed| placed.at)
}

/// A token that neither the vocabulary has nor an image stands behind.
pub(crate) fn stray(prompt: &[Token], media: &[Placed], vocab: u32) -> Option<Token> {
    let outside = |token: Token| u32::try_from(token).map_or(true, |id| id >= vocab);
    prompt
        .iter()
        .enumerate()
        .find(|&(at, &token)| {
            outside(token) && (!is_placeholder(token) || image_at(media, at).is_none())
        })
        .map(|(_, &token)| token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: u8, layout: Layout, rows: usize) -> Arc<Image> {
        let embeddings = vec![0.5; rows * 3];
        Arc::new(Image::new(&[name; 32], 0, layout, Attention::Causal, 3, embeddings).unwrap())
    }

    fn prompt(images: &[&Arc<Image>]) -> Prompt {
        let mut prompt = Prompt::default();
        for image in images {
            prompt.text(&[7, 8]);
            prompt.image(image);
        }
        prompt.text(&[9]);
        prompt
    }

    #[test]
    fn the_same_image_has_the_same_placeholders_and_another_one_has_none_in_common() {
        let (a, again, b) = (
            image(1, Layout::Line, 20),
            image(1, Layout::Line, 20),
            image(2, Layout::Line, 20),
        );
        assert_eq!(prompt(&[&a]).tokens, prompt(&[&again]).tokens);
        let others = prompt(&[&b]).tokens;
        let common = prompt(&[&a])
            .tokens
            .iter()
            .zip(&others)
            .filter(|(a, b)| a == b)
            .count();
        assert_eq!(common, 3, "only the text");
    }

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
    fn no_cut_goes_through_an_image() {
        let prompt = prompt(&[&image(1, Layout::Line, 4), &image(2, Layout::Line, 2)]);
        let places: Vec<_> = (0..=prompt.tokens.len())
            .map(|at| whole(&prompt.tokens, at))
            .collect();
        assert_eq!(places, [0, 1, 2, 2, 2, 2, 6, 7, 8, 8, 10, 11]);
    }

    #[test]
    fn neighbouring_images_are_cut_between() {
        let mut prompt = Prompt::default();
        prompt.image(&image(1, Layout::Line, 3));
        prompt.image(&image(2, Layout::Line, 3));
        assert_eq!(whole(&prompt.tokens, 3), 3);
        assert_eq!(whole(&prompt.tokens, 5), 3);
        assert_eq!(whole(&prompt.tokens, 2), 0);
    }

    #[test]
    fn a_grid_takes_the_positions_of_its_longer_side() {
        let grid = image(1, Layout::Grid { columns: 2 }, 8);
        let prompt = prompt(&[&grid, &image(2, Layout::Line, 3)]);
        assert_eq!(position(&prompt.tokens, 2), 2);
        assert_eq!(position(&prompt.tokens, 10), 6);
        assert_eq!(
            position(&prompt.tokens, prompt.tokens.len()),
            prompt.tokens.len() - 4
        );
    }

    #[test]
    fn placeholders_without_an_image_are_strays() {
        let prompt = prompt(&[&image(1, Layout::Line, 4)]);
        assert_eq!(stray(&prompt.tokens, &prompt.media, 10), None);
        assert_eq!(stray(&prompt.tokens, &[], 10), Some(prompt.tokens[2]));
        assert_eq!(stray(&prompt.tokens, &prompt.media, 9), Some(9));
        assert_eq!(stray(&[-1], &prompt.media, 9), Some(-1));
    }

    #[test]
    fn images_are_found_by_the_places_they_take() {
        let prompt = prompt(&[&image(1, Layout::Line, 4), &image(2, Layout::Line, 2)]);
        let found: Vec<_> = (0..prompt.tokens.len())
            .map(|at| image_at(&prompt.media, at).map(|placed| placed.at))
            .collect();
        let (a, b) = (Some(2), Some(8));
        assert_eq!(found, [None, None, a, a, a, a, None, None, b, b, None]);
        assert_eq!(next_image(&prompt.media, 0), a);
        assert_eq!(next_image(&prompt.media, 2), b);
        assert_eq!(next_image(&prompt.media, 8), None);
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

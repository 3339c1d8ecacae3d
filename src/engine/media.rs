//! Images among a prompt's tokens (pure): the places in the sequence that they take.

mod image;

use std::sync::Arc;

pub use self::image::{Attention, Image, Layout, MediumDigest};
use self::image::{FIRST, STEP};
use super::Token;

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
}

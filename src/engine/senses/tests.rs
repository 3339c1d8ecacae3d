//! What is kept of what was perceived, and for whom.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::engine::media::{Attention, Layout};

const ROW: usize = 1000;

fn picture(name: u8) -> Medium {
    Medium::Picture(Picture {
        digest: [name; 32],
        width: 1,
        height: 1,
        rgb: vec![name; 3],
    })
}

/// Makes an image of one row of 4000 bytes of everything but picture 99. Counts how often it perceives.
fn senses(budget: usize) -> (Senses, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&times);
    let faculties = Faculties {
        sees: true,
        hears: Some(16_000),
    };
    let perceive = move |medium: &Medium| {
        counter.fetch_add(1, Ordering::Relaxed);
        if medium.digest() == [99; 32] {
            return Err(Unperceived::Refused("too ugly".into()));
        }
        let numbers = vec![0.0; ROW];
        let (line, causal) = (Layout::Line, Attention::Causal);
        let image = Image::new(&medium.digest(), 0, line, causal, ROW, numbers).unwrap();
        Ok(vec![
            Segment::Text(vec![1]),
            Segment::Image(Arc::new(image)),
        ])
    };
    let senses = start(budget, move || Ok::<_, Infallible>((faculties, perceive)));
    (senses.unwrap(), times)
}

#[tokio::test]
async fn what_is_sent_is_perceived_once_for_each_owner_of_caches() {
    let (senses, times) = senses(1 << 20);
    for _ in 0..3 {
        senses.perceive(1, picture(5)).await.unwrap();
    }
    assert_eq!(times.load(Ordering::Relaxed), 1);
    assert!(senses.known(1, [5; 32]).is_some());
    assert!(senses.known(2, [5; 32]).is_none());
    senses.perceive(2, picture(5)).await.unwrap();
    assert_eq!(times.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_kept_stays_in_its_budget_and_the_longest_unused_goes_first() {
    let (senses, _) = senses(3 * 4400);
    for name in [1, 2, 3] {
        senses.perceive(1, picture(name)).await.unwrap();
    }
    assert!(senses.known(1, [1; 32]).is_some());
    senses.perceive(1, picture(4)).await.unwrap();
    assert!(senses.kept_bytes() <= 3 * 4400);
    let kept = [1, 2, 3, 4].map(|name| senses.known(1, [name; 32]).is_some());
    assert_eq!(kept, [true, false, true, true]);
}

#[tokio::test]
async fn without_a_budget_nothing_is_kept_and_everything_is_perceived() {
    let (senses, times) = senses(0);
    senses.perceive(1, picture(1)).await.unwrap();
    senses.perceive(1, picture(1)).await.unwrap();
    assert_eq!((senses.kept_bytes(), times.load(Ordering::Relaxed)), (0, 2));
}

#[tokio::test]
async fn a_refused_picture_is_refused_and_the_next_one_is_not() {
    let (senses, _) = senses(1 << 20);
    let refused = senses.perceive(1, picture(99)).await;
    assert_eq!(
        refused.unwrap_err(),
        Unperceived::Refused("too ugly".into())
    );
    assert!(senses.perceive(1, picture(1)).await.is_ok());
}

#[tokio::test]
async fn a_sound_is_kept_as_a_picture_is() {
    let (senses, times) = senses(1 << 20);
    let sound = || {
        Medium::Sound(Sound {
            digest: [7; 32],
            samples: vec![0.0; 9],
        })
    };
    for _ in 0..2 {
        senses.perceive(1, sound()).await.unwrap();
    }
    assert_eq!(times.load(Ordering::Relaxed), 1);
}

#[test]
fn what_was_perceived_lies_in_the_prompt_in_its_order() {
    let image = |part| {
        let (line, causal) = (Layout::Line, Attention::Causal);
        Arc::new(Image::new(&[1; 32], part, line, causal, 1, vec![0.0; 2]).unwrap())
    };
    let perceived = [
        Segment::Text(vec![10]),
        Segment::Image(image(0)),
        Segment::Text(vec![11]),
        Segment::Image(image(1)),
        Segment::Text(vec![12]),
    ];
    let mut prompt = Prompt::default();
    prompt.text(&[1]);
    place(&perceived, &mut prompt);
    let text: Vec<_> = prompt.tokens.iter().map(|&token| token.max(-1)).collect();
    assert_eq!(text, [1, 10, -1, -1, 11, -1, -1, 12]);
    let places: Vec<_> = prompt.media.iter().map(|placed| placed.at).collect();
    assert_eq!(places, [2, 5]);
}

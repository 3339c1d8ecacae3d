//! How far the prediction layers follow one sequence, and the batches that bring them on (pure).

use crate::engine::{Token, llama::guard::StateRow, slot::small};

/// Hidden states that are kept of a sequence: so many tokens can be taken back without loss.
const KEPT: usize = 32;

/// What is known of one sequence.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    /// Numbers of a hidden state.
    width: usize,
    /// Position of the next token to follow.
    end: u32,
    /// Hidden states of the latest tokens before it, one after the other.
    states: Vec<f32>,
    /// The latest tokens before it that the prediction layers have not computed yet. Of each of them the state is kept.
    waiting: Vec<Token>,
}

/// Rows to compute, each with the hidden state of the token before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<StateRow>,
    pub(super) states: Vec<f32>,
}

impl Followed {
    pub(super) fn new(width: usize) -> Self {
        Self {
            width,
            end: 0,
            states: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn end(&self) -> u32 {
        self.end
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Position of the next token to compute.
    pub(super) fn computed(&self) -> u32 {
        self.end - small(self.waiting.len())
    }

    /// The model computed one more token, and this is its state.
    pub(super) fn push(&mut self, token: Token, state: &[f32]) {
        self.states.extend_from_slice(state);
        self.waiting.push(token);
        self.end += 1;
    }

    /// Goes on at `position` with the state before it, if that is known; nothing waits.
    pub(super) fn go_on(&mut self, position: u32, state: Vec<f32>) {
        self.end = position;
        self.states = state;
        self.waiting.clear();
    }

    /// Forgets positions `from..`.
    pub(super) fn truncate(&mut self, from: u32) {
        let gone = self.end.saturating_sub(from);
        self.end -= gone;
        let gone = gone as usize;
        let left = self.states.len().saturating_sub(gone * self.width);
        self.states.truncate(left);
        self.waiting
            .truncate(self.waiting.len().saturating_sub(gone));
    }

    /// What waits, and its place in the sequence.
    pub(super) fn push_waiting(&self, sequence: u32, batch: &mut Batch) {
        for (back, &token) in (0..self.waiting.len()).rev().zip(&self.waiting) {
            self.push_row(sequence, token, back + 1, batch);
        }
    }

    /// A token that may come next, whose successor is asked for.
    pub(super) fn push_next(&self, sequence: u32, token: Token, batch: &mut Batch) {
        self.push_row(sequence, token, 0, batch);
        if let Some(row) = batch.rows.last_mut() {
            row.logits = true;
        }
    }

    /// A row `back` positions before the end.
    fn push_row(&self, sequence: u32, token: Token, back: usize, batch: &mut Batch) {
        batch.rows.push(StateRow {
            token,
            position: (self.end - small(back)).cast_signed(),
            sequence: sequence.cast_signed(),
            logits: false,
        });
        self.push_state(back, &mut batch.states);
    }

    /// The state of the token before the place `back` positions before the end; zeros where that is not known.
    pub(super) fn push_state(&self, back: usize, states: &mut Vec<f32>) {
        let end = self.states.len().checked_sub(back * self.width);
        let known = end.and_then(|end| Some(end.checked_sub(self.width)?..end));
        match known {
            Some(known) => states.extend_from_slice(&self.states[known]),
            None => states.resize(states.len() + self.width, 0.0),
        }
    }

    /// All that waited is computed.
    pub(super) fn caught_up(&mut self) {
        self.waiting.clear();
        let kept = KEPT * self.width;
        if self.states.len() >= 2 * kept {
            self.states.drain(..self.states.len() - kept);
        }
    }
}

impl Batch {
    /// In parts of at most `room` rows.
    pub(super) fn parts(
        &self,
        room: usize,
        width: usize,
    ) -> impl Iterator<Item = (&[StateRow], &[f32])> {
        let room = room.max(1);
        let states = self.states.chunks((room * width).max(1));
        self.rows.chunks(room).zip(states)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 2;

    /// A sequence whose token n at position n has the states n, n.
    fn followed(tokens: u16) -> Followed {
        let mut followed = Followed::new(WIDTH);
        extend(&mut followed, 0..tokens);
        followed
    }

    fn extend(followed: &mut Followed, tokens: std::ops::Range<u16>) {
        for token in tokens {
            followed.push(token.into(), &[token.into(); WIDTH]);
        }
    }

    /// Position, token, state before.
    fn waiting(followed: &Followed) -> Vec<(i32, Token, f32)> {
        let mut batch = Batch::default();
        followed.push_waiting(7, &mut batch);
        assert_eq!(batch.states.len(), batch.rows.len() * WIDTH);
        let states = batch.states.chunks(WIDTH);
        let rows = batch.rows.iter().zip(states);
        rows.map(|(row, state)| (row.position, row.token, state[0]))
            .collect()
    }

    #[test]
    fn what_waits_has_the_state_of_the_token_before_it() {
        let mut sequence = followed(3);
        assert_eq!(waiting(&sequence), [(0, 0, 0.0), (1, 1, 0.0), (2, 2, 1.0)]);
        sequence.caught_up();
        assert_eq!(waiting(&sequence), []);
        extend(&mut sequence, 3..5);
        assert_eq!(waiting(&sequence), [(3, 3, 2.0), (4, 4, 3.0)]);
        let mut next = Batch::default();
        sequence.push_next(7, 5, &mut next);
        assert_eq!(
            (next.rows[0].position, next.rows[0].logits, &next.states[..]),
            (5, true, &[4.0; WIDTH][..])
        );
    }

    #[test]
    fn what_was_taken_back_does_not_wait() {
        let mut sequence = followed(10);
        sequence.caught_up();
        extend(&mut sequence, 10..14);
        sequence.truncate(12);
        assert_eq!(waiting(&sequence), [(10, 10, 9.0), (11, 11, 10.0)]);
        sequence.truncate(8);
        assert_eq!((sequence.end(), sequence.computed()), (8, 8));
        extend(&mut sequence, 8..9);
        assert_eq!(waiting(&sequence), [(8, 8, 7.0)]);
        sequence.truncate(100);
        assert_eq!(sequence.end(), 9);
    }

    #[test]
    fn a_sequence_goes_on_with_a_state_or_without() {
        let mut sequence = followed(10);
        sequence.go_on(40, vec![39.0; WIDTH]);
        extend(&mut sequence, 40..41);
        assert_eq!(waiting(&sequence), [(40, 40, 39.0)]);
        sequence.go_on(50, Vec::new());
        extend(&mut sequence, 50..52);
        assert_eq!(waiting(&sequence), [(50, 50, 0.0), (51, 51, 50.0)]);
    }

    #[test]
    fn of_the_states_enough_are_kept_and_no_more() {
        let mut sequence = followed(0);
        for token in 0..1000 {
            extend(&mut sequence, token..token + 1);
            sequence.caught_up();
            assert!(sequence.states.len() < 2 * KEPT * WIDTH);
        }
        assert!(sequence.states.len() >= KEPT * WIDTH);
        assert!(sequence.states.ends_with(&[998.0, 998.0, 999.0, 999.0]));
    }

    #[test]
    fn batches_are_divided_with_their_states() {
        let mut batch = Batch::default();
        followed(5).push_waiting(0, &mut batch);
        let parts: Vec<_> = batch.parts(2, WIDTH).collect();
        let sizes: Vec<_> = parts
            .iter()
            .map(|(rows, states)| (rows.len(), states.len()))
            .collect();
        assert_eq!(sizes, [(2, 4), (2, 4), (1, 2)]);
        assert_eq!(parts[2].0[0].position, 4);
        assert_eq!(Batch::default().parts(0, WIDTH).count(), 0);
    }
}

//! A model's own prediction layers (MTP) as drafter: a second context over the same weights, which follows the first one's
//! hidden states.

mod added;
mod guess;

use std::{ptr, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    Buffer, LoadError, Weights, backend,
    guard::{self, Fault, Shown, StateRow},
};
use crate::engine::{
    model::{Part, Row},
    pace::Pace,
    slot::small,
};

pub(super) use added::{divide, join};

/// Hidden states that are kept of each sequence: so many tokens can be taken back without loss.
const KEPT: usize = 32;

/// The context of the prediction layers, and how far it follows each sequence.
pub(super) struct Heads {
    context: *mut sys::llama_context,
    batch: *mut sys::llama_batch_ext,
    /// Holds the model that both are of.
    weights: Arc<Weights>,
    /// Tokens of context for each sequence.
    length: u32,
    /// Numbers of a hidden state.
    width: usize,
    followed: Vec<Followed>,
    pace: Pace,
}

/// What is known of one sequence.
#[derive(Debug, Clone, Default)]
struct Followed {
    /// Position of the next token to follow.
    end: u32,
    /// Hidden states of the latest tokens before it, one after the other.
    states: Vec<f32>,
}

impl Heads {
    /// `params`: of the context of the prediction layers.
    pub(super) fn new(
        weights: Arc<Weights>,
        params: sys::llama_context_params,
        length: u32,
    ) -> Result<Self, LoadError> {
        let inside = |fault| LoadError::Context(backend::reason(fault));
        backend::take_errors();
        // SAFETY: the weights outlive the context: `heads` holds both, and frees the context first.
        let context = unsafe { guard::context(weights.as_mut_ptr(), params) }.map_err(inside)?;
        let mut heads = Self {
            context,
            batch: ptr::null_mut(),
            width: weights.state_width(),
            weights,
            length,
            followed: vec![Followed::default(); params.n_seq_max as usize],
            pace: Pace::default(),
        };
        // SAFETY: the context is valid and ours.
        unsafe {
            heads.batch = sys::llama_batch_ext_init(context);
            guard::show_states(context, Shown::Outputs).map_err(inside)?;
        }
        Ok(heads)
    }

    /// The memory that it takes beside the model.
    pub(super) fn buffers(&self) -> Vec<Buffer> {
        // SAFETY: the context is valid.
        let mut buffers = unsafe { guard::buffers(self.context) }.unwrap_or_default();
        for buffer in &mut buffers {
            buffer.weights = 0; // the model's own
        }
        buffers
    }

    /// The model has just computed these rows in `target`, which shows the states of all.
    pub(super) fn follow(
        &mut self,
        target: *mut sys::llama_context,
        rows: &[Row],
    ) -> Result<(), Fault> {
        let mut states = Vec::with_capacity(rows.len() * self.width);
        let mut own = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let before = at
                .checked_sub(1)
                .filter(|&before| rows[before].sequence == row.sequence);
            if let Some(before) = before {
                states.extend_from_slice(shown(target, before, self.width)?);
            } else {
                self.begin(row.sequence, row.position);
                self.push_latest(row.sequence, &mut states);
            }
            own.push(StateRow {
                logits: false,
                ..state_row(row)
            });
        }
        self.decode(&own, &states)?;
        for (at, row) in rows.iter().enumerate() {
            let state = shown(target, at, self.width)?;
            self.followed[row.sequence as usize].push(state, self.width, row.position);
        }
        Ok(())
    }

    /// What follows begins at this position: guesses behind it go, and all where something between is not known.
    fn begin(&mut self, sequence: u32, position: u32) {
        self.truncate(sequence, position);
        let followed = &mut self.followed[sequence as usize];
        if followed.end != position {
            *followed = Followed {
                end: position,
                states: Vec::new(),
            };
            self.remove(sequence, 0);
        }
    }

    /// The state of the latest token followed; nothing in particular where that is not known.
    fn push_latest(&self, sequence: u32, states: &mut Vec<f32>) {
        let known = &self.followed[sequence as usize].states;
        match known.len().checked_sub(self.width) {
            Some(start) => states.extend_from_slice(&known[start..]),
            None => states.resize(states.len() + self.width, 0.0),
        }
    }

    /// Forgets positions `from..` of a sequence.
    pub(super) fn truncate(&mut self, sequence: u32, from: u32) {
        let Some(followed) = self.followed.get_mut(sequence as usize) else {
            return;
        };
        let gone = followed.end.saturating_sub(from) as usize;
        let left = followed.states.len().saturating_sub(gone * self.width);
        followed.states.truncate(left);
        followed.end = followed.end.min(from);
        self.remove(sequence, from);
    }

    pub(super) fn clear(&mut self) {
        for sequence in 0..small(self.followed.len()) {
            self.truncate(sequence, 0);
        }
    }

    /// What [`Self::restore`] needs to go on from here: the latest hidden state, and of a whole sequence its cache.
    pub(super) fn save(&self, sequence: u32, part: Part) -> Vec<u8> {
        let Some(followed) = self.followed.get(sequence as usize) else {
            return Vec::new();
        };
        let mut bytes = followed.end.to_le_bytes().to_vec();
        let mut state = Vec::with_capacity(self.width);
        self.push_latest(sequence, &mut state);
        bytes.extend(state.iter().flat_map(|number| number.to_le_bytes()));
        if part == Part::Whole {
            // SAFETY: the context is valid and `sequence` one of its own.
            let cache = unsafe { guard::save(self.context, sequence.cast_signed(), part) };
            bytes.extend(cache.unwrap_or_default());
        }
        bytes
    }

    /// Goes on from what was saved; anew where that cannot be had.
    pub(super) fn restore(&mut self, sequence: u32, part: Part, saved: &[u8]) {
        let Some((end, rest)) = saved.split_first_chunk() else {
            return self.truncate(sequence, 0);
        };
        let end = u32::from_le_bytes(*end);
        let Some((state, cache)) = rest.split_at_checked(self.width * size_of::<f32>()) else {
            return self.truncate(sequence, 0);
        };
        let there = match part {
            Part::Rest => {
                self.truncate(sequence, end);
                self.followed
                    .get(sequence as usize)
                    .is_some_and(|followed| followed.end == end)
            }
            Part::Whole => {
                self.truncate(sequence, 0);
                // SAFETY: as for `save`; states never outlive the model they were saved from.
                unsafe { guard::restore(self.context, sequence.cast_signed(), part, cache) }.is_ok()
            }
        };
        if there && let Some(followed) = self.followed.get_mut(sequence as usize) {
            let (numbers, _) = state.as_chunks();
            followed.end = end;
            followed.states = numbers
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
        } else {
            self.truncate(sequence, 0);
        }
    }

    fn remove(&mut self, sequence: u32, from: u32) {
        let (Ok(sequence), Ok(from)) = (i32::try_from(sequence), i32::try_from(from)) else {
            return;
        };
        // SAFETY: the context is valid, `sequence` one of its own; it has attention alone, which can be cut anywhere.
        unsafe {
            sys::llama_memory_seq_rm(sys::llama_get_memory(self.context), sequence, from, -1);
        }
    }

    fn decode(&mut self, rows: &[StateRow], states: &[f32]) -> Result<(), Fault> {
        // SAFETY: context and batch are ours; there are no more rows than of a batch of the model, whose limits are the
        // same, and states are as wide as the model says.
        unsafe { guard::decode_states(self.context, self.batch, rows, states, self.width) }
    }
}

impl Followed {
    /// One more token was computed.
    fn push(&mut self, state: &[f32], width: usize, position: u32) {
        if self.states.len() >= 2 * KEPT * width {
            self.states.drain(..KEPT * width);
        }
        self.states.extend_from_slice(state);
        self.end = position + 1;
    }
}

/// The state of a row of the model's latest batch.
fn shown<'a>(
    target: *mut sys::llama_context,
    row: usize,
    width: usize,
) -> Result<&'a [f32], Fault> {
    // SAFETY: `Heads::follow` is given the model's context, which shows the states of all rows and computes nothing until
    // it returns.
    unsafe { guard::state(target, row, width) }
        .ok_or_else(|| Fault::Caught("a hidden state is missing".into()))
}

fn state_row(row: &Row) -> StateRow {
    StateRow {
        token: row.token,
        position: row.position.cast_signed(),
        sequence: row.sequence.cast_signed(),
        logits: row.logits,
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        // SAFETY: nothing else holds them; null is allowed.
        unsafe {
            if !self.batch.is_null() {
                sys::llama_batch_ext_free(self.batch);
            }
            sys::llama_free(self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_states_of_a_sequence_are_kept_and_no_more_than_enough() {
        let mut followed = Followed::default();
        for position in 0..1000_u16 {
            followed.push(&[f32::from(position), 0.0], 2, u32::from(position));
            assert!(followed.states.len() <= 4 * KEPT);
        }
        assert_eq!(followed.end, 1000);
        assert!(followed.states.ends_with(&[998.0, 0.0, 999.0, 0.0]));
        assert!(followed.states.len() >= 2 * KEPT);
    }
}

//! A model's own prediction layers (MTP) as drafter: a second context over the same weights, which follows the first one's
//! hidden states.

mod added;
mod followed;
mod guess;

use std::{ptr, sync::Arc};

use followed::{Batch, Followed};
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

/// So many tokens of a sequence wait at most: a batch for all of them costs hardly more than one for each would.
const WAITING: usize = 64;

/// The context of the prediction layers, and how far it follows each sequence.
pub(super) struct Heads {
    context: *mut sys::llama_context,
    batch: *mut sys::llama_batch_ext,
    /// Holds the model that both are of.
    weights: Arc<Weights>,
    /// Tokens of context for each sequence.
    length: u32,
    /// Most rows of a batch.
    room: usize,
    /// Numbers of a hidden state.
    width: usize,
    followed: Vec<Followed>,
    pace: Pace,
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
        let width = weights.state_width();
        let mut heads = Self {
            context,
            batch: ptr::null_mut(),
            width,
            weights,
            length,
            room: params.n_batch as usize,
            followed: vec![Followed::new(width); params.n_seq_max as usize],
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
    ///
    /// They wait until there are many, or until a guess needs them: most steps cost no batch of the prediction layers.
    pub(super) fn follow(
        &mut self,
        target: *mut sys::llama_context,
        rows: &[Row],
    ) -> Result<(), Fault> {
        let mut sequence = None;
        for (at, row) in rows.iter().enumerate() {
            if sequence.replace(row.sequence) != Some(row.sequence) {
                self.begin(row.sequence, row.position);
            }
            let state = shown(target, at, self.width)?;
            self.followed[row.sequence as usize].push(row.token, state);
        }
        for sequence in 0..small(self.followed.len()) {
            if self.followed[sequence as usize].waiting() >= WAITING {
                self.catch_up(sequence)?;
            }
        }
        Ok(())
    }

    /// What follows begins at this position: what is behind it goes, and all where something between is not known.
    fn begin(&mut self, sequence: u32, position: u32) {
        self.truncate(sequence, position);
        let followed = &mut self.followed[sequence as usize];
        if followed.end() != position {
            followed.go_on(position, Vec::new());
            self.remove(sequence, 0);
        }
    }

    /// Computes what waits of a sequence.
    fn catch_up(&mut self, sequence: u32) -> Result<(), Fault> {
        let followed = &self.followed[sequence as usize];
        let mut batch = Batch::default();
        followed.push_waiting(sequence, &mut batch);
        self.remove(sequence, followed.computed());
        for (rows, states) in batch.parts(self.room, self.width) {
            self.decode(rows, states)?;
        }
        self.followed[sequence as usize].caught_up();
        Ok(())
    }

    /// Forgets positions `from..` of a sequence.
    pub(super) fn truncate(&mut self, sequence: u32, from: u32) {
        if let Some(followed) = self.followed.get_mut(sequence as usize) {
            followed.truncate(from);
            self.remove(sequence, from);
        }
    }

    pub(super) fn clear(&mut self) {
        for sequence in 0..small(self.followed.len()) {
            self.truncate(sequence, 0);
        }
    }

    /// What [`Self::restore`] needs to go on from here: the latest hidden state, and of a whole sequence its cache.
    pub(super) fn save(&mut self, sequence: u32, part: Part) -> Vec<u8> {
        if (sequence as usize) >= self.followed.len() || self.catch_up(sequence).is_err() {
            return Vec::new();
        }
        let followed = &self.followed[sequence as usize];
        let mut bytes = followed.end().to_le_bytes().to_vec();
        let mut state = Vec::with_capacity(self.width);
        followed.push_state(0, &mut state);
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
        match self.saved_state(sequence, part, saved) {
            Some((end, state)) => self.followed[sequence as usize].go_on(end, state),
            None => self.truncate(sequence, 0),
        }
    }

    /// Where what was saved ends, and the state there, once the cache is as it was.
    fn saved_state(&mut self, sequence: u32, part: Part, saved: &[u8]) -> Option<(u32, Vec<f32>)> {
        let (end, rest) = saved.split_first_chunk()?;
        let end = u32::from_le_bytes(*end);
        let (state, cache) = rest.split_at_checked(self.width * size_of::<f32>())?;
        match part {
            Part::Rest => {
                self.truncate(sequence, end);
                let there = self.followed.get(sequence as usize)?.end() == end;
                there.then(|| self.catch_up(sequence).ok())??;
            }
            Part::Whole => {
                self.truncate(sequence, 0);
                // SAFETY: as for `save`; states never outlive the model they were saved from.
                unsafe { guard::restore(self.context, sequence.cast_signed(), part, cache) }
                    .ok()?;
            }
        }
        let (numbers, _) = state.as_chunks();
        let state = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Some((end, state.collect()))
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

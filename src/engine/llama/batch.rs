//! The arrays of a `llama_batch`.

use std::{ffi::c_int, ptr};

use llama_cpp_sys_2 as sys;

use crate::engine::model::Row;

/// The arrays behind a `llama_batch`, made once.
pub(super) struct Batch {
    /// Most rows.
    pub(super) room: usize,
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    logits: Vec<i8>,
}

impl Batch {
    pub(super) fn new(room: usize) -> Self {
        Self {
            room,
            tokens: Vec::with_capacity(room),
            positions: Vec::with_capacity(room),
            sequences: Vec::with_capacity(room),
            sequence_pointers: Vec::with_capacity(room + 1),
            sequence_counts: vec![1; room],
            logits: Vec::with_capacity(room),
        }
    }

    /// The rows as llama.cpp reads them; valid until the next call.
    pub(super) fn fill(&mut self, rows: &[Row]) -> sys::llama_batch {
        let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        self.tokens.clear();
        self.tokens.extend(rows.iter().map(|row| row.token));
        self.positions.clear();
        self.positions
            .extend(rows.iter().map(|row| signed(row.position)));
        self.sequences.clear();
        self.sequences
            .extend(rows.iter().map(|row| signed(row.sequence)));
        self.sequence_pointers.clear();
        self.sequence_pointers
            .extend(self.sequences.iter_mut().map(ptr::from_mut));
        self.logits.clear();
        self.logits
            .extend(rows.iter().map(|row| i8::from(row.logits)));
        sys::llama_batch {
            n_tokens: c_int::try_from(rows.len()).unwrap_or(c_int::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }

    /// Whether the row of the last batch asked for logits.
    pub(super) fn asked(&self, row: usize) -> bool {
        self.logits.get(row).is_some_and(|&asked| asked != 0)
    }
}

//! The arrays of a `llama_batch`: tokens of many sequences, or rows of one image.

use std::{ffi::c_int, ptr};

use llama_cpp_sys_2 as sys;

use crate::engine::{
    media::{ImageRows, Layout},
    model::Row,
};

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

    /// A batch of `count` rows was made elsewhere, of which the last one may ask for logits.
    pub(super) fn ask_last(&mut self, count: usize, logits: bool) {
        self.logits.clear();
        self.logits.resize(count, 0);
        if let Some(last) = self.logits.last_mut() {
            *last = i8::from(logits);
        }
    }

    /// Whether the row of the last batch asked for logits.
    pub(super) fn asked(&self, row: usize) -> bool {
        self.logits.get(row).is_some_and(|&asked| asked != 0)
    }
}

/// The arrays behind a `llama_batch` of an image's rows.
pub(super) struct ImageBatch {
    /// Numbers of a row.
    width: usize,
    /// Numbers that say where a row is: 4 under M-RoPE, else 1.
    dimensions: usize,
    embeddings: Vec<f32>,
    /// All rows' first numbers, then all rows' second ones, and so on.
    positions: Vec<sys::llama_pos>,
    sequence: sys::llama_seq_id,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    logits: Vec<i8>,
}

impl ImageBatch {
    pub(super) fn new(width: usize, dimensions: usize) -> Self {
        Self {
            width,
            dimensions,
            embeddings: Vec::new(),
            positions: Vec::new(),
            sequence: 0,
            sequence_pointers: Vec::new(),
            sequence_counts: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// The rows as llama.cpp reads them; valid until the next call. `None`: they are not for this model.
    pub(super) fn fill(&mut self, rows: ImageRows<'_>) -> Option<sys::llama_batch> {
        let image = rows.image;
        if image.width() != self.width {
            return None;
        }
        self.embeddings.clear();
        self.embeddings
            .extend_from_slice(image.embeddings(rows.first, rows.count)?);
        self.positions.clear();
        let numbers =
            i32::try_from(rows.first).ok()?..i32::try_from(rows.first + rows.count).ok()?;
        let start = i32::try_from(rows.position).ok()?;
        for dimension in 0..self.dimensions {
            let place = |row| place(image.layout(), dimension, start, row);
            self.positions.extend(numbers.clone().map(place));
        }
        self.sequence = i32::try_from(rows.sequence).ok()?;
        self.sequence_pointers.clear();
        self.sequence_pointers
            .resize(rows.count, &raw mut self.sequence);
        self.sequence_counts.resize(rows.count, 1);
        self.logits.clear();
        self.logits.resize(rows.count, 0);
        *self.logits.last_mut()? = i8::from(rows.logits);
        Some(sys::llama_batch {
            n_tokens: c_int::try_from(rows.count).ok()?,
            token: ptr::null_mut(),
            embd: self.embeddings.as_mut_ptr(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        })
    }
}

/// Where a row is, in one of M-RoPE's dimensions: time, down, to the right, and one that is not in use.
fn place(layout: Layout, dimension: usize, start: i32, row: i32) -> i32 {
    match (layout, dimension) {
        (Layout::Line, 0..3) => start + row,
        (Layout::Grid { .. }, 0) => start,
        (Layout::Grid { columns }, 1) => start + row / columns.cast_signed(),
        (Layout::Grid { columns }, 2) => start + row % columns.cast_signed(),
        (Layout::Line | Layout::Grid { .. }, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::media::{Attention, Image};

    fn positions(layout: Layout, dimensions: usize, first: usize, count: usize) -> Vec<i32> {
        let numbers = vec![0.5; 6 * 2];
        let image = Image::new(&[0; 32], 0, layout, Attention::Causal, 2, numbers).unwrap();
        let mut batch = ImageBatch::new(2, dimensions);
        let rows = ImageRows {
            sequence: 1,
            position: 10,
            image: &image,
            first,
            count,
            logits: true,
        };
        let raw = batch.fill(rows).unwrap();
        assert_eq!(raw.n_tokens, i32::try_from(count).unwrap());
        assert_eq!(batch.logits.last(), Some(&1));
        batch.positions
    }

    #[test]
    fn rows_in_line_take_a_position_each_and_a_part_of_them_the_same() {
        assert_eq!(positions(Layout::Line, 1, 0, 6), [10, 11, 12, 13, 14, 15]);
        assert_eq!(positions(Layout::Line, 1, 4, 2), [14, 15]);
        let text = [[14, 15], [14, 15], [14, 15], [0, 0]];
        assert_eq!(positions(Layout::Line, 4, 4, 2), text.concat());
    }

    #[test]
    fn a_grid_tells_time_then_rows_then_columns() {
        let grid = Layout::Grid { columns: 3 };
        let whole = [
            [10, 10, 10, 10, 10, 10],
            [10, 10, 10, 11, 11, 11],
            [10, 11, 12, 10, 11, 12],
            [0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(positions(grid, 4, 0, 6), whole.concat());
        assert_eq!(positions(grid, 4, 4, 2), [10, 10, 11, 11, 11, 12, 0, 0]);
    }

    #[test]
    fn rows_of_another_width_are_not_filled_in() {
        let image = Image::new(
            &[0; 32],
            0,
            Layout::Line,
            Attention::Causal,
            2,
            vec![0.0; 4],
        );
        let rows = ImageRows {
            sequence: 0,
            position: 0,
            image: &image.unwrap(),
            first: 0,
            count: 2,
            logits: false,
        };
        assert!(ImageBatch::new(3, 1).fill(rows).is_none());
        assert!(
            ImageBatch::new(2, 1)
                .fill(ImageRows { first: 1, ..rows })
                .is_none()
        );
    }
}

//! What the caches hold of a sequence: cut, copied, moved, saved and restored, with what follows it in the prediction layers.

use std::time::Instant;

use llama_cpp_sys_2 as sys;

use super::Llama;
use crate::engine::{
    llama::{copies, guard, heads},
    model::{Model, Part},
};

impl Llama {
    pub(super) fn cut(&mut self, sequence: u32, from: u32) -> bool {
        if let Some(heads) = self.own_heads() {
            heads.truncate(sequence, from);
        }
        let (Ok(id), Ok(place)) = (i32::try_from(sequence), i32::try_from(from)) else {
            return false;
        };
        // SAFETY: the context is valid and `sequence` is one of its own (`Slot` numbers them).
        let cut = unsafe {
            let memory = sys::llama_get_memory(self.context);
            if from == 0 {
                self.search_from_the_start(id);
            }
            // Recurrent states cannot be cut at any place: then the whole sequence goes.
            sys::llama_memory_seq_rm(memory, id, place, -1)
                || !sys::llama_memory_seq_rm(memory, id, -1, -1)
        };
        if cut && from > 0 && !self.cuts_anywhere() {
            self.taken_back.insert(sequence);
        } else {
            self.taken_back.remove(&sequence);
        }
        cut
    }

    pub(super) fn copy_cells(&mut self, from: u32, to: u32, computed: u32) -> bool {
        if self.taken_back.contains(&from) || !copies::pays(computed, self.config.context, self.gpu)
        {
            return false;
        }
        // SAFETY: the context is valid and the sequences are its own.
        let asked = unsafe { self.copies.ask(self.context, from, to) };
        if let Some(heads) = self.own_heads().filter(|_| asked) {
            // One layer is little, even by way of host memory.
            let followed = heads.save(from, Part::Whole);
            heads.restore(to, Part::Whole, &followed);
        }
        asked
    }

    pub(super) fn shift_cells(&mut self, sequence: u32, from: u32, count: u32) -> bool {
        let place = |place: u32| i32::try_from(place).ok();
        let (Some(id), Some(from), Some(count)) = (place(sequence), place(from), place(count))
        else {
            return false;
        };
        // SAFETY: the context is valid and `sequence` one of its own; llama.cpp asserts only on memory that cannot shift.
        let shifted = unsafe {
            let memory = sys::llama_get_memory(self.context);
            let can = sys::llama_memory_can_shift(memory)
                && sys::llama_memory_seq_rm(memory, id, from, from + count);
            if can {
                sys::llama_memory_seq_add(memory, id, from + count, -1, -count);
            }
            can
        };
        if !shifted {
            self.cut(sequence, 0);
        }
        shifted
    }

    pub(super) fn save_state(&mut self, sequence: u32, part: Part) -> Option<Vec<u8>> {
        if !self.copies.readable(sequence) {
            return None;
        }
        let id = i32::try_from(sequence).ok()?;
        let began = Instant::now();
        // SAFETY: the context is valid and `sequence` is one of its own.
        let saved = unsafe { guard::save(self.context, id, part) };
        tracing::trace!(bytes = saved.as_ref().map_or(0, Vec::len), took = ?began.elapsed(), "saved");
        let saved = saved
            .inspect_err(|fault| tracing::warn!(?fault, "a sequence's state could not be saved"))
            .ok()?;
        Some(match self.own_heads() {
            Some(heads) => heads::join(saved, &heads.save(sequence, part)),
            None => saved,
        })
    }

    pub(super) fn restore_state(&mut self, sequence: u32, part: Part, state: &[u8]) -> bool {
        let Ok(id) = i32::try_from(sequence) else {
            return false;
        };
        if !self.copies.replaceable(sequence) {
            self.cut(sequence, 0);
            return false;
        }
        let (state, followed) = heads::divide(state);
        self.search_from_the_start(id);
        let began = Instant::now();
        // SAFETY: as above; states are of this very model and shape of context: those of files were checked for it.
        let restored = unsafe { guard::restore(self.context, id, part, state) };
        tracing::trace!(bytes = state.len(), took = ?began.elapsed(), "restored");
        if let Err(fault) = &restored {
            tracing::warn!(?fault, "a sequence's state could not be restored");
            self.cut(sequence, 0);
            return false;
        }
        self.taken_back.remove(&sequence);
        if let Some(heads) = self.own_heads() {
            heads.restore(sequence, part, followed);
        }
        true
    }

    /// Has llama.cpp look for free cells from the first one on. In a window's cache it otherwise goes on where it was.
    fn search_from_the_start(&self, sequence: sys::llama_seq_id) {
        // It asserts that positions have one dimension.
        if self.weights.has_window() && self.weights.positions() == 1 {
            let beyond = sys::llama_pos::MAX - 2;
            // SAFETY: the context is valid and `sequence` is one of its own. Moving nothing resets the search.
            unsafe {
                let memory = sys::llama_get_memory(self.context);
                sys::llama_memory_seq_add(memory, sequence, beyond, beyond + 1, 1);
            }
        }
    }
}

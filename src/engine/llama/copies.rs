//! Copies of sequences on the device itself, which llama.cpp makes at the beginning of the next decode, in their order.

use std::collections::HashSet;

use llama_cpp_sys_2 as sys;

/// Cells that a GPU copies in the time in which one cell goes to host memory and back.
const CELLS_ON_A_GPU: u32 = 64;
/// The same where the device is the host: one copy instead of two, of which the first is into new pages.
const CELLS_ON_THE_HOST: u32 = 3;

/// Copies that are asked for and not made yet.
#[derive(Debug, Default)]
pub(super) struct Copies {
    sources: HashSet<u32>,
    targets: HashSet<u32>,
}

impl Copies {
    /// Whether the sequence's cells are there already.
    pub(super) fn readable(&self, sequence: u32) -> bool {
        !self.targets.contains(&sequence)
    }

    /// Whether the sequence's cells may be replaced at once: nobody waits for them, and nothing will come over them.
    pub(super) fn replaceable(&self, sequence: u32) -> bool {
        self.readable(sequence) && !self.sources.contains(&sequence)
    }

    /// The next decode copies `from` in place of `to`, which is empty. `false`: it cannot be.
    ///
    /// # Safety
    /// `context` is valid and not in use elsewhere; both sequences are its own.
    pub(super) unsafe fn ask(
        &mut self,
        context: *mut sys::llama_context,
        from: u32,
        to: u32,
    ) -> bool {
        let (Ok(source), Ok(target)) = (i32::try_from(from), i32::try_from(to)) else {
            return false;
        };
        if from == to {
            return false;
        }
        // SAFETY: the caller vouches for all of them. llama.cpp copies whole caches only, which this is.
        unsafe { sys::llama_memory_seq_cp(sys::llama_get_memory(context), source, target, -1, -1) };
        self.sources.insert(from);
        self.targets.insert(to);
        true
    }

    /// A decode has begun, or all sequences are gone.
    pub(super) fn made(&mut self) {
        self.sources.clear();
        self.targets.clear();
    }
}

/// Whether copying a cache of `context` cells, which llama.cpp does only as a whole, takes less time than the way of the
/// `computed` cells in use through host memory.
pub(super) fn pays(computed: u32, context: u32, gpu: bool) -> bool {
    let cells = if gpu {
        CELLS_ON_A_GPU
    } else {
        CELLS_ON_THE_HOST
    };
    computed.saturating_mul(cells) >= context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_beginning_does_not_pay_for_a_copy_of_a_long_cache() {
        assert!(pays(2000, 2304, false));
        assert!(!pays(500, 65_536, false));
        assert!(pays(2000, 65_536, true));
        assert!(!pays(500, 65_536, true));
    }
}

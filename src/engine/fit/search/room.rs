//! How much a placement uses, leaves and lacks on each device.

use super::{Problem, Solution};
use crate::engine::{fit::HOST, llama::Gauged};

impl Problem<'_> {
    /// Bytes used on each GPU, the host's last.
    pub(in crate::engine::fit) fn used(&self, solution: &Solution) -> Vec<u64> {
        let mut sums = vec![0_u64; self.gpus.len() + 1];
        let Gauged { buffers, heads, .. } = &solution.gauged;
        for buffer in buffers.iter().chain(heads) {
            let sum = &mut sums[self.position(&buffer.device, buffer.host)];
            for bytes in [buffer.weights, buffer.cache, buffer.compute] {
                *sum = sum.saturating_add(bytes);
            }
        }
        sums
    }

    /// The place of a buffer's device in lists of GPUs with the host last.
    pub(in crate::engine::fit) fn position(&self, device: &str, host: bool) -> usize {
        let gpu = self.gpus.iter().position(|gpu| gpu.name == device);
        gpu.filter(|_| !host).unwrap_or(self.gpus.len())
    }

    /// Bytes left beyond plan and margin on each GPU, the host's last; negative: missing.
    pub(in crate::engine::fit) fn left(&self, solution: &Solution) -> Vec<i64> {
        let used = self.used(solution).into_iter().enumerate();
        used.map(|(at, used)| {
            let left = self.room(at).saturating_sub(signed(used));
            // A GPU that is full already does no harm while nothing is put there.
            if used == 0 { left.max(0) } else { left }
        })
        .collect()
    }

    /// Bytes that may be used on a GPU, or on the host, which is last.
    pub(super) fn room(&self, at: usize) -> i64 {
        let free = self.gpus.get(at).map(|gpu| gpu.free);
        signed(free.unwrap_or(self.host.available)) - signed(self.margins[at])
    }

    pub(in crate::engine::fit) fn fits(&self, solution: &Solution) -> bool {
        self.left(solution).iter().all(|left| *left >= 0)
    }

    pub(super) fn gpus_fit(&self, solution: &Solution) -> bool {
        let left = self.left(solution);
        left[..self.gpus.len()].iter().all(|left| *left >= 0)
    }

    pub(super) fn missing(&self, solution: &Solution) -> Vec<(String, u64)> {
        let names = self.gpus.iter().map(|gpu| gpu.name.as_str()).chain([HOST]);
        names
            .zip(self.left(solution))
            .filter(|(_, left)| *left < 0)
            .map(|(name, left)| (name.to_owned(), left.unsigned_abs()))
            .collect()
    }
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

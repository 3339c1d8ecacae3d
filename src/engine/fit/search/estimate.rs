//! What the gauge of one placement lets expect of others: tensors have known sizes, the rest is learnt.

use super::{Draft, Moved, Problem, Solution, signed};
use crate::engine::fit::layout::{self, At, Class};

/// llama.cpp computes smaller steps where the weights lie.
const OFFLOADED_BATCH: u32 = 32;

/// Weights that a set of moves leaves to be placed with their layers, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Of each layer and, last, of the output.
    layers: Vec<u64>,
    /// The largest tensor of each.
    largest: Vec<u64>,
    /// What the user's overrides put on each GPU.
    pinned: Vec<u64>,
    /// The largest tensor that stays in host memory although its layer may be on a GPU.
    pub(super) hosted: u64,
}

/// What gauging taught beyond the sizes of tensors.
#[derive(Debug, Clone)]
pub(super) struct Lesson {
    /// Bytes of each GPU that are neither of layers nor staging: activations, alignment.
    fixed: Vec<i64>,
    /// Bytes of cache of one layer on a GPU, on average.
    cache: i64,
}

impl Lesson {
    pub(super) fn none(gpus: usize) -> Self {
        Self {
            fixed: vec![0; gpus],
            cache: 0,
        }
    }
}

impl Problem<'_> {
    pub(super) fn sizes(&self, moved: &Moved) -> Sizes {
        let all = self.header.layers as usize + 1;
        let mut sizes = Sizes {
            layers: vec![0; all],
            largest: vec![0; all],
            pinned: vec![0; self.gpus.len()],
            hosted: 0,
        };
        for part in self.parts {
            let at = part.layer.map_or(all - 1, |layer| layer as usize);
            let gpu = |device: &String| self.gpus.iter().position(|gpu| gpu.name == *device);
            match (part.pinned.as_ref().map(gpu), part.class) {
                // Tied embeddings lie where their copy would.
                (Some(_), _) if part.is_copy() => {}
                (Some(Some(gpu)), _) => sizes.pinned[gpu] += part.bytes,
                (_, Class::Embeddings) => {}
                (Some(None), _) => sizes.hosted = sizes.hosted.max(part.bytes),
                (None, _) if moved.has(part) => sizes.hosted = sizes.hosted.max(part.bytes),
                (None, _) => {
                    sizes.layers[at] += part.bytes;
                    sizes.largest[at] = sizes.largest[at].max(part.bytes);
                }
            }
        }
        sizes
    }

    /// What `solution` teaches, on top of what was known.
    pub(super) fn learn(&self, known: &Lesson, solution: &Solution) -> Lesson {
        let devices = layout::layer_devices(self.header.layers, &solution.settings);
        let layers = self.cached_layers(&devices);
        let count: i64 = layers.iter().sum();
        let buffers = solution.gauged.buffers.iter();
        let cache: u64 = buffers
            .filter(|buffer| self.position(&buffer.device, buffer.host) < self.gpus.len())
            .map(|buffer| buffer.cache)
            .sum();
        let cache = match count {
            0 => known.cache,
            count => signed(cache) / count,
        };
        self.learn_fixed(known, solution, cache)
    }

    /// As [`Self::learn`], as if no other layer had a cache.
    pub(super) fn learn_bold(&self, known: &Lesson, solution: &Solution) -> Lesson {
        self.learn_fixed(known, solution, 0)
    }

    fn learn_fixed(&self, known: &Lesson, solution: &Solution, cache: i64) -> Lesson {
        let devices = layout::layer_devices(self.header.layers, &solution.settings);
        let plain = Lesson {
            cache,
            ..Lesson::none(self.gpus.len())
        };
        let expected = self.expected_use(&plain, &self.sizes(&solution.moved), &devices);
        let used = self.used(solution);
        let fixed = expected.iter().zip(used).zip(&known.fixed);
        Lesson {
            fixed: fixed
                .map(|((expected, used), known)| match used {
                    // An unused GPU teaches only that it stages nothing.
                    0 => *known - expected,
                    used => signed(used) - expected,
                })
                .collect(),
            cache,
        }
    }

    /// Bytes that each GPU is expected to have left beyond its margin; negative: missing.
    pub(super) fn expected_left(&self, lesson: &Lesson, sizes: &Sizes, draft: &Draft) -> Vec<i64> {
        let devices = layout::layer_devices(self.header.layers, &self.settings(draft));
        let used = self.expected_use(lesson, sizes, &devices);
        let idle = |gpu: usize| !devices.contains(&Some(gpu)) && used[gpu] == lesson.fixed[gpu];
        (0..self.gpus.len())
            .map(|gpu| match self.room(gpu) - used[gpu] {
                left if idle(gpu) => left.max(0),
                left => left,
            })
            .collect()
    }

    pub(super) fn expected_fit(&self, lesson: &Lesson, sizes: &Sizes, draft: &Draft) -> bool {
        let left = self.expected_left(lesson, sizes, draft);
        left.iter().all(|left| *left >= 0)
    }

    fn expected_use(&self, lesson: &Lesson, sizes: &Sizes, devices: &[At]) -> Vec<i64> {
        let first = devices.iter().position(Option::is_some);
        let caches = self.cached_layers(devices);
        (0..self.gpus.len())
            .map(|gpu| {
                let own = devices.iter().zip(&sizes.layers);
                let weights: u64 = own
                    .filter(|(device, _)| **device == Some(gpu))
                    .map(|(_, bytes)| bytes)
                    .sum();
                self.overhead(lesson, sizes, gpu, first.unwrap_or(devices.len()))
                    + signed(weights)
                    + lesson.cache * caches[gpu]
            })
            .collect()
    }

    /// What a GPU takes beside its layers, when the layers below `first` are on the host.
    fn overhead(&self, lesson: &Lesson, sizes: &Sizes, gpu: usize, first: usize) -> i64 {
        // Large steps over weights in host memory bring them to the first GPU, one at a time.
        let staged = self.config.op_offload && self.config.ubatch >= OFFLOADED_BATCH && gpu == 0;
        let host = sizes.largest[..first].iter().copied().max().unwrap_or(0);
        let staging = if staged { host.max(sizes.hosted) } else { 0 };
        lesson.fixed[gpu] + signed(sizes.pinned[gpu]) + signed(staging)
    }

    /// Bytes of each GPU for layers, and of each of the last `gpu_layers` layers.
    pub(super) fn to_share(
        &self,
        lesson: &Lesson,
        sizes: &Sizes,
        gpu_layers: u32,
    ) -> (Vec<u64>, Vec<u64>) {
        let first = sizes.layers.len() - gpu_layers as usize;
        let unsigned = |bytes: i64| bytes.max(0).unsigned_abs();
        let rooms = (0..self.gpus.len())
            .map(|gpu| unsigned(self.room(gpu) - self.overhead(lesson, sizes, gpu, first)))
            .collect();
        let layers = sizes.layers.iter().enumerate().skip(first);
        let costs = layers
            .map(|(at, bytes)| {
                let cached = at < self.blocks();
                bytes + if cached { unsigned(lesson.cache) } else { 0 }
            })
            .collect();
        (rooms, costs)
    }

    /// How many layers with a cache are on each GPU.
    fn cached_layers(&self, devices: &[At]) -> Vec<i64> {
        let mut counts = vec![0; self.gpus.len()];
        for gpu in devices[..self.blocks()].iter().flatten() {
            counts[*gpu] += 1;
        }
        counts
    }

    /// Layers without output and prediction heads.
    fn blocks(&self) -> usize {
        (self.header.layers - self.header.prediction_layers) as usize
    }
}

//! From what the user wants to the placement that fits: gauge, move, gauge again.

use super::{
    layout::{self, At, Class, Moved, Part},
    memory::HostMemory,
};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, Split},
    engine::{
        fit::{HOST, Settings},
        gguf::Header,
        llama::{Buffer, Gauged, Gpu, LoadError},
    },
};

/// More rounds than ever were needed; the search ends in 1 to 4.
const ROUNDS: usize = 12;

/// Tells what a placement takes. The real one asks llama.cpp.
pub(super) trait Gauge {
    fn gauge(
        &mut self,
        config: &EngineConfig,
        context: u32,
        settings: &Settings,
    ) -> Result<Gauged, LoadError>;
}

/// What is to be fitted into what.
#[derive(Debug, Clone)]
pub(super) struct Problem<'a> {
    pub(super) header: &'a Header,
    pub(super) config: &'a EngineConfig,
    pub(super) parts: &'a [Part],
    /// Those to be used, in order.
    pub(super) gpus: &'a [Gpu],
    pub(super) host: HostMemory,
    /// Bytes to leave free on each GPU, the host's last.
    pub(super) margins: &'a [u64],
}

/// A placement and what it takes.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub(super) context: u32,
    pub(super) settings: Settings,
    pub(super) moved: Moved,
    pub(super) gauged: Gauged,
}

/// The best placement that was found, which still does not fit.
#[derive(Debug, Clone)]
pub(super) struct Shortage {
    pub(super) nearest: Solution,
    /// Device and missing bytes.
    pub(super) missing: Vec<(String, u64)>,
}

pub(super) enum Outcome {
    Fits(Box<Solution>),
    Lacks(Box<Shortage>),
}

impl Problem<'_> {
    /// Finds the placement that puts the most on GPUs; explicit wishes are kept.
    pub(super) fn solve(&self, gauge: &mut dyn Gauge) -> Result<Outcome, LoadError> {
        if let Some(hopeless) = self.too_heavy() {
            return Ok(Outcome::Lacks(Box::new(hopeless)));
        }
        if let Some(hopeless) = self.too_long(gauge)? {
            return Ok(Outcome::Lacks(Box::new(hopeless)));
        }
        let (layers, moved) = (self.wished_layers(), self.wished_moves());
        let whole = self.attempt(gauge, self.config.context, layers, moved)?;
        if self.fits(&whole) {
            return Ok(Outcome::Fits(Box::new(whole)));
        }
        // Who allows a smaller context wants everything on the GPU, if that is possible at all.
        if let Some(shrunk) = self.shrink(gauge, &whole)? {
            return Ok(Outcome::Fits(Box::new(shrunk)));
        }
        let best = self.best(gauge, whole)?;
        if self.fits(&best) {
            return Ok(Outcome::Fits(Box::new(best)));
        }
        if let Some(shrunk) = self.shrink(gauge, &best)? {
            return Ok(Outcome::Fits(Box::new(shrunk)));
        }
        Ok(Outcome::Lacks(Box::new(Shortage {
            missing: self.missing(&best),
            nearest: best,
        })))
    }

    /// Weights that all devices together could not hold need no gauge.
    fn too_heavy(&self) -> Option<Shortage> {
        let weights: u64 = self
            .parts
            .iter()
            .filter(|part| !part.is_copy())
            .map(|part| part.bytes)
            .sum();
        let gpus: u64 = self.gpus.iter().map(|gpu| gpu.free).sum();
        let host = weights.saturating_sub(gpus);
        let missing = host.checked_sub(self.host.available)?;
        let buffer = Buffer {
            device: "CPU".into(),
            name: "CPU".into(),
            host: true,
            weights: host,
            cache: 0,
            compute: 0,
        };
        let moved = self.wished_moves();
        Some(Shortage {
            missing: vec![(HOST.to_owned(), missing)],
            nearest: Solution {
                context: self.config.context,
                settings: self.settings(self.wished_layers(), &moved),
                moved,
                gauged: Gauged {
                    buffers: vec![buffer],
                    flash_attention: false,
                    astray: None,
                },
            },
        })
    }

    /// A cache of very many cells takes seconds to gauge. What a part of it takes tells whether all devices together
    /// could ever hold the whole.
    fn too_long(&self, gauge: &mut dyn Gauge) -> Result<Option<Shortage>, LoadError> {
        const MANY: u32 = 1 << 19;
        let context = self.config.context;
        let part = (MANY / self.config.parallel).max(256);
        if context <= part {
            return Ok(None);
        }
        let mut solution = self.attempt(gauge, part, self.wished_layers(), self.wished_moves())?;
        for buffer in &mut solution.gauged.buffers {
            let whole = u128::from(buffer.cache) * u128::from(context) / u128::from(part);
            buffer.cache = u64::try_from(whole).unwrap_or(u64::MAX);
        }
        let left: i128 = self.left(&solution).into_iter().map(i128::from).sum();
        let hopeless = left < 0 && self.config.placement.min_context.is_none();
        Ok(hopeless.then(|| Shortage {
            missing: self.missing(&solution),
            nearest: solution,
        }))
    }

    fn best(&self, gauge: &mut dyn Gauge, whole: Solution) -> Result<Solution, LoadError> {
        if self.gpus.is_empty() {
            return Ok(whole);
        }
        let wishes = &self.config.placement;
        let mut best = whole;
        if self.header.experts > 0 && wishes.cpu_moe_layers == CpuMoe::Auto {
            best = self.attempt(gauge, best.context, self.wished_layers(), self.all_moved())?;
            if self.gpus_fit(&best) {
                return self.fill(gauge, best);
            }
        }
        if wishes.gpu_layers == GpuLayers::Auto && wishes.tensor_split.is_empty() {
            best = self.fewer_layers(gauge, best)?;
        }
        Ok(best)
    }

    /// Moves expert groups back to the GPUs, as many as fit: whole layers first, then parts of one.
    fn fill(&self, gauge: &mut dyn Gauge, empty: Solution) -> Result<Solution, LoadError> {
        // What experts in host memory take in compute buffers, they no longer take on the GPU: only gauging tells.
        let mut room: Vec<i64> = self.left(&empty)[..self.gpus.len()].to_vec();
        let mut best = empty.clone();
        let mut tried: Vec<Moved> = Vec::new();
        for _ in 0..ROUNDS {
            let moved = self.fill_room(&empty, &room);
            if tried.contains(&moved) {
                break;
            }
            tried.push(moved.clone());
            let layers = empty.settings.gpu_layers;
            let next = self.attempt(gauge, empty.context, layers, moved)?;
            let left = self.left(&next);
            let gpus_left = &left[..self.gpus.len()];
            for (room, left) in room.iter_mut().zip(gpus_left) {
                *room += left;
            }
            if gpus_left.iter().all(|left| *left >= 0) {
                best = next;
            }
        }
        Ok(best)
    }

    /// Which groups stay on the host when each GPU has `room` bytes for experts.
    fn fill_room(&self, empty: &Solution, room: &[i64]) -> Moved {
        let devices = layout::layer_devices(self.header.layers, &empty.settings);
        let mut moved = Moved::default();
        for (gpu, &room) in room.iter().enumerate() {
            let mut room = u64::try_from(room).unwrap_or(0);
            let mut layers: Vec<u32> = (0..self.header.layers)
                .filter(|layer| devices[*layer as usize] == Some(gpu))
                .collect();
            // Small layers first: each whole layer on the GPU saves a round trip. Of equal ones, the last.
            layers.sort_by_key(|layer| {
                (
                    self.experts_of(*layer)
                        .iter()
                        .map(|(_, bytes)| bytes)
                        .sum::<u64>(),
                    u32::MAX - layer,
                )
            });
            let mut partial = false;
            for layer in layers {
                let mut groups = self.experts_of(layer);
                let whole: u64 = groups.iter().map(|(_, bytes)| bytes).sum();
                if whole <= room {
                    room -= whole;
                    continue;
                }
                groups.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
                for (group, bytes) in groups {
                    // One layer is shared out; more would only add round trips.
                    if !partial && bytes <= room {
                        room -= bytes;
                    } else {
                        moved.insert(layer, group);
                    }
                }
                partial = true;
            }
        }
        moved
    }

    /// Takes layers off the GPUs, from the first, until what is left fits.
    fn fewer_layers(&self, gauge: &mut dyn Gauge, full: Solution) -> Result<Solution, LoadError> {
        let mut best: Option<Solution> = None;
        let mut least_bad = full.clone();
        let (mut fitting, mut failing) = (0_u32, full.settings.gpu_layers);
        let mut layers = self.guess_layers(&full);
        for _ in 0..ROUNDS {
            let layers_now = layers.clamp(fitting, failing.saturating_sub(1));
            let next = self.attempt(gauge, full.context, layers_now, full.moved.clone())?;
            if self.gpus_fit(&next) {
                fitting = layers_now;
                // A guess that fits may have been too careful.
                layers = layers_now + 1;
                best = Some(next);
            } else {
                failing = layers_now;
                layers = layers_now.saturating_sub(1).max(fitting);
                least_bad = next;
            }
            if failing <= fitting + 1 && (best.is_some() || failing == 0) {
                break;
            }
        }
        Ok(best.unwrap_or(least_bad))
    }

    /// How many layers should fit, by their average size.
    fn guess_layers(&self, full: &Solution) -> u32 {
        let count = u64::from(full.settings.gpu_layers.max(1));
        let (mut room, mut each) = (0_u64, 0_u64);
        for (at, used) in self.used(full)[..self.gpus.len()].iter().enumerate() {
            let fixed = compute_of(&full.gauged, &self.gpus[at].name);
            room += self.gpus[at].free.saturating_sub(self.margins[at] + fixed);
            each += used.saturating_sub(fixed) / count;
        }
        u32::try_from(room / each.max(1)).unwrap_or(0)
    }

    /// The largest context, not below `min_context`, with which `solution` fits.
    fn shrink(
        &self,
        gauge: &mut dyn Gauge,
        solution: &Solution,
    ) -> Result<Option<Solution>, LoadError> {
        const STEP: u32 = 256;
        let Some(least) = self.config.placement.min_context else {
            return Ok(None);
        };
        let again = |gauge: &mut dyn Gauge, context| {
            self.attempt(
                gauge,
                context,
                solution.settings.gpu_layers,
                solution.moved.clone(),
            )
        };
        let least = least.min(solution.context);
        let smallest = again(gauge, least)?;
        if !self.fits(&smallest) {
            return Ok(None);
        }
        let (mut best, mut low, mut high) = (smallest, least / STEP, solution.context / STEP);
        while high > low + 1 {
            let middle = low.midpoint(high);
            let next = again(gauge, middle * STEP)?;
            if self.fits(&next) {
                (best, low) = (next, middle);
            } else {
                high = middle;
            }
        }
        Ok(Some(best))
    }

    fn attempt(
        &self,
        gauge: &mut dyn Gauge,
        context: u32,
        gpu_layers: u32,
        moved: Moved,
    ) -> Result<Solution, LoadError> {
        let settings = self.settings(gpu_layers, &moved);
        let gauged = gauge.gauge(self.config, context, &settings)?;
        Ok(Solution {
            context,
            settings,
            moved,
            gauged,
        })
    }

    fn settings(&self, gpu_layers: u32, moved: &Moved) -> Settings {
        let config = self.config;
        let wishes = &config.placement;
        let gpu_layers = if self.gpus.is_empty() { 0 } else { gpu_layers };
        let tensor_split = if wishes.tensor_split.is_empty() {
            self.shares(gpu_layers)
        } else {
            wishes.tensor_split.clone()
        };
        // The user's own come first: of two that match, the first counts.
        let mut overrides = wishes.tensor_overrides.clone();
        overrides.extend(moved.overrides());
        Settings {
            devices: self.gpus.iter().map(|gpu| gpu.name.clone()).collect(),
            gpu_layers,
            split: wishes.split,
            tensor_split,
            main_gpu: 0, // `gpus` holds only the main one where it works alone
            overrides,
            offload_kqv: config.offload_kqv,
            op_offload: config.op_offload,
            repack: config.repack,
            numa: config.numa,
        }
    }

    /// Layers of each GPU, in proportion to what it has free; whole numbers, so that rounding cannot move one.
    fn shares(&self, gpu_layers: u32) -> Vec<f32> {
        let room = |at: usize| self.gpus[at].free.saturating_sub(self.margins[at]);
        let total: u64 = (0..self.gpus.len()).map(room).sum();
        let mut counts: Vec<u64> = (0..self.gpus.len())
            .map(|at| u64::from(gpu_layers) * room(at) / total.max(1))
            .collect();
        let given: u64 = counts.iter().sum();
        // What rounding left over goes to the roomiest.
        if let Some(most) = (0..counts.len()).max_by_key(|at| room(*at)) {
            counts[most] += u64::from(gpu_layers).saturating_sub(given);
        }
        #[expect(clippy::cast_precision_loss, reason = "layers are few")]
        counts.into_iter().map(|count| count as f32).collect()
    }

    fn wished_layers(&self) -> u32 {
        let all = self.header.layers + 1;
        match self.config.placement.gpu_layers {
            GpuLayers::Auto | GpuLayers::All => all,
            GpuLayers::Count(layers) => layers.min(all),
        }
    }

    fn wished_moves(&self) -> Moved {
        match self.config.placement.cpu_moe_layers {
            CpuMoe::Auto => Moved::default(),
            CpuMoe::All => self.all_moved(),
            CpuMoe::Count(layers) => self.moved_below(layers),
        }
    }

    fn all_moved(&self) -> Moved {
        self.moved_below(u32::MAX)
    }

    fn moved_below(&self, layers: u32) -> Moved {
        let mut moved = Moved::default();
        for part in self.parts {
            if let Some(layer) = part.layer
                && layer < layers
                && part.class == Class::Experts
                && part.pinned.is_none()
            {
                moved.insert(layer, part.group());
            }
        }
        moved
    }

    /// Groups of expert tensors of a layer with their bytes, those that the user pinned left out.
    fn experts_of(&self, layer: u32) -> Vec<(&str, u64)> {
        let mut groups: Vec<(&str, u64)> = Vec::new();
        let own = self.parts.iter().filter(|part| {
            part.layer == Some(layer) && part.class == Class::Experts && part.pinned.is_none()
        });
        for part in own {
            match groups.iter_mut().find(|(group, _)| *group == part.group()) {
                Some((_, bytes)) => *bytes += part.bytes,
                None => groups.push((part.group(), part.bytes)),
            }
        }
        groups
    }

    /// Bytes used on each GPU, the host's last.
    pub(super) fn used(&self, solution: &Solution) -> Vec<u64> {
        let mut sums = vec![0; self.gpus.len() + 1];
        for buffer in &solution.gauged.buffers {
            let at = self.position(&buffer.device, buffer.host);
            sums[at] += buffer.weights + buffer.cache + buffer.compute;
        }
        sums
    }

    /// The place of a buffer's device in lists of GPUs with the host last.
    pub(super) fn position(&self, device: &str, host: bool) -> usize {
        let gpu = self.gpus.iter().position(|gpu| gpu.name == device);
        gpu.filter(|_| !host).unwrap_or(self.gpus.len())
    }

    /// Bytes left beyond plan and margin on each GPU, the host's last; negative: missing.
    pub(super) fn left(&self, solution: &Solution) -> Vec<i64> {
        let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let free = self
            .gpus
            .iter()
            .map(|gpu| gpu.free)
            .chain([self.host.available]);
        self.used(solution)
            .into_iter()
            .zip(free)
            .zip(self.margins)
            .map(|((used, free), margin)| signed(free) - signed(used) - signed(*margin))
            .collect()
    }

    pub(super) fn fits(&self, solution: &Solution) -> bool {
        self.left(solution).iter().all(|left| *left >= 0)
    }

    fn gpus_fit(&self, solution: &Solution) -> bool {
        self.left(solution)[..self.gpus.len()]
            .iter()
            .all(|left| *left >= 0)
    }

    fn missing(&self, solution: &Solution) -> Vec<(String, u64)> {
        let names = self.gpus.iter().map(|gpu| gpu.name.as_str()).chain([HOST]);
        names
            .zip(self.left(solution))
            .filter(|(_, left)| *left < 0)
            .map(|(name, left)| (name.to_owned(), left.unsigned_abs()))
            .collect()
    }

    pub(super) fn places(&self, solution: &Solution) -> Vec<At> {
        layout::places(
            self.parts,
            self.header.layers,
            &solution.settings,
            &solution.moved,
        )
    }
}

fn compute_of(gauged: &Gauged, device: &str) -> u64 {
    let own = gauged
        .buffers
        .iter()
        .filter(|buffer| buffer.device == device && !buffer.host);
    own.map(|buffer| buffer.compute).sum()
}

/// Whether one GPU does everything.
pub(super) fn alone(config: &EngineConfig) -> bool {
    config.placement.split == Split::None
}

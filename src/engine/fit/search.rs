//! From what the user wants to the placement that fits: gauge, move, gauge again.

mod estimate;
mod fill;
mod hopeless;
mod layers;
#[cfg(test)]
pub(super) mod machine;
mod room;
mod share;
mod shrink;
#[cfg(test)]
mod tests;

use self::{estimate::Lesson, room::signed};
use super::{
    layout::{self, At, Class, Moved, Part},
    memory::HostMemory,
};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, Mtp, Split},
    engine::{
        fit::Settings,
        gguf::Header,
        llama::{Gauged, Gpu, LoadError},
        task::Task,
    },
};

/// More rounds than ever were needed; each part of the search ends in 1 to 3.
const ROUNDS: usize = 12;

/// Tells what a placement takes. The real one asks llama.cpp: about 0.1 s for a model of 22 GB.
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
    pub(super) task: Task,
    pub(super) header: &'a Header,
    pub(super) config: &'a EngineConfig,
    pub(super) parts: &'a [Part],
    /// Those to be used, in order.
    pub(super) gpus: &'a [Gpu],
    pub(super) host: HostMemory,
    /// Bytes to leave free on each GPU, the host's last.
    pub(super) margins: &'a [u64],
}

/// A placement to ask about.
#[derive(Debug, Clone, PartialEq)]
struct Draft {
    context: u32,
    gpu_layers: u32,
    split: Vec<f32>,
    moved: Moved,
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

#[derive(Debug)]
pub(super) enum Outcome {
    Fits(Box<Solution>),
    Lacks(Box<Shortage>),
}

impl Solution {
    fn draft(&self) -> Draft {
        Draft {
            context: self.context,
            gpu_layers: self.settings.gpu_layers,
            split: self.settings.tensor_split.clone(),
            moved: self.moved.clone(),
        }
    }
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
        let (whole, lesson) = self.whole(gauge)?;
        if self.fits(&whole) {
            return Ok(Outcome::Fits(Box::new(whole)));
        }
        // Who allows a smaller context wants everything on the GPU, if that is possible at all.
        if let Some(shrunk) = self.shrink(gauge, &whole)? {
            return Ok(Outcome::Fits(Box::new(shrunk)));
        }
        let best = self.best(gauge, whole, lesson)?;
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

    /// All that was wished for, shared out among the GPUs so that it fits if it can.
    fn whole(&self, gauge: &mut dyn Gauge) -> Result<(Solution, Lesson), LoadError> {
        let mut draft = self.wished();
        let sizes = self.sizes(&draft.moved);
        let mut lesson = Lesson::none(self.gpus.len());
        let mut tried = Vec::new();
        loop {
            let whole = self.attempt(gauge, draft.clone())?;
            lesson = self.learn(&lesson, &whole);
            tried.push(draft.split.clone());
            draft.split = self.shares(&lesson, &sizes, draft.gpu_layers);
            let promising = self.expected_fit(&lesson, &sizes, &draft);
            if self.gpus_fit(&whole) || !promising || tried.contains(&draft.split) {
                return Ok((whole, lesson));
            }
        }
    }

    /// Takes off the GPUs what does not fit there: experts first, then layers.
    fn best(
        &self,
        gauge: &mut dyn Gauge,
        whole: Solution,
        lesson: Lesson,
    ) -> Result<Solution, LoadError> {
        let wishes = &self.config.placement;
        if self.gpus_fit(&whole) {
            return Ok(whole); // the host lacks memory, and would lack more
        }
        let (mut best, mut lesson, mut moved) = (whole, lesson, self.wished_moves());
        if wishes.cpu_moe_layers == CpuMoe::Auto {
            moved = self.all_moved();
            (best, lesson) = self.fill(gauge, &best, lesson)?;
        }
        if wishes.gpu_layers == GpuLayers::Auto && !self.gpus_fit(&best) {
            best = self.fewer_layers(gauge, best, lesson, &moved)?;
        }
        Ok(best)
    }

    fn attempt(&self, gauge: &mut dyn Gauge, draft: Draft) -> Result<Solution, LoadError> {
        let settings = self.settings(&draft);
        let gauged = gauge.gauge(self.config, draft.context, &settings)?;
        Ok(Solution {
            context: draft.context,
            settings,
            moved: draft.moved,
            gauged,
        })
    }

    fn settings(&self, draft: &Draft) -> Settings {
        let config = self.config;
        let wishes = &config.placement;
        // The user's own come first: of two that match, the first counts.
        let mut overrides = wishes.tensor_overrides.clone();
        overrides.extend(draft.moved.overrides());
        Settings {
            task: self.task,
            devices: self.gpus.iter().map(|gpu| gpu.name.clone()).collect(),
            gpu_layers: draft.gpu_layers,
            split: wishes.split,
            tensor_split: draft.split.clone(),
            main_gpu: 0, // `gpus` holds only the main one where it works alone
            overrides,
            offload_kqv: config.offload_kqv,
            op_offload: config.op_offload,
            repack: config.repack,
            numa: config.numa,
            mtp: config.speculate.mtp == Mtp::On,
        }
    }

    /// All that the user wishes for, with what is left to us at its best.
    fn wished(&self) -> Draft {
        let (gpu_layers, moved) = (self.wished_layers(), self.wished_moves());
        let lesson = Lesson::none(self.gpus.len());
        Draft {
            context: self.config.context,
            gpu_layers,
            split: self.shares(&lesson, &self.sizes(&moved), gpu_layers),
            moved,
        }
    }

    fn wished_layers(&self) -> u32 {
        let all = self.header.layers + 1;
        match self.config.placement.gpu_layers {
            _ if self.gpus.is_empty() => 0,
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

    pub(super) fn places(&self, solution: &Solution) -> Vec<At> {
        let Solution {
            settings, moved, ..
        } = solution;
        layout::places(self.parts, self.header.layers, settings, moved)
    }
}

/// Whether one GPU does everything.
pub(super) fn alone(config: &EngineConfig) -> bool {
    config.placement.split == Split::None
}

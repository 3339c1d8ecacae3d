//! Model header, devices and configuration to a placement, or why there is none.
//!
//! llama.cpp itself says what a placement takes ([`llama::gauge`]): it plans every buffer without allocating one.
//! Which placement to ask about, and what to make of the answer, is decided here.

mod adapters;
mod advice;
mod assemble;
mod check;
pub(crate) mod draft;
mod layout;
pub(crate) mod memory;
mod plan;
mod search;

use std::path::{Path, PathBuf};

pub use plan::{Cache, Device, Elsewhere, Facts, HOST, Layer, Place, Plan, Settings, Weights};

use self::{
    memory::HostMemory,
    search::{Gauge, Outcome, Problem},
};
use super::{
    gguf::{self, Header},
    llama::{self, Gauged, Gpu, LoadError},
    rpc,
    task::Task,
    threads,
};
use crate::config::{EngineConfig, GpuLayers, Kind, Mtp};

/// Why there is no placement.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A machine that is to lend its devices does not.
    #[error(transparent)]
    Worker(#[from] rpc::Unusable),
    /// A setting that cannot be followed with this model or on this machine.
    #[error("{field}: {why}")]
    Refused { field: &'static str, why: String },
    #[error(
        "engine.context = {context} is more than the {trained} tokens that the model was trained with; \
         set it to {trained} or less, or set engine.beyond_trained_context = true and expect worse answers"
    )]
    TrainedContext { context: u32, trained: u64 },
    /// Too little memory, with settings that would fit.
    #[error("{message}")]
    Shortage {
        message: String,
        /// Bytes free on all devices together.
        room: u64,
    },
}

/// Bytes that the host keeps for the process itself and its neighbours.
const HOST_MARGIN: u64 = 256 << 20;

/// Files to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files<'a> {
    pub model: &'a Path,
    pub projector: Option<&'a Path>,
    /// LoRA adapters.
    pub adapters: &'a [PathBuf],
    /// A smaller model that guesses.
    pub draft: Option<&'a Path>,
}

impl<'a> Files<'a> {
    /// A model with nothing beside it.
    pub fn alone(model: &'a Path) -> Self {
        Self {
            model,
            projector: None,
            draft: None,
            adapters: &[],
        }
    }
}

/// Computes the placement of the model in `file`: reads its header and looks at the devices, loads nothing.
/// [`llama::init`] comes first.
pub fn fit(file: &Path, config: &EngineConfig) -> Result<Plan, FitError> {
    fit_as(Kind::Auto, file, config)
}

/// The same for a model that is to be served as `kind`.
pub fn fit_as(kind: Kind, file: &Path, config: &EngineConfig) -> Result<Plan, FitError> {
    fit_all(kind, Files::alone(file), config)
}

/// The same for a model with what belongs to it.
pub fn fit_all(kind: Kind, files: Files<'_>, config: &EngineConfig) -> Result<Plan, FitError> {
    let Some(file) = files.draft else {
        return fit_beside(kind, files, config, None);
    };
    let mut refused = None;
    for place in draft::places(config, &check::gpus(config, &present(config)?)?)? {
        let fitted = draft::fit(files.model, file, config, place.as_deref())
            .and_then(|draft| fit_beside(kind, files, config, Some(draft)));
        match fitted {
            Err(shortage @ FitError::Shortage { .. }) => refused = Some(shortage),
            end => return end,
        }
    }
    match (refused, fit_beside(kind, files, config, None)) {
        (Some(shortage), Ok(_)) => Err(draft::too_much(&shortage)),
        (_, alone) => alone, // without it there is not enough memory either
    }
}

/// The same with the model that guesses placed already.
fn fit_beside(
    kind: Kind,
    files: Files<'_>,
    config: &EngineConfig,
    draft: Option<Plan>,
) -> Result<Plan, FitError> {
    let file = files.model;
    let header = read(file)?;
    let task = Task::of(&header, kind, config).map_err(|why| FitError::Refused {
        field: "model.kind",
        why,
    })?;
    let config = &draft::resolved(config, task, &header)?;
    let present = present(config)?;
    let chosen = check::gpus(config, &present)?;
    check::settings(config, &header, &chosen)?;
    let mut parts = layout::parts(&header, config.speculate.mtp);
    check::pin(config, &chosen, &present, &mut parts)?;
    let projector = projector(files.projector, task, config, &chosen)?;
    let adapters = adapters::check(files, task)?;
    let drafting = match &draft {
        Some(draft) => draft.beside(&chosen),
        None => vec![0; chosen.len() + 1],
    };
    let worn = adapters::most(&adapters, chosen.len());
    let beside = |at: usize| {
        let taken = [projector[at] > 0, drafting[at] > 0];
        let heads = usize::from(config.speculate.mtp == Mtp::On);
        heads + taken.into_iter().filter(|taken| *taken).count()
    };
    let margins: Vec<u64> = (0..chosen.len())
        .map(|at| margin(config, beside(at)))
        .chain([HOST_MARGIN])
        .zip(projector.iter().zip(&drafting))
        .map(|(margin, (projector, draft))| margin + projector + draft)
        .zip(&worn)
        .map(|(margin, adapters)| margin + adapters)
        .collect();
    let problem = Problem {
        task,
        header: &header,
        config,
        parts: &parts,
        gpus: &chosen,
        host: HostMemory::now(),
        margins: &margins,
    };
    let mut gauge = Engine {
        file,
        header: &header,
    };
    match problem.solve(&mut gauge)? {
        Outcome::Fits(solution) => {
            check::attention(config, &solution.gauged)?;
            draft::check_target(config, task, &header, &solution.gauged)?;
            let mut plan = assemble::plan(file, &problem, &solution, &mut gauge)?;
            let beside = projector.into_iter().zip(drafting);
            for (device, (projector, draft)) in plan.devices.iter_mut().zip(beside) {
                device.margin -= projector + draft;
                device.projector = projector;
                device.draft += draft;
            }
            let places = problem.places(&solution);
            let taken = adapters::bytes(&adapters, &parts, &places, chosen.len());
            for ((device, bytes), most) in plan.devices.iter_mut().zip(taken).zip(worn) {
                device.margin -= most;
                device.adapters = bytes;
            }
            plan.draft = draft.map(Box::new);
            Ok(plan)
        }
        Outcome::Lacks(shortage) => Err(advice::shortage(&problem, &shortage, &mut gauge)),
    }
}

fn read(file: &Path) -> Result<Header, LoadError> {
    gguf::check(file).map_err(|error| LoadError::File {
        path: file.to_owned(),
        why: error.to_string(),
    })
}

/// The GPU that a projector works on, by the engine's name; `None`: the CPU.
pub(crate) fn projector_gpu(config: &EngineConfig) -> Result<Option<String>, FitError> {
    let chosen = check::gpus(config, &present(config)?)?;
    Ok(first(&chosen, config).map(|at| chosen[at].name.clone()))
}

/// The GPUs of this machine, and what workers lend.
fn present(config: &EngineConfig) -> Result<Vec<Gpu>, FitError> {
    llama::join(&config.rpc)?;
    Ok(llama::gpus())
}

/// The first GPU of this machine that the model may use.
fn first(gpus: &[Gpu], config: &EngineConfig) -> Option<usize> {
    let may = config.placement.gpu_layers != GpuLayers::Count(0);
    gpus.iter().position(|gpu| may && !gpu.is_remote())
}

/// Bytes that the projector takes of each GPU and of the host.
fn projector(
    file: Option<&Path>,
    task: Task,
    config: &EngineConfig,
    gpus: &[Gpu],
) -> Result<Vec<u64>, FitError> {
    let mut bytes = vec![0; gpus.len() + 1];
    let Some(file) = file else {
        return Ok(bytes);
    };
    if !matches!(task, Task::Generate) {
        return Err(FitError::Refused {
            field: "model.projector",
            why: "is for a model that answers; this one is served for vectors or scores".into(),
        });
    }
    let at = first(gpus, config);
    let gpu = at.map(|at| gpus[at].name.as_str());
    let taken = llama::gauge_projector(file, gpu, threads::decoding(config))?;
    if let Some(at) = at {
        bytes[at] = taken.on_device;
    }
    bytes[gpus.len()] += taken.on_host;
    Ok(bytes)
}

/// llama.cpp as the gauge of placements of one file.
struct Engine<'a> {
    file: &'a Path,
    header: &'a Header,
}

impl Gauge for Engine<'_> {
    fn gauge(
        &mut self,
        config: &EngineConfig,
        context: u32,
        settings: &Settings,
    ) -> Result<Gauged, LoadError> {
        llama::gauge(self.file, self.header, config, context, settings)
    }
}

/// What a GPU must have left beside the planned buffers, in bytes: kernels, their libraries and their scratch memory.
/// 188–227 MiB were seen with ubatches of 512 (H200, CUDA 13), in the warm-up and not a byte more afterwards; scratch
/// memory grows with the ubatch. Each context `beside` the model's has libraries of its own: 116 MiB for prediction layers.
fn margin(config: &EngineConfig, beside: usize) -> u64 {
    const KERNELS_MIB: u64 = 192;
    const CONTEXT_MIB: u64 = 128;
    const TOKENS_PER_MIB: u64 = 6;
    let automatic = || {
        let scratch = u64::from(config.ubatch).div_ceil(TOKENS_PER_MIB);
        KERNELS_MIB + scratch + CONTEXT_MIB * beside as u64
    };
    config.placement.margin.map_or_else(automatic, u64::from) << 20
}

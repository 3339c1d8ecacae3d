//! Model header, devices and configuration to a placement, or why there is none.
//!
//! llama.cpp itself says what a placement takes ([`llama::gauge`]): it plans every buffer without allocating one.
//! Which placement to ask about, and what to make of the answer, is decided here.

mod adapters;
mod advice;
mod check;
pub(crate) mod draft;
mod layout;
pub(crate) mod memory;
mod plan;
mod search;

use std::path::{Path, PathBuf};

pub use plan::{Cache, Device, Elsewhere, Facts, HOST, Layer, Place, Plan, Settings, Weights};

use self::{
    layout::Part,
    memory::HostMemory,
    search::{Gauge, Outcome, Problem, Solution},
};
use super::{
    gguf::{self, Header},
    llama::{self, Gauged, Gpu, LoadError},
    rpc,
    task::Task,
    threads,
};
use crate::config::{EngineConfig, GpuLayers, Kind, KvType, Load};

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
    let margins: Vec<u64> = chosen
        .iter()
        .map(|_| margin(config))
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
            let mut plan = plan(file, &problem, &solution, &mut gauge)?;
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
/// memory grows with the ubatch.
fn margin(config: &EngineConfig) -> u64 {
    const KERNELS_MIB: u64 = 192;
    const TOKENS_PER_MIB: u64 = 6;
    let automatic = || KERNELS_MIB + u64::from(config.ubatch).div_ceil(TOKENS_PER_MIB);
    config.placement.margin.map_or_else(automatic, u64::from) << 20
}

fn plan(
    file: &Path,
    problem: &Problem<'_>,
    solution: &Solution,
    gauge: &mut Engine<'_>,
) -> Result<Plan, LoadError> {
    let Problem { header, config, .. } = *problem;
    let places = problem.places(solution);
    let threads = threads::decoding(config);
    // Texts that are only read share one context, and come a ubatch at a time.
    let (parallel, batch) = match problem.task {
        Task::Generate => (config.parallel, config.batch.max(config.parallel)),
        Task::Encode(_) => (1, config.ubatch),
    };
    let fixed = fixed_cache(problem, solution, gauge)?;
    Ok(Plan {
        model: facts(file, header, problem.parts),
        context: solution.context,
        parallel,
        kv: config.kv,
        batch,
        ubatch: config.ubatch,
        flash_attention: solution.gauged.flash_attention,
        threads,
        threads_batch: config.threads_batch.unwrap_or(threads),
        load: match config.load {
            Load::Auto => Load::Mmap,
            chosen => chosen,
        },
        devices: devices(problem, solution, &places, &fixed),
        layers: layout::layers(problem.parts, &places, header.layers, &solution.settings),
        settings: solution.settings.clone(),
        draft: None,
    })
}

fn facts(file: &Path, header: &Header, parts: &[Part]) -> Facts {
    let stem = || {
        file.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    Facts {
        name: header.name.clone().unwrap_or_else(stem),
        architecture: header.architecture.clone(),
        weight_bytes: layout::weight_bytes(parts),
        layers: header.layers,
        experts: header.experts,
        experts_used: header.experts_used,
        trained_context: header
            .trained_context
            .and_then(|tokens| u32::try_from(tokens).ok())
            .unwrap_or(0),
    }
}

/// Cache that does not grow with the context, on each GPU and the host: recurrent states, windows.
fn fixed_cache(
    problem: &Problem<'_>,
    solution: &Solution,
    gauge: &mut Engine<'_>,
) -> Result<Vec<u64>, LoadError> {
    const STEP: u32 = 256;
    let full = cache(problem, &solution.gauged);
    let cells = solution.context.div_ceil(STEP);
    if !problem.header.keeps_states && !problem.header.slides {
        return Ok(vec![0; full.len()]);
    }
    // One device and no windows: the shapes in the header tell.
    let whole: u64 = full.iter().sum();
    if let Some(grows) = growing_cache(problem, u64::from(cells * STEP))
        && grows <= whole
        && full.iter().filter(|bytes| **bytes > 0).count() == 1
    {
        let fixed = whole - grows;
        return Ok(full.iter().map(|bytes| (*bytes).min(fixed)).collect());
    }
    if cells < 2 {
        return Ok(vec![0; full.len()]);
    }
    // Two points make the line: what is left of it at no context is the fixed part.
    let half = cells / 2;
    let gauged = gauge.gauge(problem.config, half * STEP, &solution.settings)?;
    Ok(full
        .iter()
        .zip(cache(problem, &gauged))
        .map(|(&full, at_half)| {
            let grows = full.saturating_sub(at_half) * u64::from(cells) / u64::from(cells - half);
            full.saturating_sub(grows)
        })
        .collect())
}

/// Bytes of keys and values of the layers that have them, where all of those are alike.
fn growing_cache(problem: &Problem<'_>, tokens: u64) -> Option<u64> {
    let Problem { header, config, .. } = *problem;
    if header.slides || header.kv_heads * header.key_length * header.value_length == 0 {
        return None;
    }
    // Prediction layers have a context of their own.
    let blocks = header.layers - header.prediction_layers;
    let layers = problem
        .parts
        .iter()
        .filter(|part| part.local_name() == "attn_k.weight")
        .filter(|part| part.layer.is_some_and(|layer| layer < blocks))
        .count() as u64;
    let bytes = |kind: KvType, length: u64| {
        let (elements, bytes) = kind.block();
        header.kv_heads * length / elements * bytes
    };
    let row = bytes(config.kv.k, header.key_length) + bytes(config.kv.v, header.value_length);
    Some(layers * row * tokens * u64::from(config.parallel))
}

fn cache(problem: &Problem<'_>, gauged: &Gauged) -> Vec<u64> {
    let mut sums = vec![0; problem.gpus.len() + 1];
    for buffer in &gauged.buffers {
        sums[problem.position(&buffer.device, buffer.host)] += buffer.cache;
    }
    sums
}

fn devices(
    problem: &Problem<'_>,
    solution: &Solution,
    places: &[layout::At],
    fixed: &[u64],
) -> Vec<Device> {
    let gpus = problem.gpus.len();
    let expected = layout::weights(problem.parts, places, gpus);
    let cache = cache(problem, &solution.gauged);
    let described = problem
        .gpus
        .iter()
        .map(|gpu| {
            (
                gpu.name.clone(),
                gpu.description.clone(),
                gpu.total,
                gpu.free,
            )
        })
        .chain([(
            HOST.to_owned(),
            "memory of the machine".to_owned(),
            problem.host.total,
            problem.host.available,
        )]);
    described
        .enumerate()
        .map(|(at, (name, description, total, free))| {
            let own = || {
                let buffers = solution.gauged.buffers.iter();
                buffers.filter(move |buffer| problem.position(&buffer.device, buffer.host) == at)
            };
            let heads = solution.gauged.heads.iter();
            let heads = heads.filter(|heads| problem.position(&heads.device, heads.host) == at);
            let gauged: u64 = own().map(|buffer| buffer.weights).sum();
            let mut weights = expected[at];
            // Alignment, and small tensors that the engine makes itself.
            weights.dense += gauged.saturating_sub(weights.total());
            let (k, v) = (per_element(problem, true), per_element(problem, false));
            let grows = cache[at] - fixed[at];
            let keys = u64::try_from(u128::from(grows) * u128::from(k) / u128::from(k + v))
                .unwrap_or(grows);
            Device {
                name,
                description,
                total,
                free,
                weights,
                kv: Cache {
                    keys,
                    values: grows - keys,
                    state: fixed[at],
                },
                compute: own().map(|buffer| buffer.compute).sum(),
                projector: 0,
                adapters: 0,
                draft: heads.map(|heads| heads.cache + heads.compute).sum(),
                margin: problem.margins[at],
            }
        })
        .collect()
}

/// Bytes of one head's key (or value) for a thousand tokens: keys and values share the cache in this proportion.
fn per_element(problem: &Problem<'_>, keys: bool) -> u64 {
    let (kind, length) = if keys {
        (problem.config.kv.k, problem.header.key_length)
    } else {
        (problem.config.kv.v, problem.header.value_length)
    };
    let (elements, bytes) = kind.block();
    1000 * length.max(1) * bytes / elements
}

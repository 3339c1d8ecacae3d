//! The model that guesses for another one: whether the two suit each other, and where it lies.

use std::path::Path;

use super::{FitError, Plan, first, fit_as, read};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, Kind, Mtp, Placement, Speculate, Split},
    engine::{
        gguf::{self, Header},
        llama::{Gauged, Gpu, LoadError},
        task::Task,
    },
};

const FIELD: &str = "engine.speculate.draft";
/// What `engine.speculate.draft_device` calls the machine's own memory.
const CPU: &str = "CPU";

fn refuse(field: &'static str, why: impl Into<String>) -> FitError {
    FitError::Refused {
        field,
        why: why.into(),
    }
}

/// Where the model that guesses may lie, the best first: a GPU by name, or the host.
pub(super) fn places(config: &EngineConfig, gpus: &[Gpu]) -> Result<Vec<Option<String>>, FitError> {
    const FIELD: &str = "engine.speculate.draft_device";
    match config.speculate.draft_device.as_deref() {
        None => {
            let gpu = first(gpus, config).map(|at| Some(gpus[at].name.clone()));
            Ok(gpu.into_iter().chain([None]).collect())
        }
        Some(CPU) => Ok(vec![None]),
        Some(name) if gpus.iter().any(|gpu| gpu.name == name) => Ok(vec![Some(name.to_owned())]),
        Some(name) => {
            let mut accepted = vec!["'auto".to_owned(), format!("{CPU:?}")];
            accepted.extend(gpus.iter().map(|gpu| format!("{:?}", gpu.name)));
            Err(refuse(
                FIELD,
                format!(
                    "{name:?} is none of the devices that the model may use; accepted here: {}",
                    accepted.join(", ")
                ),
            ))
        }
    }
}

/// The placement of the model in `file`, which shall guess for the one in `target`, all of it at `place`.
pub(super) fn fit(
    target: &Path,
    file: &Path,
    config: &EngineConfig,
    place: Option<&str>,
) -> Result<Plan, FitError> {
    let header = read(file)?;
    let trained = header
        .trained_context
        .and_then(|tokens| u32::try_from(tokens).ok());
    let longest = trained.filter(|&tokens| tokens > 0).unwrap_or(u32::MAX);
    // Longer sequences go on without guesses.
    let config = settings(config, config.context.min(longest), place);
    match Task::of(&header, Kind::Auto, &config) {
        Ok(Task::Generate) => {}
        Ok(Task::Encode(_)) => {
            return Err(refuse(
                FIELD,
                "this model makes vectors or scores and cannot guess; accepted: one that generates",
            ));
        }
        Err(why) => return Err(refuse(FIELD, why)),
    }
    if header.keeps_states || header.slides {
        return Err(refuse(
            FIELD,
            format!(
                "{} models have recurrent layers or windows of attention, and what they guessed wrongly cannot be taken \
                 back at any token; accepted: a model with attention to all that came before",
                header.architecture
            ),
        ));
    }
    let differ = gguf::vocabularies_differ(file, target).map_err(|error| LoadError::File {
        path: file.to_owned(),
        why: error.to_string(),
    })?;
    if let Some(how) = differ {
        return Err(refuse(
            FIELD,
            format!(
                "this model speaks with other tokens: {how}; accepted: a model with the same vocabulary, usually a smaller \
                 one of the same family"
            ),
        ));
    }
    fit_as(Kind::Chat, file, &config).map_err(|error| match error {
        FitError::Refused {
            field: "engine.kv.k",
            why,
        } => refuse("engine.speculate.draft_kv.k", why),
        FitError::Refused {
            field: "engine.kv.v" | "engine.kv",
            why,
        } => refuse("engine.speculate.draft_kv.v", why),
        other => other,
    })
}

/// The configuration of the model that guesses: as the other's, but for what is its own.
pub(crate) fn settings(config: &EngineConfig, context: u32, place: Option<&str>) -> EngineConfig {
    EngineConfig {
        context,
        kv: config.speculate.draft_kv,
        speculate: Speculate {
            ngram: false,
            draft: None,
            mtp: Mtp::Off,
            ..config.speculate.clone()
        },
        placement: Placement {
            gpu_layers: match place {
                Some(_) => GpuLayers::All,
                None => GpuLayers::Count(0),
            },
            cpu_moe_layers: CpuMoe::Auto,
            tensor_overrides: Vec::new(),
            devices: Some(place.map(str::to_owned).into_iter().collect()),
            split: Split::Layer,
            tensor_split: Vec::new(),
            main_gpu: 0,
            margin: Some(0), // that of the model it guesses for is enough for both
            min_context: None,
        },
        ..config.clone()
    }
}

/// Models whose prediction layers the engine can use: one layer, fed with the hidden state before the output.
const PREDICTING: [&str; 2] = ["qwen35", "qwen35moe"];

/// The configuration with it settled whether the model's prediction layers guess.
pub(super) fn resolved(
    config: &EngineConfig,
    task: Task,
    header: &Header,
) -> Result<EngineConfig, FitError> {
    const FIELD: &str = "engine.speculate.mtp";
    let known = PREDICTING.contains(&header.architecture.as_str());
    let usable = header.prediction_layers == 1 && known;
    let speculate = &config.speculate;
    let mtp = match speculate.mtp {
        Mtp::Off => Mtp::Off,
        Mtp::Auto => {
            let may = speculate.draft.is_none() && !config.reproducible && task == Task::Generate;
            if may && usable { Mtp::On } else { Mtp::Off }
        }
        Mtp::On if usable => Mtp::On,
        Mtp::On => {
            let why = if header.prediction_layers == 0 {
                format!(
                    "the model's file has no prediction layers ({}.nextn_predict_layers)",
                    header.architecture
                )
            } else if known {
                format!(
                    "the model has {} prediction layers, and the engine uses one",
                    header.prediction_layers
                )
            } else {
                format!(
                    "prediction layers of {} models are not used by this engine, only those of {}",
                    header.architecture,
                    PREDICTING.join(" and ")
                )
            };
            return Err(refuse(
                FIELD,
                format!("{why}; accepted here: false or 'auto"),
            ));
        }
    };
    Ok(EngineConfig {
        speculate: Speculate {
            mtp,
            ..speculate.clone()
        },
        ..config.clone()
    })
}

/// Whether wrong guesses of a drafter can be taken back.
pub(super) fn check_target(
    config: &EngineConfig,
    task: Task,
    header: &Header,
    gauged: &Gauged,
) -> Result<(), FitError> {
    let speculate = &config.speculate;
    let field = match (&speculate.draft, speculate.mtp) {
        (Some(_), _) => FIELD,
        (None, Mtp::On) => "engine.speculate.mtp",
        (None, Mtp::Auto | Mtp::Off) => return Ok(()),
    };
    if task != Task::Generate {
        return Err(refuse(
            field,
            "is for a model that answers; this one is served for vectors or scores",
        ));
    }
    if header.slides || (header.keeps_states && gauged.kept_states == 0) {
        return Err(refuse(
            field,
            format!(
                "wrong guesses cannot be taken back from the states of {} models in this engine; accepted here: {}",
                header.architecture,
                if field == FIELD { "null" } else { "false" }
            ),
        ));
    }
    Ok(())
}

/// The model fits, but not with the one that guesses beside it.
pub(super) fn too_much(shortage: &FitError) -> FitError {
    refuse(
        FIELD,
        format!("does not fit beside the model, which would fit without it. With it: {shortage}"),
    )
}

//! LoRA adapters in a placement: whether they belong to the model, and what they take beside its weights.

use std::path::PathBuf;

use super::{
    Files, FitError,
    layout::{At, Part},
};
use crate::engine::{
    gguf::{Adapter, AdapterError},
    llama::LoadError,
    task::Task,
};

const FIELD: &str = "model.adapters";

/// Reads the adapters' headers, each of which must fit the model.
pub(super) fn check(files: Files<'_>, task: Task) -> Result<Vec<Adapter>, FitError> {
    if !files.adapters.is_empty() && !matches!(task, Task::Generate) {
        return Err(FitError::Refused {
            field: FIELD,
            why: "are for a model that answers; this one is served for vectors or scores".into(),
        });
    }
    let check = |file: &PathBuf| {
        Adapter::check(file, files.model).map_err(|error| match error {
            AdapterError::File(error) => FitError::Load(LoadError::File {
                path: file.clone(),
                why: error.to_string(),
            }),
            AdapterError::Unfit(why) => FitError::Refused {
                field: FIELD,
                why: format!("{}: {why}", file.display()),
            },
        })
    };
    files.adapters.iter().map(check).collect()
}

/// The most that they can take of each GPU and of the host, wherever the weights will lie.
pub(super) fn most(adapters: &[Adapter], gpus: usize) -> Vec<u64> {
    let changes = adapters.iter().flat_map(|adapter| &adapter.changes);
    vec![changes.map(|change| change.bytes).sum(); gpus + 1]
}

/// What they take of each GPU and of the host: they lie where the tensors lie that they change.
pub(super) fn bytes(adapters: &[Adapter], parts: &[Part], places: &[At], gpus: usize) -> Vec<u64> {
    let mut bytes = vec![0; gpus + 1];
    for change in adapters.iter().flat_map(|adapter| &adapter.changes) {
        let part = parts.iter().position(|part| part.name == change.name);
        let place = part.and_then(|part| places[part]);
        bytes[place.unwrap_or(gpus)] += change.bytes;
    }
    bytes
}

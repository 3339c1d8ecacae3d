//! LoRA adapters at start: what requests and the fingerprint are told of them.

use super::{LoadFailure, locate::Proved};
use crate::{
    api::{Lora, Loras},
    config::AdapterConfig,
    engine::{
        gguf::{Adapter, AdapterError},
        llama::LoadError,
    },
    lock::Digest,
};

/// The adapters as requests see them.
pub(crate) fn loras(configured: &[AdapterConfig], proved: &Proved) -> Result<Loras, LoadFailure> {
    let files = proved.adapters.iter().zip(&proved.adapters_sha256);
    let loras = configured
        .iter()
        .zip(files)
        .map(|(configured, (file, sha256))| {
            let header = Adapter::read(file).map_err(|error| match error {
                AdapterError::File(error) => LoadError::File {
                    path: file.clone(),
                    why: error.to_string(),
                },
                AdapterError::Unfit(why) => LoadError::Refused {
                    field: "model.adapters",
                    why,
                },
            })?;
            Ok(Lora {
                name: configured.name.clone(),
                alias: configured.alias.clone(),
                sha256: sha256.to_string(),
                scale: configured.scale,
                task: header.task,
                prompt_prefix: header.prompt_prefix,
                invocation: header.invocation,
            })
        });
    let loras = Loras::new(loras.collect::<Result<_, LoadFailure>>()?);
    loras.usual(&[]).map_err(|why| LoadError::Refused {
        field: "model.adapters",
        why,
    })?;
    Ok(loras)
}

/// Of each adapter the digest and the scale.
pub(super) fn scales(configured: &[AdapterConfig], sha256: &[Digest]) -> Vec<(String, f32)> {
    let pairs = sha256.iter().zip(configured);
    pairs
        .map(|(sha256, configured)| (sha256.to_string(), configured.scale))
        .collect()
}

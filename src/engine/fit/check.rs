//! Settings that cannot be followed with this model or on this machine, each refused with what would be accepted.

use super::{FitError, layout::Part, search};
use crate::{
    config::{CpuMoe, EngineConfig, GpuLayers, KvType, Overflow, Split},
    engine::{
        gguf::Header,
        llama::{self, Gauged, Gpu},
        threads,
    },
};

fn refuse(field: &'static str, why: impl Into<String>) -> FitError {
    FitError::Refused {
        field,
        why: why.into(),
    }
}

/// The GPUs to use, in the configuration's order.
pub(super) fn gpus(config: &EngineConfig, present: &[Gpu]) -> Result<Vec<Gpu>, FitError> {
    let wishes = &config.placement;
    let mut chosen = Vec::new();
    match &wishes.devices {
        None => chosen.extend_from_slice(present),
        Some(names) => {
            const FIELD: &str = "engine.placement.devices";
            for name in names {
                if chosen.iter().any(|gpu: &Gpu| gpu.name == *name) {
                    return Err(refuse(FIELD, format!("{name:?} is named twice")));
                }
                chosen.push(find(FIELD, name, present)?.clone());
            }
        }
    }
    if search::alone(config) && !chosen.is_empty() {
        let at = wishes.main_gpu as usize;
        if at >= chosen.len() {
            return Err(refuse(
                "engine.placement.main_gpu",
                format!(
                    "{at} is no position in the {} used GPUs; accepted: 0–{}",
                    chosen.len(),
                    chosen.len() - 1
                ),
            ));
        }
        chosen = vec![chosen.swap_remove(at)];
    }
    Ok(chosen)
}

fn find<'a>(field: &'static str, name: &str, present: &'a [Gpu]) -> Result<&'a Gpu, FitError> {
    present.iter().find(|gpu| gpu.name == name).ok_or_else(|| {
        let there = if present.is_empty() {
            "the engine sees no GPU on this machine; accepted: 'auto or []".to_owned()
        } else {
            let names: Vec<_> = present
                .iter()
                .map(|gpu| format!("{:?} ({})", gpu.name, gpu.description))
                .collect();
            format!("this machine has {}", names.join(", "))
        };
        refuse(field, format!("no GPU is called {name:?}; {there}"))
    })
}

/// Everything that needs no gauge.
pub(super) fn settings(
    config: &EngineConfig,
    header: &Header,
    gpus: &[Gpu],
) -> Result<(), FitError> {
    context(config, header)?;
    overflow(config, header)?;
    cache_types(config, header)?;
    layers(config, header, gpus)?;
    split(config, gpus)?;
    mask(config)
}

fn context(config: &EngineConfig, header: &Header) -> Result<(), FitError> {
    match header.trained_context {
        Some(trained)
            if trained > 0
                && u64::from(config.context) > trained
                && !config.beyond_trained_context =>
        {
            Err(FitError::TrainedContext {
                context: config.context,
                trained,
            })
        }
        _ => Ok(()),
    }
}

fn overflow(config: &EngineConfig, header: &Header) -> Result<(), FitError> {
    if config.overflow == Overflow::Shift && (header.slides || header.keeps_states) {
        return Err(refuse(
            "engine.overflow",
            "'shift needs a model that sees its whole context in every layer, and some of this one's hold states or a \
             window of it; accepted: 'error",
        ));
    }
    Ok(())
}

fn cache_types(config: &EngineConfig, header: &Header) -> Result<(), FitError> {
    let pairs = [
        ("engine.kv.k", config.kv.k, header.key_length),
        ("engine.kv.v", config.kv.v, header.value_length),
    ];
    for (field, kind, length) in pairs {
        let (block, _) = kind.block();
        if length % block != 0 {
            let whole =
                [KvType::F16, KvType::Bf16, KvType::F32].map(|kind| format!("'{}", kind.name()));
            return Err(refuse(
                field,
                format!(
                    "'{} packs {block} elements together, which does not divide the model's head size of {length}; \
                     accepted: {}",
                    kind.name(),
                    whole.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

fn layers(config: &EngineConfig, header: &Header, gpus: &[Gpu]) -> Result<(), FitError> {
    const GPU: &str = "engine.placement.gpu_layers";
    const MOE: &str = "engine.placement.cpu_moe_layers";
    let wishes = &config.placement;
    let all = header.layers + 1;
    let wanted = match wishes.gpu_layers {
        GpuLayers::Auto | GpuLayers::Count(0) => None,
        GpuLayers::All => Some("'all".to_owned()),
        GpuLayers::Count(count) if count > all => {
            return Err(refuse(
                GPU,
                format!(
                    "{count} is more than the model has: {} layers and the output; accepted: 0–{all}, 'all or 'auto",
                    header.layers
                ),
            ));
        }
        GpuLayers::Count(count) => Some(count.to_string()),
    };
    if let Some(wanted) = wanted
        && gpus.is_empty()
    {
        return Err(refuse(
            GPU,
            format!("{wanted} needs a GPU, and none is used; accepted here: 'auto or 0"),
        ));
    }
    match wishes.cpu_moe_layers {
        CpuMoe::Count(count) if count > header.layers => Err(refuse(
            MOE,
            format!(
                "{count} is more than the model's {} layers; accepted: 0–{}, 'all or 'auto",
                header.layers, header.layers
            ),
        )),
        CpuMoe::Count(1..) | CpuMoe::All if header.experts == 0 => Err(refuse(
            MOE,
            "the model has no experts; accepted: 'auto or 0",
        )),
        _ => Ok(()),
    }
}

fn split(config: &EngineConfig, gpus: &[Gpu]) -> Result<(), FitError> {
    const FIELD: &str = "engine.placement.tensor_split";
    // The engine's CUDA backend has lost its split buffers; llama.cpp would refuse later and name no setting.
    if config.placement.split == Split::Row && !gpus.is_empty() {
        return Err(refuse(
            "engine.placement.split",
            "'row is not offered by this engine's GPU backends; accepted: 'layer or 'none",
        ));
    }
    let shares = &config.placement.tensor_split;
    if shares.is_empty() {
        return Ok(());
    }
    if shares.len() != gpus.len() {
        return Err(refuse(
            FIELD,
            format!(
                "{} shares for {} used GPUs; expected one for each, or [] to fit them",
                shares.len(),
                gpus.len()
            ),
        ));
    }
    if shares.iter().all(|share| *share == 0.0) {
        return Err(refuse(
            FIELD,
            "every share is 0; expected one above it, or []",
        ));
    }
    Ok(())
}

fn mask(config: &EngineConfig) -> Result<(), FitError> {
    const FIELD: &str = "engine.cpu_mask";
    let Some(mask) = &config.cpu_mask else {
        return Ok(());
    };
    let allowed = threads::allowed_cpus();
    let wanted = threads::parse_list(mask).ok_or_else(|| {
        refuse(
            FIELD,
            format!("{mask:?} is no list of CPUs; expected one such as \"0-7,16\""),
        )
    })?;
    match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => Err(refuse(
            FIELD,
            format!(
                "CPU {cpu} is not one that this process may use; accepted: {}",
                threads::list(&allowed)
            ),
        )),
        None => Ok(()),
    }
}

/// Finds what each of the user's overrides matches; the first that does counts.
pub(super) fn pin(
    config: &EngineConfig,
    chosen: &[Gpu],
    present: &[Gpu],
    parts: &mut [Part],
) -> Result<(), FitError> {
    const FIELD: &str = "engine.placement.tensor_overrides";
    for (at, wish) in config.placement.tensor_overrides.iter().enumerate() {
        if wish.device != "CPU" {
            let gpu = find(FIELD, &wish.device, present)?;
            if !chosen.contains(gpu) {
                return Err(refuse(
                    FIELD,
                    format!(
                        "{:?} is not among the GPUs that engine.placement.devices and split use",
                        gpu.name
                    ),
                ));
            }
        }
        let found = llama::search(&wish.tensors, parts.iter().map(|part| part.name.as_str()))
            .map_err(|why| {
                refuse(
                    FIELD,
                    format!("{:?} is no regular expression: {why}", wish.tensors),
                )
            })?;
        if !found.contains(&true) {
            let mut names: Vec<_> = parts.iter().map(Part::local_name).collect();
            names.sort_unstable();
            names.dedup();
            return Err(refuse(
                FIELD,
                format!(
                    "{:?} (number {}) matches no tensor of the model; its layers' tensors are called blk.N.… with {}",
                    wish.tensors,
                    at + 1,
                    names.join(", ")
                ),
            ));
        }
        for (part, _) in parts.iter_mut().zip(found).filter(|(_, found)| *found) {
            part.pinned.get_or_insert_with(|| wish.device.clone());
        }
    }
    Ok(())
}

/// Flash attention must run where its cache lies; anything else would move the cache at every step.
pub(super) fn attention(config: &EngineConfig, gauged: &Gauged) -> Result<(), FitError> {
    match &gauged.astray {
        None => Ok(()),
        Some((runs, lies)) => Err(refuse(
            "engine.kv",
            format!(
                "flash attention with keys '{} and values '{} has no kernel on {lies}, where the cache lies, and would \
                 run on {runs}; accepted there: both 'f16, both 'q8_0 or both 'q4_0",
                config.kv.k.name(),
                config.kv.v.name()
            ),
        )),
    }
}

//! LoRA adapters: loaded beside the weights, and put on a context in sets.

use std::{path::Path, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{LoadError, Weights, backend, guard};
use crate::engine::Scaled;

/// An adapter of the weights.
struct Adapter {
    raw: *mut sys::llama_adapter_lora,
    /// It is freed before its model.
    _weights: Arc<Weights>,
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, and no context wears it any more: see `Adapters`.
        unsafe { sys::llama_adapter_lora_free(self.raw) };
    }
}

/// All adapters of a model, in the order of `model.adapters`. A context that wears any is freed before.
#[derive(Default)]
pub(super) struct Adapters {
    loaded: Vec<Adapter>,
    /// What the context computes with now.
    worn: Vec<Scaled>,
}

impl Adapters {
    /// Loads the files. To be called before a context is made, which makes room for the adapters in its graphs.
    pub(super) fn load<'a>(
        weights: &Arc<Weights>,
        files: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Self, LoadError> {
        let load = |file: &Path| {
            let name = backend::c_path(file)?;
            backend::take_errors();
            // SAFETY: the model is loaded, and the context that will compute with it is not made yet.
            let raw = unsafe { guard::adapter(weights.as_mut_ptr(), &name) };
            let raw = raw.map_err(|fault| LoadError::Refused {
                field: "model.adapters",
                why: format!("{}: {}", file.display(), backend::reason(fault)),
            })?;
            Ok(Adapter {
                raw,
                _weights: Arc::clone(weights),
            })
        };
        Ok(Self {
            loaded: files.into_iter().map(load).collect::<Result<_, _>>()?,
            worn: Vec::new(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.loaded.len()
    }

    /// The context is a new one, which wears none.
    pub(super) fn forget(&mut self) {
        self.worn.clear();
    }

    /// # Safety
    /// The context is valid, ours, of the adapters' model, and the one that they were put on before.
    pub(super) unsafe fn put_on(&mut self, context: *mut sys::llama_context, wanted: &[Scaled]) {
        if self.worn == wanted {
            return; // llama.cpp would lay out its graphs anew
        }
        let known = |one: &&Scaled| one.adapter < self.loaded.len();
        let wanted: Vec<_> = wanted.iter().filter(known).copied().collect();
        let mut adapters: Vec<_> = wanted
            .iter()
            .map(|one| self.loaded[one.adapter].raw)
            .collect();
        let mut scales: Vec<_> = wanted.iter().map(|one| one.scale).collect();
        // SAFETY: the caller vouches for the context; there are as many scales as adapters, and both are only read.
        unsafe {
            sys::llama_set_adapters_lora(
                context,
                adapters.as_mut_ptr(),
                adapters.len(),
                scales.as_mut_ptr(),
            );
        }
        self.worn = wanted;
    }
}

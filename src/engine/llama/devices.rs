//! The GPUs that the loaded backends offer, and llama.cpp's own way to search names.

use std::{collections::HashSet, ffi::CString};

use llama_cpp_sys_2 as sys;

use super::{
    backend::string,
    guard::{self, Fault},
};

/// A GPU as the engine sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Such as `CUDA0`.
    pub(crate) name: String,
    pub(crate) description: String,
    /// PCI bus address, where the backend knows it.
    pub(crate) id: String,
    pub(crate) total: u64,
    /// Free now; what the backend's own context takes is already gone.
    pub(crate) free: u64,
}

impl Gpu {
    /// Whether a worker lends it; the RPC backend names its devices so.
    pub(crate) fn is_remote(&self) -> bool {
        self.name.starts_with("RPC")
    }
}

/// What a worker lends by itself: the GPUs, else the CPU.
pub(crate) fn worth_lending() -> Vec<String> {
    let gpus: Vec<_> = gpus().into_iter().map(|gpu| gpu.name).collect();
    if gpus.is_empty() {
        vec!["CPU".to_owned()]
    } else {
        gpus
    }
}

/// The names of all devices of this process, CPUs among them.
pub(crate) fn names() -> Vec<String> {
    handles()
        // SAFETY: the handle is valid and its name lives as long as the device.
        .map(|(handle, _)| unsafe { string(sys::ggml_backend_dev_name(handle)) })
        .collect()
}

/// Every GPU that llama.cpp would choose by itself: each card once, integrated ones only where there is no other.
pub(crate) fn gpus() -> Vec<Gpu> {
    let mut ids = HashSet::new();
    let mut of_kind = |kind| {
        handles()
            .filter(|(_, of)| *of == kind)
            .map(|(handle, _)| describe(handle))
            // Two backends may offer the same card.
            .filter(|gpu| gpu.id.is_empty() || ids.insert(gpu.id.clone()))
            .collect::<Vec<_>>()
    };
    let discrete = of_kind(sys::GGML_BACKEND_DEVICE_TYPE_GPU);
    if discrete.is_empty() {
        of_kind(sys::GGML_BACKEND_DEVICE_TYPE_IGPU)
    } else {
        discrete
    }
}

/// The engine's handle of the GPU called `name`.
pub(super) fn handle(name: &str) -> Option<sys::ggml_backend_dev_t> {
    let name = CString::new(name).ok()?;
    // SAFETY: NUL-terminated.
    let handle = unsafe { sys::ggml_backend_dev_by_name(name.as_ptr()) };
    (!handle.is_null()).then_some(handle)
}

/// Which of `names` llama.cpp finds the regular expression in; the error says what is wrong with it.
pub(crate) fn search<'a>(
    pattern: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<bool>, String> {
    let no_nul = |text: &str| CString::new(text.replace('\0', "")).expect("no NUL is left");
    let names: Vec<_> = names.map(no_nul).collect();
    guard::search(&no_nul(pattern), &names).map_err(|fault| match fault {
        Fault::Caught(why) => why,
        Fault::Code(code) => format!("error {code}"),
    })
}

fn handles() -> impl Iterator<Item = (sys::ggml_backend_dev_t, sys::ggml_backend_dev_type)> {
    // SAFETY: the index is below the count; devices live as long as the process.
    (0..unsafe { sys::ggml_backend_dev_count() }).map(|at| unsafe {
        let handle = sys::ggml_backend_dev_get(at);
        (handle, sys::ggml_backend_dev_type(handle))
    })
}

fn describe(handle: sys::ggml_backend_dev_t) -> Gpu {
    // SAFETY: the handle is valid; the struct is plain data, and its texts live as long as the device.
    unsafe {
        let mut props: sys::ggml_backend_dev_props = std::mem::zeroed();
        sys::ggml_backend_dev_get_props(handle, &raw mut props);
        Gpu {
            name: string(props.name),
            description: string(props.description).trim().to_owned(),
            id: string(props.device_id),
            total: props.memory_total as u64,
            free: props.memory_free as u64,
        }
    }
}

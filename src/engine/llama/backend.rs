//! llama.cpp as a whole: its backends, its log, its aborts, and what it is made of.

use std::{
    env,
    ffi::{CStr, CString, c_char, c_void},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, Once, OnceLock, PoisonError},
};

use llama_cpp_sys_2 as sys;
use serde::{Deserialize, Serialize};

use super::{
    LoadError,
    guard::{self, Fault},
};

/// Prepares llama.cpp for this process: its log goes to `tracing` (target `llama`), aborts are contained,
/// CPU and GPU backends come from the folder beside the binary. May be called again without effect.
///
/// `fatal` is told when llama.cpp would have aborted the process from one of its own threads, which is
/// then parked for ever: the process must end soon after.
pub fn init(fatal: fn(&str)) -> Result<(), LoadError> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = FATAL.set(fatal);
        guard::install(on_fatal);
        // SAFETY: the callback is a plain function that lives as long as the process.
        unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
        // SAFETY: as above.
        unsafe { sys::mtmd_log_set(Some(on_log), std::ptr::null_mut()) };
        // Before `llama_backend_init`, which otherwise loads the build folder's copies as well.
        if let Some(folder) = backend_folder()
            && let Ok(path) = CString::new(folder.as_os_str().as_encoded_bytes())
        {
            // SAFETY: a NUL-terminated path.
            unsafe { sys::ggml_backend_load_all_from_path(path.as_ptr()) };
        }
        // SAFETY: no preconditions.
        unsafe { sys::llama_backend_init() };
    });
    // SAFETY: reads a count.
    if unsafe { sys::ggml_backend_reg_count() } == 0 {
        return Err(LoadError::Backend(format!(
            "no libggml-*.so in {}; set LLM_SERVER_BACKENDS to the folder that has them",
            backend_folder()
                .unwrap_or_else(|| "backends beside the binary".into())
                .display()
        )));
    }
    Ok(())
}

/// `$LLM_SERVER_BACKENDS`, else the first that exists of the places where a build and a package put them.
fn backend_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("LLM_SERVER_BACKENDS") {
        return Some(folder.into());
    }
    let binary = env::current_exe().ok()?;
    let beside = binary.parent()?;
    ["backends", "../backends", "../lib/llm-server/backends"]
        .iter()
        .map(|place| beside.join(place))
        .find(|folder| folder.is_dir())
}

/// Whether a plugin for GPUs of this machine lies among the backends. Loads nothing.
pub(crate) fn has_gpu_plugin() -> bool {
    let folder = backend_folder().and_then(|folder| folder.read_dir().ok());
    folder.into_iter().flatten().flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        let of_another_kind = ["libggml-cpu", "libggml-rpc"];
        name.starts_with("libggml-")
            && !of_another_kind.iter().any(|kind| name.starts_with(kind))
            && name.contains(".so")
    })
}

static FATAL: OnceLock<fn(&str)> = OnceLock::new();

extern "C" fn on_fatal(message: *const c_char) {
    // SAFETY: ggml passes a NUL-terminated message.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    tracing::error!(target: "llama", %message, "llama.cpp aborted");
    if let Some(fatal) = FATAL.get() {
        fatal(&message);
    }
    // Returning would end the process at once, before open streams are told.
    loop {
        std::thread::park();
    }
}

/// Error lines of llama.cpp since [`take_errors`] was last called, for messages about a failed call.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(super) fn take_errors() -> String {
    let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *errors).join("; ")
}

/// Why a guarded call failed, in llama.cpp's words: the error lines that it logged since [`take_errors`].
pub(super) fn reason(fault: Fault) -> String {
    match fault {
        Fault::Caught(why) => why,
        Fault::Code(_) => match take_errors() {
            why if why.is_empty() => "llama.cpp refused it without a reason".into(),
            why => why,
        },
    }
}

extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: ggml passes a NUL-terminated text.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim();
    if text.is_empty() || text == "." {
        return; // the dots of its progress bar
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::warn!(target: "llama", "{text}");
            let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
            if errors.len() < 8 {
                errors.push(text.to_owned());
            }
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::info!(target: "llama", "{text}"),
        _ => tracing::debug!(target: "llama", "{text}"),
    }
}

/// What the engine is made of, for `GET /version`.
#[derive(Debug, Clone, Serialize)]
pub struct Build {
    pub llama_cpp: String,
    pub ggml: String,
    /// Checksum of the engine's source, as pinned in Cargo.lock.
    pub source_sha256: String,
    /// Loaded backends, such as `CPU` and `CUDA`.
    pub backends: Vec<String>,
    pub devices: Vec<String>,
    /// CPU features in use, such as `AVX2`.
    pub cpu_features: Vec<String>,
    /// The CUDA plugin beside the CPU backends, whether it found a GPU or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<Cuda>,
}

/// What a CUDA plugin was built with, from the record that its build laid beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    /// Of the CUDA toolkit, such as `12.9`.
    pub version: String,
    /// As `CMake` names them, such as `90a-real`.
    pub architectures: Vec<String>,
}

impl Cuda {
    fn beside(backends: &Path) -> Option<Self> {
        let record = fs::read(backends.join("cuda.json")).ok()?;
        serde_json::from_slice(&record)
            .inspect_err(|error| tracing::warn!(%error, "cuda.json beside the backends"))
            .ok()
    }
}

/// Call after [`init`].
pub fn build() -> Build {
    // SAFETY: the functions return static NUL-terminated strings, or names owned by loaded backends,
    // which are never unloaded; indices are below the counts.
    unsafe {
        Build {
            llama_cpp: string(sys::llama_version()),
            ggml: string(sys::ggml_version()),
            source_sha256: env!("LLM_SERVER_ENGINE_SHA256").to_owned(),
            backends: (0..sys::ggml_backend_reg_count())
                .map(|at| string(sys::ggml_backend_reg_name(sys::ggml_backend_reg_get(at))))
                .collect(),
            devices: (0..sys::ggml_backend_dev_count())
                .map(|at| {
                    let device = sys::ggml_backend_dev_get(at);
                    let name = string(sys::ggml_backend_dev_name(device));
                    format!(
                        "{name}: {}",
                        string(sys::ggml_backend_dev_description(device)).trim()
                    )
                })
                .collect(),
            cpu_features: features(&string(sys::llama_print_system_info())),
            cuda: backend_folder().and_then(|folder| Cuda::beside(&folder)),
        }
    }
}

/// From `CPU : SSE3 = 1 | AVX2 = 1 | … | CUDA : ARCHS = 900 | …` the CPU's features that are on.
fn features(info: &str) -> Vec<String> {
    let Some((_, cpu)) = info.split_once("CPU :") else {
        return Vec::new();
    };
    cpu.split('|')
        .map(str::trim)
        .take_while(|part| !part.contains(':'))
        .filter_map(|part| part.strip_suffix(" = 1"))
        .map(str::to_owned)
        .collect()
}

/// # Safety
/// `text` is null or NUL-terminated.
pub(super) unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A path as llama.cpp wants it.
pub(super) fn c_path(path: &Path) -> Result<CString, LoadError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LoadError::File {
        path: path.to_owned(),
        why: "the path contains a NUL byte".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cpu_features_that_are_on_are_listed() {
        let info = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | LLAMAFILE = 1 | CUDA : ARCHS = 900 | X = 1 | ";
        assert_eq!(features(info), ["SSE3", "AVX2", "LLAMAFILE"]);
    }

    #[test]
    fn a_cuda_plugin_is_described_by_the_record_beside_it() {
        let backends = tempfile::tempdir().unwrap();
        assert_eq!(Cuda::beside(backends.path()), None);
        let record = r#"{"version": "12.9", "architectures": ["90a-real", "120a-real"]}"#;
        fs::write(backends.path().join("cuda.json"), record).unwrap();
        let cuda = Cuda::beside(backends.path()).unwrap();
        assert_eq!(cuda.version, "12.9");
        assert_eq!(cuda.architectures, ["90a-real", "120a-real"]);
    }
}

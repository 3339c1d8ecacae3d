//! A loaded model: weights and vocabulary.

use std::{
    ffi::{CStr, c_char, c_void},
    path::Path,
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{LoadError, backend, guard, params::ModelParams};
use crate::{
    config::Numa,
    engine::{
        Token,
        fit::Plan,
        gguf,
        model::{About, Fim, Vocab},
    },
};

/// A loaded model's weights and vocabulary; immutable, shared between threads.
pub struct Weights {
    model: *mut sys::llama_model,
    vocab: *const sys::llama_vocab,
    pinned: bool,
}

// SAFETY: llama.cpp never writes to a loaded model; tokenising and reading metadata are const.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

impl Weights {
    /// Loads the file whose header [`crate::engine::fit::fit`] has checked for the plan. `progress` gets 0.0–1.0 and returns whether to go on.
    /// [`super::init`] must have been called.
    pub fn load(
        path: &Path,
        plan: &Plan,
        mut progress: &mut dyn FnMut(f32) -> bool,
    ) -> Result<Arc<Self>, LoadError> {
        let refuse = |why: String| LoadError::File {
            path: path.to_owned(),
            why,
        };
        let name = backend::c_path(path)?;
        backend::take_errors();
        spread(plan.settings.numa);
        let mut owned = ModelParams::new(plan.load, &plan.settings)?;
        let params = &mut owned.raw;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut progress).cast();
        // SAFETY: `progress` and `owned`, which hold all that is pointed to, live until after the call.
        match unsafe { guard::load(&name, owned.raw) } {
            Ok(model) => {
                // SAFETY: the model was just loaded.
                let vocab = unsafe { sys::llama_model_get_vocab(model) };
                let mut weights = Self {
                    model,
                    vocab,
                    pinned: false,
                };
                if plan.pins() {
                    weights.pin();
                }
                Ok(Arc::new(weights))
            }
            Err(_) if !progress(0.0) => Err(LoadError::Cancelled),
            Err(fault) => Err(refuse(backend::reason(fault))),
        }
    }

    /// Vocabulary and sizes of a model, without its weights: nothing can be computed with it.
    pub fn outline(path: &Path) -> Result<Self, LoadError> {
        let refuse = |why: String| LoadError::File {
            path: path.to_owned(),
            why,
        };
        gguf::check(path).map_err(|error| refuse(error.to_string()))?;
        let name = backend::c_path(path)?;
        backend::take_errors();
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.no_alloc = true;
        params.n_gpu_layers = 0;
        params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
        // SAFETY: the parameters point to nothing.
        let model = unsafe { guard::load(&name, params) }
            .map_err(|fault| refuse(backend::reason(fault)))?;
        Ok(Self {
            model,
            // SAFETY: the model was just loaded.
            vocab: unsafe { sys::llama_model_get_vocab(model) },
            pinned: false,
        })
    }

    /// Lets GPUs read the mapped weights of layers directly. Without it each large batch copies them through a staging buffer:
    /// 506 instead of 1910 prompt tokens/s with half of the experts of a 35B model on the host (H200, ubatch 512).
    fn pin(&mut self) {
        // SAFETY: the model was just loaded.
        match unsafe { guard::pin(self.model) } {
            Ok(0) => tracing::warn!(
                "weights in host memory could not be locked for direct access by the GPU, and long prompts will be slower: \
                 engine.load = 'none reads them into memory that can"
            ),
            Ok(bytes) => {
                self.pinned = true;
                tracing::debug!(bytes, "weights in host memory are locked for the GPU");
            }
            Err(fault) => tracing::warn!(?fault, "weights in host memory could not be locked"),
        }
    }

    /// The raw model, for chat's shim. Valid while `self` lives.
    pub(crate) fn as_ptr(&self) -> *const sys::llama_model {
        self.model
    }

    /// For calls that take a mutable model but only read it.
    pub(super) fn as_mut_ptr(&self) -> *mut sys::llama_model {
        self.model
    }

    pub(super) fn vocab_ptr(&self) -> *const sys::llama_vocab {
        self.vocab
    }

    /// Whether a sequence's state can be cut at any token: attention over all that came before, and nothing else.
    pub(super) fn cuts_anywhere(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe {
            !sys::llama_model_is_recurrent(self.model)
                && !sys::llama_model_is_hybrid(self.model)
                && sys::llama_model_n_swa(self.model) == 0
        }
    }

    /// Whether layers see a window only, whose cells are used anew.
    pub(super) fn has_window(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_n_swa(self.model) > 0 }
    }

    /// Numbers of each row that may come in place of a token.
    pub(super) fn embedding_width(&self) -> usize {
        // SAFETY: the model is valid.
        usize::try_from(unsafe { sys::llama_model_n_embd_inp(self.model) }).unwrap_or(0)
    }

    /// Numbers of each hidden state that prediction layers go on from.
    pub(super) fn state_width(&self) -> usize {
        // SAFETY: the model is valid.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.model) }).unwrap_or(0)
    }

    /// Numbers that say where such a row is.
    pub(super) fn positions(&self) -> usize {
        // SAFETY: the model is valid.
        match unsafe { sys::llama_model_rope_type(self.model) } {
            sys::LLAMA_ROPE_TYPE_MROPE | sys::LLAMA_ROPE_TYPE_IMROPE => 4,
            _ => 1,
        }
    }

    /// Tokens that the model says must never be sampled.
    pub(super) fn suppressed(&self) -> Vec<Token> {
        let mut count = 0;
        // SAFETY: the vocabulary is valid; the array it returns lives as long and is `count` long.
        unsafe {
            let tokens = sys::llama_vocab_get_suppress_tokens(self.vocab, &raw mut count);
            match usize::try_from(count) {
                Ok(count) if count > 0 && !tokens.is_null() => {
                    std::slice::from_raw_parts(tokens, count).to_vec()
                }
                _ => Vec::new(),
            }
        }
    }

    /// What the file says of the model.
    pub fn about(&self) -> About {
        let whole = |number: i32| u32::try_from(number).unwrap_or(0);
        // SAFETY: model and vocabulary are valid; the name is null or a text of llama.cpp's own that stays.
        unsafe {
            About {
                architecture: self.metadata(c"general.architecture").unwrap_or_default(),
                parameters: sys::llama_model_n_params(self.model),
                bytes: sys::llama_model_size(self.model),
                quantization: text_of(sys::llama_ftype_name(sys::llama_model_ftype(self.model))),
                trained_context: whole(sys::llama_model_n_ctx_train(self.model)),
                width: whole(sys::llama_model_n_embd(self.model)),
                vocabulary: self.size(),
                vocabulary_type: i32::try_from(sys::llama_vocab_type(self.vocab)).unwrap_or(0),
            }
        }
    }

    /// A value of the file's header, as text.
    fn metadata(&self, key: &CStr) -> Option<String> {
        let mut buffer = [0_u8; 256];
        // SAFETY: the model is valid, `key` ends in NUL, and llama.cpp writes no more than the buffer's length.
        let written = unsafe {
            sys::llama_model_meta_val_str(
                self.model,
                key.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        usize::try_from(written).ok()?;
        let text = CStr::from_bytes_until_nul(&buffer).ok()?;
        Some(text.to_string_lossy().into_owned())
    }

    fn holds(&self, token: Token) -> bool {
        u32::try_from(token).is_ok_and(|id| id < self.size())
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: contexts and samplers hold an `Arc` of this, so nothing uses the model any more.
        unsafe {
            if self.pinned {
                let _ = guard::unpin(self.model);
            }
            sys::llama_model_free(self.model);
        }
    }
}

/// # Safety
///
/// `text` is null, or ends in NUL and stays for the call.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// Tells llama.cpp how to treat NUMA nodes; only the first call of a process counts.
fn spread(numa: Numa) {
    let strategy = match numa {
        Numa::Off => return,
        Numa::Distribute => sys::GGML_NUMA_STRATEGY_DISTRIBUTE,
        Numa::Isolate => sys::GGML_NUMA_STRATEGY_ISOLATE,
        Numa::Numactl => sys::GGML_NUMA_STRATEGY_NUMACTL,
    };
    // SAFETY: no preconditions.
    unsafe { sys::llama_numa_init(strategy) };
}

extern "C" fn on_progress(done: f32, progress: *mut c_void) -> bool {
    // SAFETY: `load` passes a reference that outlives the call.
    let progress = unsafe { &mut *progress.cast::<&mut dyn FnMut(f32) -> bool>() };
    progress(done)
}

impl Vocab for Weights {
    fn size(&self) -> u32 {
        // SAFETY: the vocabulary is valid.
        u32::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab) }).unwrap_or(0)
    }

    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<Token> {
        // SAFETY: the vocabulary is valid.
        unsafe { guard::tokenize(self.vocab, text, add_special, parse_special) }.unwrap_or_else(
            |fault| {
                tracing::error!(?fault, bytes = text.len(), "a text could not be tokenised");
                Vec::new()
            },
        )
    }

    fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        if !self.holds(token) {
            return; // llama.cpp throws on ids outside the vocabulary
        }
        let start = out.len();
        let mut room = 32;
        loop {
            out.resize(start + room, 0);
            let buffer = out[start..].as_mut_ptr();
            let size = i32::try_from(room).unwrap_or(i32::MAX);
            // SAFETY: the buffer has `size` bytes, the token is in the vocabulary.
            let written = unsafe {
                sys::llama_token_to_piece(self.vocab, token, buffer.cast(), size, 0, special)
            };
            match usize::try_from(written) {
                Ok(written) => return out.truncate(start + written),
                // A negative answer is the size that is needed.
                Err(_) => room = usize::try_from(written.unsigned_abs()).unwrap_or(room * 2),
            }
        }
    }

    fn is_eog(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is valid, the token inside it.
        self.holds(token) && unsafe { sys::llama_vocab_is_eog(self.vocab, token) }
    }

    fn is_control(&self, token: Token) -> bool {
        // SAFETY: as above.
        self.holds(token) && unsafe { sys::llama_vocab_is_control(self.vocab, token) }
    }

    fn fim(&self) -> Fim {
        let there = |token| self.holds(token).then_some(token);
        // SAFETY: the vocabulary is valid.
        unsafe {
            let begins = sys::llama_vocab_get_add_bos(self.vocab);
            Fim {
                begin: there(sys::llama_vocab_bos(self.vocab)).filter(|_| begins),
                prefix: there(sys::llama_vocab_fim_pre(self.vocab)),
                suffix: there(sys::llama_vocab_fim_suf(self.vocab)),
                middle: there(sys::llama_vocab_fim_mid(self.vocab)),
                repository: there(sys::llama_vocab_fim_rep(self.vocab)),
                file: there(sys::llama_vocab_fim_sep(self.vocab)),
            }
        }
    }
}

//! Binding to `guard.cpp`: calls into llama.cpp through which no exception and no abort can come.

mod memory;
mod states;

use std::ffi::{CStr, CString, c_char, c_int};

use llama_cpp_sys_2 as sys;

use crate::engine::model::DecodeError;

pub use memory::Buffer;
pub(super) use memory::{attention, buffers, fill, pin, restore, save, search, unpin};
pub(super) use states::{Shown, StateRow, decode_states, show_states, state};

unsafe extern "C" {
    fn guard_free(text: *mut c_char);
    fn guard_install(fatal: extern "C" fn(*const c_char));
    fn guard_load(
        path: *const c_char,
        params: sys::llama_model_params,
        model: *mut *mut sys::llama_model,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_context(
        model: *mut sys::llama_model,
        params: sys::llama_context_params,
        context: *mut *mut sys::llama_context,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_decode(
        context: *mut sys::llama_context,
        batch: sys::llama_batch,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_encode(
        context: *mut sys::llama_context,
        batch: sys::llama_batch,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        length: i32,
        tokens: *mut sys::llama_token,
        room: i32,
        add_special: bool,
        parse_special: bool,
        count: *mut i32,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_apply(
        sampler: *mut sys::llama_sampler,
        candidates: *mut sys::llama_token_data_array,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_accept(
        sampler: *mut sys::llama_sampler,
        token: sys::llama_token,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_grammar(
        vocab: *const sys::llama_vocab,
        gbnf: *const c_char,
        lazy: bool,
        patterns: *const *const c_char,
        n_patterns: usize,
        tokens: *const sys::llama_token,
        n_tokens: usize,
        sampler: *mut *mut sys::llama_sampler,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_dry(
        vocab: *const sys::llama_vocab,
        multiplier: f32,
        base: f32,
        allowed_length: i32,
        last_n: i32,
        breakers: *const *const c_char,
        n_breakers: usize,
        sampler: *mut *mut sys::llama_sampler,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_adapter(
        model: *mut sys::llama_model,
        path: *const c_char,
        adapter: *mut *mut sys::llama_adapter_lora,
        out: *mut *mut c_char,
    ) -> c_int;
}

const FAILED: c_int = -100;

/// What a guarded call came back with when it did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// llama.cpp's own return code.
    Code(c_int),
    /// An exception or an abort, with its text.
    Caught(String),
}

impl Fault {
    /// What it means for the batch that `call` of llama.cpp was given.
    pub(super) fn of_batch(self, call: &str) -> DecodeError {
        match self {
            Self::Code(1) => DecodeError::Full,
            Self::Code(2) => DecodeError::Abandoned,
            Self::Code(-1) => DecodeError::Refused("llama.cpp refused the batch".into()),
            Self::Code(code) => DecodeError::Broken(format!("{call} returned {code}")),
            Self::Caught(why) => DecodeError::Broken(why),
        }
    }
}

pub(super) fn outcome(code: c_int, out: *mut c_char) -> Result<(), Fault> {
    let text = if out.is_null() {
        String::new()
    } else {
        // SAFETY: guard.cpp hands out a NUL-terminated string that is ours to free.
        unsafe {
            let text = CStr::from_ptr(out).to_string_lossy().into_owned();
            guard_free(out);
            text
        }
    };
    match code {
        0 => Ok(()),
        FAILED => Err(Fault::Caught(text)),
        code => Err(Fault::Code(code)),
    }
}

pub(super) fn install(fatal: extern "C" fn(*const c_char)) {
    // SAFETY: a plain function pointer, kept for the life of the process.
    unsafe { guard_install(fatal) }
}

/// # Safety
/// Everything that `params` points to lives until this returns.
pub(super) unsafe fn load(
    path: &CStr,
    params: sys::llama_model_params,
) -> Result<*mut sys::llama_model, Fault> {
    let (mut model, mut out) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller vouches for `params`; the rest are valid places to write to.
    let code = unsafe { guard_load(path.as_ptr(), params, &raw mut model, &raw mut out) };
    outcome(code, out).map(|()| model)
}

/// # Safety
/// `model` is loaded and outlives the context.
pub(super) unsafe fn context(
    model: *mut sys::llama_model,
    params: sys::llama_context_params,
) -> Result<*mut sys::llama_context, Fault> {
    let (mut context, mut out) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller vouches for `model`.
    let code = unsafe { guard_context(model, params, &raw mut context, &raw mut out) };
    outcome(code, out).map(|()| context)
}

/// # Safety
/// `context` is valid and not in use elsewhere; `batch` holds `n_tokens` rows within the context's limits.
pub(super) unsafe fn decode(
    context: *mut sys::llama_context,
    batch: sys::llama_batch,
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for both.
    let code = unsafe { guard_decode(context, batch, &raw mut out) };
    outcome(code, out)
}

/// # Safety
/// As for [`decode`]; without a cache or with attention to what follows, a batch is one ubatch.
pub(super) unsafe fn encode(
    context: *mut sys::llama_context,
    batch: sys::llama_batch,
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for both.
    let code = unsafe { guard_encode(context, batch, &raw mut out) };
    outcome(code, out)
}

/// # Safety
/// `vocab` is valid.
pub(super) unsafe fn tokenize(
    vocab: *const sys::llama_vocab,
    text: &str,
    add_special: bool,
    parse_special: bool,
) -> Result<Vec<sys::llama_token>, Fault> {
    let Ok(length) = i32::try_from(text.len()) else {
        return Err(Fault::Caught("the text is longer than 2 GiB".into()));
    };
    // One token a byte and a few special ones is the worst case; most texts need a quarter.
    let mut tokens = vec![0; text.len() / 2 + 16];
    loop {
        let (mut count, mut out) = (0, std::ptr::null_mut());
        let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
        // SAFETY: `text` and `tokens` are as long as said; the caller vouches for `vocab`.
        let code = unsafe {
            guard_tokenize(
                vocab,
                text.as_ptr().cast(),
                length,
                tokens.as_mut_ptr(),
                room,
                add_special,
                parse_special,
                &raw mut count,
                &raw mut out,
            )
        };
        outcome(code, out)?;
        match usize::try_from(count) {
            Ok(count) => {
                tokens.truncate(count);
                return Ok(tokens);
            }
            Err(_) if count == i32::MIN => {
                return Err(Fault::Caught("the text is too long".into()));
            }
            // A negative count says how many places are needed.
            Err(_) => tokens.resize(
                usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
                0,
            ),
        }
    }
}

/// # Safety
/// `sampler` is valid; `candidates` describes valid memory.
pub(super) unsafe fn apply(
    sampler: *mut sys::llama_sampler,
    candidates: &mut sys::llama_token_data_array,
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for both.
    let code = unsafe { guard_apply(sampler, candidates, &raw mut out) };
    outcome(code, out)
}

/// # Safety
/// `sampler` is valid.
pub(super) unsafe fn accept(
    sampler: *mut sys::llama_sampler,
    token: sys::llama_token,
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for `sampler`.
    let code = unsafe { guard_accept(sampler, token, &raw mut out) };
    outcome(code, out)
}

/// When a grammar begins to hold.
pub(super) enum Start {
    Now,
    /// Once one of these regular expressions or tokens appears.
    At {
        patterns: Vec<CString>,
        tokens: Vec<sys::llama_token>,
    },
}

/// # Safety
/// `vocab` is valid and outlives the sampler.
pub(super) unsafe fn grammar(
    vocab: *const sys::llama_vocab,
    gbnf: &CStr,
    start: &Start,
) -> Result<*mut sys::llama_sampler, Fault> {
    let (lazy, patterns, tokens) = match start {
        Start::Now => (false, [].as_slice(), [].as_slice()),
        Start::At { patterns, tokens } => (true, patterns.as_slice(), tokens.as_slice()),
    };
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.as_ptr()).collect();
    let (mut sampler, mut out) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: pointers and lengths belong together; the caller vouches for `vocab`.
    let code = unsafe {
        guard_grammar(
            vocab,
            gbnf.as_ptr(),
            lazy,
            patterns.as_ptr(),
            patterns.len(),
            tokens.as_ptr(),
            tokens.len(),
            &raw mut sampler,
            &raw mut out,
        )
    };
    outcome(code, out).map(|()| sampler)
}

/// # Safety
/// `model` is loaded, nobody uses it at this moment, and it outlives the adapter.
pub(super) unsafe fn adapter(
    model: *mut sys::llama_model,
    path: &CStr,
) -> Result<*mut sys::llama_adapter_lora, Fault> {
    let (mut adapter, mut out) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the caller vouches for the model; the rest are valid places to write to.
    let code = unsafe { guard_adapter(model, path.as_ptr(), &raw mut adapter, &raw mut out) };
    outcome(code, out).map(|()| adapter)
}

/// The DRY sampler's numbers, in llama.cpp's terms.
pub(super) struct Dry {
    pub(super) multiplier: f32,
    pub(super) base: f32,
    pub(super) allowed_length: i32,
    pub(super) last_n: i32,
    pub(super) breakers: Vec<CString>,
}

/// # Safety
/// `vocab` is valid and outlives the sampler.
pub(super) unsafe fn dry(
    vocab: *const sys::llama_vocab,
    dry: &Dry,
) -> Result<*mut sys::llama_sampler, Fault> {
    let breakers: Vec<_> = dry.breakers.iter().map(|text| text.as_ptr()).collect();
    let (mut sampler, mut out) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: pointers and lengths belong together; the caller vouches for `vocab`.
    let code = unsafe {
        guard_dry(
            vocab,
            dry.multiplier,
            dry.base,
            dry.allowed_length,
            dry.last_n,
            breakers.as_ptr(),
            breakers.len(),
            &raw mut sampler,
            &raw mut out,
        )
    };
    outcome(code, out).map(|()| sampler)
}

//! The binding to shim.cpp: owners of its two objects, strings in and out.
#![allow(
    unsafe_code,
    reason = "with engine/llama.rs the only room that calls C++"
)]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr::{self, NonNull},
    sync::Once,
};

use llama_cpp_sys_2::llama_model;
use serde::de::DeserializeOwned;

use crate::engine::llama::Weights;

/// What a call into the shim failed of.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was given to it.
    Caller(String),
    /// Anything else.
    Internal(String),
}

#[repr(C)]
struct RawChat {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawParser {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn shim_free(text: *mut c_char);
    fn shim_log_verbosity(verbosity: c_int);
    fn shim_chat_new(
        model: *const llama_model,
        template_source: *const c_char,
        bos: *const c_char,
        eos: *const c_char,
        chat: *mut *mut RawChat,
        out: *mut *mut c_char,
    ) -> c_int;
    fn shim_chat_free(chat: *mut RawChat);
    fn shim_chat_apply(
        chat: *const RawChat,
        request_json: *const c_char,
        out: *mut *mut c_char,
    ) -> c_int;
    fn shim_parser_new(
        format_json: *const c_char,
        parser: *mut *mut RawParser,
        out: *mut *mut c_char,
    ) -> c_int;
    fn shim_parser_free(parser: *mut RawParser);
    fn shim_parser_read(
        parser: *mut RawParser,
        text: *const c_char,
        length: usize,
        out: *mut *mut c_char,
    ) -> c_int;
}

/// Where a template's text and special tokens come from.
pub(super) enum Source<'a> {
    Model {
        weights: &'a Weights,
        template: Option<&'a str>,
    },
    Text {
        template: &'a str,
        bos: &'a str,
        eos: &'a str,
    },
}

/// A model's parsed chat templates.
pub(super) struct Templates(NonNull<RawChat>);

// SAFETY: the object is tied to no thread.
unsafe impl Send for Templates {}
// SAFETY: immutable after `shim_chat_new`; applying a template only reads it.
unsafe impl Sync for Templates {}

impl Templates {
    /// Returns the templates and the facts found out about them.
    pub(super) fn new<T: DeserializeOwned>(source: &Source<'_>) -> Result<(Self, T), Failure> {
        silence();
        let (model, template, bos, eos) = match *source {
            Source::Model { weights, template } => (weights.as_ptr(), template, None, None),
            Source::Text { template, bos, eos } => {
                (ptr::null(), Some(template), Some(bos), Some(eos))
            }
        };
        let [template, bos, eos] = [template, bos, eos].map(|text| text.map(c_string).transpose());
        let (template, bos, eos) = (template?, bos?, eos?);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |t| t.as_ptr());
        let (mut raw, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `model` is null or outlives this call, the strings end in NUL and outlive it too, and
        // both places are writable.
        let code = unsafe {
            shim_chat_new(
                model,
                pointer(&template),
                pointer(&bos),
                pointer(&eos),
                &raw mut raw,
                &raw mut out,
            )
        };
        let text = answer(code, out)?;
        let templates = Self(NonNull::new(raw).ok_or_else(no_object)?);
        Ok((templates, from_json(&text)?))
    }

    pub(super) fn apply<T: DeserializeOwned>(&self, request_json: String) -> Result<T, Failure> {
        let request = c_string(request_json)?;
        let mut out = ptr::null_mut();
        // SAFETY: `self.0` lives as long as `self`, the string ends in NUL, `out` is writable.
        let code = unsafe { shim_chat_apply(self.0.as_ptr(), request.as_ptr(), &raw mut out) };
        from_json(&answer(code, out)?)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        // SAFETY: made by `shim_chat_new`, freed once.
        unsafe { shim_chat_free(self.0.as_ptr()) }
    }
}

/// A reader of one answer, which remembers what it has reported.
pub(super) struct Reader(NonNull<RawParser>);

// SAFETY: the object is tied to no thread; `&mut self` keeps it to one at a time.
unsafe impl Send for Reader {}

impl Reader {
    pub(super) fn new(format_json: String) -> Result<Self, Failure> {
        let format = c_string(format_json)?;
        let (mut raw, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the string ends in NUL and both places are writable.
        let code = unsafe { shim_parser_new(format.as_ptr(), &raw mut raw, &raw mut out) };
        answer(code, out)?;
        NonNull::new(raw).map(Self).ok_or_else(no_object)
    }

    /// `text`: the whole answer so far.
    pub(super) fn read<T: DeserializeOwned>(&mut self, text: &str) -> Result<T, Failure> {
        let mut out = ptr::null_mut();
        // SAFETY: `self.0` lives as long as `self`, `text` is readable for its length, `out` is writable.
        let code = unsafe {
            shim_parser_read(
                self.0.as_ptr(),
                text.as_ptr().cast(),
                text.len(),
                &raw mut out,
            )
        };
        from_json(&answer(code, out)?)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: made by `shim_parser_new`, freed once.
        unsafe { shim_parser_free(self.0.as_ptr()) }
    }
}

/// common/ writes its own log to stderr from its own thread, user text included. All that matters comes
/// back as an error instead.
fn silence() {
    static ONCE: Once = Once::new();
    // SAFETY: sets one integer; `Once` keeps two threads from doing it at a time.
    ONCE.call_once(|| unsafe { shim_log_verbosity(-1) });
}

/// Takes the shim's answer over.
fn answer(code: c_int, out: *mut c_char) -> Result<String, Failure> {
    let text = if out.is_null() {
        "out of memory".to_owned()
    } else {
        // SAFETY: the shim returns a string that ends in NUL and is ours to free.
        let text = unsafe { CStr::from_ptr(out) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: as above; `text` is a copy.
        unsafe { shim_free(out) };
        text
    };
    match code {
        0 => Ok(text),
        1 => Err(Failure::Caller(text)),
        _ => Err(Failure::Internal(text)),
    }
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::Caller("the text holds a NUL character".to_owned()))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|e| Failure::Internal(format!("unreadable answer: {e}")))
}

fn no_object() -> Failure {
    Failure::Internal("success without an object".to_owned())
}

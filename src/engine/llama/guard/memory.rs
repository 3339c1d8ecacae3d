//! Guarded calls about memory and placement: what lies where, where attention runs, full caches, locked pages.

use std::ffi::{CStr, CString, c_char, c_int};

use llama_cpp_sys_2 as sys;

use super::{Fault, outcome};
use crate::engine::model::Part;

unsafe extern "C" {
    fn guard_buffers(
        context: *const sys::llama_context,
        buffers: *mut RawBuffer,
        room: usize,
        count: *mut usize,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_save(
        context: *mut sys::llama_context,
        sequence: sys::llama_seq_id,
        rest: bool,
        bytes: *mut u8,
        room: usize,
        size: *mut usize,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_restore(
        context: *mut sys::llama_context,
        sequence: sys::llama_seq_id,
        rest: bool,
        bytes: *const u8,
        size: usize,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_attention(
        context: *mut sys::llama_context,
        tokens: u32,
        sequences: u32,
        fused: *mut bool,
        runs: *mut *const c_char,
        lies: *mut *const c_char,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_fill(
        context: *mut sys::llama_context,
        sequence: sys::llama_seq_id,
        last: sys::llama_pos,
        done: *mut bool,
        out: *mut *mut c_char,
    ) -> c_int;
    fn guard_pin(model: *const sys::llama_model, bytes: *mut usize, out: *mut *mut c_char)
    -> c_int;
    fn guard_unpin(model: *const sys::llama_model, out: *mut *mut c_char) -> c_int;
    fn guard_search(
        pattern: *const c_char,
        names: *const *const c_char,
        n_names: usize,
        found: *mut bool,
        out: *mut *mut c_char,
    ) -> c_int;
}

/// `guard_buffer` of guard.h.
#[repr(C)]
struct RawBuffer {
    device: *const c_char,
    name: *const c_char,
    host: bool,
    model: usize,
    context: usize,
    compute: usize,
}

/// Memory of one kind of buffer, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// The engine's name of the device that it belongs to.
    pub device: String,
    pub name: String,
    /// Whether it lies in host memory.
    pub host: bool,
    pub weights: u64,
    pub cache: u64,
    pub compute: u64,
}

/// What a context and its model take, or would take when loaded without allocating.
///
/// # Safety
/// `context` is valid.
pub(in crate::engine::llama) unsafe fn buffers(
    context: *const sys::llama_context,
) -> Result<Vec<Buffer>, Fault> {
    const ROOM: usize = 64; // kinds of buffers: a few for each device
    let mut raw: Vec<RawBuffer> = Vec::with_capacity(ROOM);
    let (mut count, mut out) = (0, std::ptr::null_mut());
    // SAFETY: at most ROOM entries are written; the caller vouches for `context`.
    let code = unsafe {
        guard_buffers(
            context,
            raw.as_mut_ptr(),
            ROOM,
            &raw mut count,
            &raw mut out,
        )
    };
    outcome(code, out)?;
    // SAFETY: this many were written.
    unsafe { raw.set_len(count.min(ROOM)) };
    Ok(raw
        .iter()
        .map(|raw| Buffer {
            device: name(raw.device),
            name: name(raw.name),
            host: raw.host,
            weights: raw.model as u64,
            cache: raw.context as u64,
            compute: raw.compute as u64,
        })
        .collect())
}

/// The state of a sequence as bytes: all of it, or what cutting does not bring back.
///
/// # Safety
/// `context` is valid and not in use elsewhere; `sequence` is one of its own.
pub(in crate::engine::llama) unsafe fn save(
    context: *mut sys::llama_context,
    sequence: sys::llama_seq_id,
    part: Part,
) -> Result<Vec<u8>, Fault> {
    let rest = part == Part::Rest;
    let (mut size, mut out) = (0, std::ptr::null_mut());
    // SAFETY: without room nothing is written; the caller vouches for the rest.
    let code = unsafe {
        let nowhere = std::ptr::null_mut();
        guard_save(
            context,
            sequence,
            rest,
            nowhere,
            0,
            &raw mut size,
            &raw mut out,
        )
    };
    outcome(code, out)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(size);
    in_large_pages(&mut bytes);
    let room = bytes.capacity();
    // SAFETY: at most `room` bytes are written.
    let code = unsafe {
        let bytes = bytes.as_mut_ptr();
        guard_save(
            context,
            sequence,
            rest,
            bytes,
            room,
            &raw mut size,
            &raw mut out,
        )
    };
    outcome(code, out)?;
    // SAFETY: this many were written.
    unsafe { bytes.set_len(size.min(room)) };
    Ok(bytes)
}

/// Asks for large pages before the first touch: without them most of the time of a save goes into making small ones.
fn in_large_pages(bytes: &mut Vec<u8>) {
    const PAGE: usize = 4096;
    let room = bytes.spare_capacity_mut();
    let skipped = room.as_ptr().align_offset(PAGE);
    if let Some(pages) = room.get_mut(skipped..) {
        // SAFETY: the whole pages are inside of the vector's own memory, and the advice does not change what they hold.
        let advised = unsafe {
            rustix::mm::madvise(
                pages.as_mut_ptr().cast(),
                pages.len() / PAGE * PAGE,
                rustix::mm::Advice::LinuxHugepage,
            )
        };
        if let Err(error) = advised {
            tracing::trace!(%error, "a state is kept in small pages");
        }
    }
}

/// # Safety
/// As for [`save`]; the bytes are what it gave of a context of the same model and shape.
pub(in crate::engine::llama) unsafe fn restore(
    context: *mut sys::llama_context,
    sequence: sys::llama_seq_id,
    part: Part,
    state: &[u8],
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: pointer and length belong together; the caller vouches for the rest.
    let code = unsafe {
        guard_restore(
            context,
            sequence,
            part == Part::Rest,
            state.as_ptr(),
            state.len(),
            &raw mut out,
        )
    };
    outcome(code, out)
}

/// Where the attention of a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine::llama) struct Attention {
    /// Whether it is flash attention.
    pub(in crate::engine::llama) fused: bool,
    /// Flash attention runs on the first device, but its cache lies on the second.
    pub(in crate::engine::llama) astray: Option<(String, String)>,
}

/// Looks at a step of `tokens` tokens, at least one of each of the context's `sequences`.
///
/// # Safety
/// `context` is valid and not in use elsewhere.
pub(in crate::engine::llama) unsafe fn attention(
    context: *mut sys::llama_context,
    tokens: u32,
    sequences: u32,
) -> Result<Attention, Fault> {
    let (mut fused, mut out) = (false, std::ptr::null_mut());
    let (mut runs, mut lies) = (std::ptr::null(), std::ptr::null());
    // SAFETY: the caller vouches for `context`; the rest are valid places to write to.
    let code = unsafe {
        guard_attention(
            context,
            tokens,
            sequences,
            &raw mut fused,
            &raw mut runs,
            &raw mut lies,
            &raw mut out,
        )
    };
    outcome(code, out)?;
    let astray = (!runs.is_null()).then(|| (name(runs), name(lies)));
    Ok(Attention { fused, astray })
}

/// Makes a sequence that holds position 0 look as if it held all up to `last`; `false`: its kind of memory is not known.
///
/// # Safety
/// `context` is valid and not in use elsewhere.
pub(in crate::engine::llama) unsafe fn fill(
    context: *mut sys::llama_context,
    sequence: sys::llama_seq_id,
    last: sys::llama_pos,
) -> Result<bool, Fault> {
    let (mut done, mut out) = (false, std::ptr::null_mut());
    // SAFETY: the caller vouches for `context`.
    let code = unsafe { guard_fill(context, sequence, last, &raw mut done, &raw mut out) };
    outcome(code, out).map(|()| done)
}

/// Locks the layers' weights in host memory for direct access by GPUs; how many bytes that was possible for.
///
/// # Safety
/// `model` is loaded.
pub(in crate::engine::llama) unsafe fn pin(model: *const sys::llama_model) -> Result<u64, Fault> {
    let (mut bytes, mut out) = (0, std::ptr::null_mut());
    // SAFETY: the caller vouches for `model`.
    let code = unsafe { guard_pin(model, &raw mut bytes, &raw mut out) };
    outcome(code, out).map(|()| bytes as u64)
}

/// # Safety
/// `model` is loaded, and [`pin`] was called for it.
pub(in crate::engine::llama) unsafe fn unpin(model: *const sys::llama_model) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for `model`.
    let code = unsafe { guard_unpin(model, &raw mut out) };
    outcome(code, out)
}

/// Which of `names` llama.cpp finds `pattern` in; the error says what is wrong with the pattern.
pub(in crate::engine::llama) fn search(
    pattern: &CStr,
    names: &[CString],
) -> Result<Vec<bool>, Fault> {
    let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let mut found = vec![false; names.len()];
    let mut out = std::ptr::null_mut();
    // SAFETY: all strings are NUL-terminated and live through the call; `found` has a place for each name.
    let code = unsafe {
        guard_search(
            pattern.as_ptr(),
            pointers.as_ptr(),
            pointers.len(),
            found.as_mut_ptr(),
            &raw mut out,
        )
    };
    outcome(code, out).map(|()| found)
}

/// A device's or buffer's name, which the backend keeps for ever.
fn name(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: NUL-terminated and never freed.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

//! The binding to projector.cpp: owners of its two objects, and what a chunk says.

use std::{
    ffi::{CStr, c_char, c_int},
    ptr,
};

use llama_cpp_sys_2 as sys;

use crate::engine::{
    llama::guard::{Fault, outcome},
    senses::{Picture, Sound},
};

unsafe extern "C" {
    fn projector_open(
        path: *const c_char,
        model: *const sys::llama_model,
        device: sys::ggml_backend_dev_t,
        threads: c_int,
        projector: *mut *mut sys::mtmd_context,
        facts: *mut Facts,
        out: *mut *mut c_char,
    ) -> c_int;
    fn projector_free(projector: *mut sys::mtmd_context);
    fn projector_divide_picture(
        projector: *const sys::mtmd_context,
        width: u32,
        height: u32,
        rgb: *const u8,
        chunks: *mut *mut sys::mtmd_input_chunks,
        out: *mut *mut c_char,
    ) -> c_int;
    fn projector_divide_sound(
        projector: *const sys::mtmd_context,
        count: usize,
        samples: *const f32,
        chunks: *mut *mut sys::mtmd_input_chunks,
        out: *mut *mut c_char,
    ) -> c_int;
    fn projector_forget(chunks: *mut sys::mtmd_input_chunks);
    fn projector_chunk_at(
        projector: *const sys::mtmd_context,
        chunks: *const sys::mtmd_input_chunks,
        at: usize,
        chunk: *mut Chunk,
        more: *mut bool,
        out: *mut *mut c_char,
    ) -> c_int;
    fn projector_encode(
        projector: *mut sys::mtmd_context,
        chunks: *const sys::mtmd_input_chunks,
        at: usize,
        numbers: *mut f32,
        count: usize,
        out: *mut *mut c_char,
    ) -> c_int;
    fn projector_gauge(
        path: *const c_char,
        device: sys::ggml_backend_dev_t,
        threads: c_int,
        on_device: *mut usize,
        on_host: *mut usize,
        out: *mut *mut c_char,
    ) -> c_int;
}

/// `projector_facts` of projector.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    pub(super) sees: bool,
    pub(super) grid: bool,
    pub(super) hears: c_int,
}

/// `projector_chunk` of projector.h.
#[repr(C)]
struct Chunk {
    tokens: *const sys::llama_token,
    count: usize,
    columns: u32,
    whole: bool,
}

/// An open projector.
pub(super) struct Raw(*mut sys::mtmd_context);

// SAFETY: nothing in it belongs to a thread; whoever has it uses it alone.
unsafe impl Send for Raw {}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { projector_free(self.0) };
    }
}

/// What a picture or a sound was divided into.
pub(super) struct Chunks(*mut sys::mtmd_input_chunks);

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { projector_forget(self.0) };
    }
}

/// One of them.
pub(super) enum Found {
    Text(Vec<sys::llama_token>),
    Rows {
        count: usize,
        /// 0: the rows lie one after the other.
        columns: u32,
        whole: bool,
    },
}

impl Raw {
    /// `device`: null for the CPU.
    pub(super) fn open(
        path: &CStr,
        model: *const sys::llama_model,
        device: sys::ggml_backend_dev_t,
        threads: u32,
    ) -> Result<(Self, Facts), Fault> {
        let (mut raw, mut out) = (ptr::null_mut(), ptr::null_mut());
        let mut facts = Facts::default();
        // SAFETY: the model is loaded; the projector reads its vocabulary and sizes now and never again.
        let code = unsafe {
            projector_open(
                path.as_ptr(),
                model,
                device,
                c_int::try_from(threads).unwrap_or(1),
                &raw mut raw,
                &raw mut facts,
                &raw mut out,
            )
        };
        outcome(code, out)?;
        Ok((Self(raw), facts))
    }

    /// The picture has as many pixels as it says.
    pub(super) fn divide_picture(&self, picture: &Picture) -> Result<Chunks, Fault> {
        let Picture { width, height, .. } = *picture;
        let (mut chunks, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: there are as many pixels as said; the projector is open.
        let code = unsafe {
            let rgb = picture.rgb.as_ptr();
            projector_divide_picture(self.0, width, height, rgb, &raw mut chunks, &raw mut out)
        };
        outcome(code, out).map(|()| Chunks(chunks))
    }

    pub(super) fn divide_sound(&self, sound: &Sound) -> Result<Chunks, Fault> {
        let (mut chunks, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: there are as many samples as said; the projector is open.
        let code = unsafe {
            let (count, samples) = (sound.samples.len(), sound.samples.as_ptr());
            projector_divide_sound(self.0, count, samples, &raw mut chunks, &raw mut out)
        };
        outcome(code, out).map(|()| Chunks(chunks))
    }

    /// `None`: there are no more. The chunks are of this projector.
    pub(super) fn chunk(&self, chunks: &Chunks, at: usize) -> Result<Option<Found>, Fault> {
        let mut chunk = Chunk {
            tokens: ptr::null(),
            count: 0,
            columns: 0,
            whole: false,
        };
        let (mut more, mut out) = (false, ptr::null_mut());
        // SAFETY: both are open, and all three places are writable.
        let code = unsafe {
            projector_chunk_at(
                self.0,
                chunks.0,
                at,
                &raw mut chunk,
                &raw mut more,
                &raw mut out,
            )
        };
        outcome(code, out)?;
        if !more {
            return Ok(None);
        }
        if chunk.tokens.is_null() {
            return Ok(Some(Found::Rows {
                count: chunk.count,
                columns: chunk.columns,
                whole: chunk.whole,
            }));
        }
        // SAFETY: `tokens` points to so many tokens, which live as long as the chunks.
        let tokens = unsafe { std::slice::from_raw_parts(chunk.tokens, chunk.count) };
        Ok(Some(Found::Text(tokens.to_vec())))
    }

    /// `count`: the chunk's rows times the width of the model that the projector was opened for.
    pub(super) fn encode(
        &mut self,
        chunks: &Chunks,
        at: usize,
        count: usize,
    ) -> Result<Vec<f32>, Fault> {
        let mut numbers = vec![0.0; count];
        let mut out = ptr::null_mut();
        // SAFETY: there is room for `count` numbers, which the projector makes: it was opened for the same width.
        let code = unsafe {
            let into = numbers.as_mut_ptr();
            projector_encode(self.0, chunks.0, at, into, count, &raw mut out)
        };
        outcome(code, out).map(|()| numbers)
    }
}

/// Bytes that a projector would take, on the device and on the host.
pub(super) fn gauge(
    path: &CStr,
    device: sys::ggml_backend_dev_t,
    threads: u32,
) -> Result<(usize, usize), Fault> {
    let (mut on_device, mut on_host, mut out) = (0, 0, ptr::null_mut());
    // SAFETY: a NUL-terminated path and a device that lives as long as the process.
    let code = unsafe {
        projector_gauge(
            path.as_ptr(),
            device,
            c_int::try_from(threads).unwrap_or(1),
            &raw mut on_device,
            &raw mut on_host,
            &raw mut out,
        )
    };
    outcome(code, out).map(|()| (on_device, on_host))
}

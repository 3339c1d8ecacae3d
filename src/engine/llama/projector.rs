//! A projector: what turns pictures into rows of numbers that a model takes in place of tokens.

use std::{
    ffi::{c_char, c_int},
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{LoadError, Weights, backend, devices, guard::outcome};
use crate::engine::{
    gguf,
    media::{Attention, Image, Layout},
    vision::{Picture, Segment, Unseen},
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
    fn projector_divide(
        projector: *const sys::mtmd_context,
        width: u32,
        height: u32,
        rgb: *const u8,
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
struct Facts {
    sees: bool,
    hears: bool,
    grid: bool,
}

/// `projector_chunk` of projector.h.
#[repr(C)]
struct Chunk {
    tokens: *const sys::llama_token,
    count: usize,
    columns: u32,
    whole: bool,
}

/// Where and how a projector computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    pub file: PathBuf,
    /// The engine's name of the GPU; `None`: the CPU.
    pub device: Option<String>,
    pub threads: u32,
    /// Most rows that the engine computes at once.
    pub ubatch: u32,
}

/// An open projector. One thread at a time uses it.
pub struct Projector {
    raw: Raw,
    weights: Arc<Weights>,
    place: Projection,
}

struct Raw(*mut sys::mtmd_context);

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { projector_free(self.0) };
    }
}

impl Projector {
    /// Opens the file for the model and computes an image of the projector's own choice. [`super::init`] comes first.
    pub fn open(weights: Arc<Weights>, place: Projection) -> Result<Self, LoadError> {
        let raw = open(&weights, &place)?;
        Ok(Self {
            raw,
            weights,
            place,
        })
    }

    /// What the model takes in place of the picture.
    pub fn see(&mut self, picture: &Picture) -> Result<Vec<Segment>, Unseen> {
        let outcome = self.look(picture);
        if let Err(Unseen::Failed(why)) = &outcome {
            // After an abort halfway nothing is certain.
            tracing::error!(%why, "opening the projector anew");
            match open(&self.weights, &self.place) {
                Ok(raw) => self.raw = raw,
                Err(error) => tracing::error!(%error, "the projector cannot be opened again"),
            }
        }
        outcome
    }

    fn look(&mut self, picture: &Picture) -> Result<Vec<Segment>, Unseen> {
        let chunks = self.divide(picture)?;
        let mut segments = Vec::new();
        let mut parts = 0;
        for at in 0.. {
            let Some(chunk) = self.chunk(&chunks, at)? else {
                break;
            };
            segments.push(match chunk {
                Found::Text(tokens) => Segment::Text(tokens),
                Found::Image {
                    rows,
                    layout,
                    attention,
                } => {
                    let width = self.weights.embedding_width();
                    let numbers = self.encode(&chunks, at, rows * width)?;
                    let image =
                        Image::new(&picture.digest, parts, layout, attention, width, numbers);
                    parts += 1;
                    let none = || Unseen::Failed("it made no rows of the picture".into());
                    Segment::Image(Arc::new(image.ok_or_else(none)?))
                }
            });
        }
        Ok(segments)
    }

    fn divide(&self, picture: &Picture) -> Result<Chunks, Unseen> {
        let Picture { width, height, .. } = *picture;
        let bytes = u64::from(width) * u64::from(height) * 3;
        if picture.rgb.len() as u64 != bytes || bytes == 0 {
            return Err(Unseen::Refused("the picture has no pixels".into()));
        }
        backend::take_errors();
        let (mut chunks, mut out) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: there are as many pixels as said; the projector is open.
        let code = unsafe {
            let rgb = picture.rgb.as_ptr();
            projector_divide(
                self.raw.0,
                width,
                height,
                rgb,
                &raw mut chunks,
                &raw mut out,
            )
        };
        match outcome(code, out) {
            Ok(()) => Ok(Chunks(chunks)),
            Err(fault) => Err(Unseen::Refused(format!(
                "the model's projector cannot take a picture of {width} × {height} pixels: {}",
                backend::reason(fault)
            ))),
        }
    }

    fn chunk(&self, chunks: &Chunks, at: usize) -> Result<Option<Found>, Unseen> {
        let mut chunk = Chunk {
            tokens: ptr::null(),
            count: 0,
            columns: 0,
            whole: false,
        };
        let (mut more, mut out) = (false, ptr::null_mut());
        // SAFETY: the chunks are of this projector.
        let code = unsafe {
            projector_chunk_at(
                self.raw.0,
                chunks.0,
                at,
                &raw mut chunk,
                &raw mut more,
                &raw mut out,
            )
        };
        outcome(code, out).map_err(|fault| Unseen::Refused(backend::reason(fault)))?;
        if !more {
            return Ok(None);
        }
        if !chunk.tokens.is_null() {
            // SAFETY: `tokens` points to so many tokens, which live as long as the chunks.
            let tokens = unsafe { std::slice::from_raw_parts(chunk.tokens, chunk.count) };
            return Ok(Some(Found::Text(tokens.to_vec())));
        }
        let ubatch = self.place.ubatch;
        if chunk.whole && chunk.count > ubatch as usize {
            return Err(Unseen::Refused(format!(
                "the picture takes {} tokens, which this model computes at once, and engine.ubatch is {ubatch}",
                chunk.count
            )));
        }
        Ok(Some(Found::Image {
            rows: chunk.count,
            layout: match chunk.columns {
                0 => Layout::Line,
                columns => Layout::Grid { columns },
            },
            attention: if chunk.whole {
                Attention::Whole
            } else {
                Attention::Causal
            },
        }))
    }

    fn encode(&mut self, chunks: &Chunks, at: usize, count: usize) -> Result<Vec<f32>, Unseen> {
        backend::take_errors();
        let mut numbers = vec![0.0; count];
        let mut out = ptr::null_mut();
        // SAFETY: there is room for `count` numbers, which the projector makes: it was opened for the same width.
        let code = unsafe {
            let into = numbers.as_mut_ptr();
            projector_encode(self.raw.0, chunks.0, at, into, count, &raw mut out)
        };
        outcome(code, out).map_err(|fault| Unseen::Failed(backend::reason(fault)))?;
        if numbers.iter().all(|number| number.is_finite()) {
            Ok(numbers)
        } else {
            Err(Unseen::Failed(
                "it computed numbers that are not finite".into(),
            ))
        }
    }
}

// SAFETY: nothing in it belongs to a thread; whoever has it uses it alone.
unsafe impl Send for Projector {}

enum Found {
    Text(Vec<sys::llama_token>),
    Image {
        rows: usize,
        layout: Layout,
        attention: Attention,
    },
}

struct Chunks(*mut sys::mtmd_input_chunks);

impl Drop for Chunks {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { projector_forget(self.0) };
    }
}

fn open(weights: &Weights, place: &Projection) -> Result<Raw, LoadError> {
    let refuse = |why: String| LoadError::File {
        path: place.file.clone(),
        why,
    };
    gguf::check_projector(&place.file).map_err(|error| refuse(error.to_string()))?;
    let name = backend::c_path(&place.file)?;
    let device = handle(place.device.as_deref())?;
    backend::take_errors();
    let (mut raw, mut out) = (ptr::null_mut(), ptr::null_mut());
    let mut facts = Facts::default();
    // SAFETY: the model is loaded; the projector reads its vocabulary and sizes now and never again.
    let code = unsafe {
        projector_open(
            name.as_ptr(),
            weights.as_ptr(),
            device,
            c_int::try_from(place.threads).unwrap_or(1),
            &raw mut raw,
            &raw mut facts,
            &raw mut out,
        )
    };
    outcome(code, out)
        .map_err(|fault| refuse(format!("as a projector: {}", backend::reason(fault))))?;
    let raw = Raw(raw);
    let Facts { sees, hears, grid } = facts;
    tracing::debug!(sees, hears, grid, "projector");
    if !sees {
        return Err(refuse(
            "the projector reads no images; this server takes no audio yet".into(),
        ));
    }
    if grid != (weights.positions() > 1) {
        return Err(refuse(
            "the projector places images in another way than the model".into(),
        ));
    }
    Ok(raw)
}

fn handle(device: Option<&str>) -> Result<sys::ggml_backend_dev_t, LoadError> {
    match device {
        None => Ok(ptr::null_mut()),
        Some(name) => devices::handle(name)
            .ok_or_else(|| LoadError::Backend(format!("no device is called {name}"))),
    }
}

/// Bytes that a projector takes, planned without allocating them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProjectorBytes {
    pub(crate) on_device: u64,
    pub(crate) on_host: u64,
}

/// What the projector would take, its work on an image of its own choice included.
pub(crate) fn gauge_projector(
    file: &Path,
    device: Option<&str>,
    threads: u32,
) -> Result<ProjectorBytes, LoadError> {
    let refuse = |why: String| LoadError::File {
        path: file.to_owned(),
        why,
    };
    gguf::check_projector(file).map_err(|error| refuse(error.to_string()))?;
    let name = backend::c_path(file)?;
    let device = handle(device)?;
    backend::take_errors();
    let (mut on_device, mut on_host, mut out) = (0, 0, ptr::null_mut());
    // SAFETY: a NUL-terminated path and a device that lives as long as the process.
    let code = unsafe {
        projector_gauge(
            name.as_ptr(),
            device,
            c_int::try_from(threads).unwrap_or(1),
            &raw mut on_device,
            &raw mut on_host,
            &raw mut out,
        )
    };
    outcome(code, out)
        .map_err(|fault| refuse(format!("as a projector: {}", backend::reason(fault))))?;
    Ok(ProjectorBytes {
        on_device: on_device as u64,
        on_host: on_host as u64,
    })
}

//! A projector: what turns pictures and sounds into rows of numbers that a model takes in place of tokens.

mod raw;

use std::{
    path::{Path, PathBuf},
    ptr,
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use self::raw::{Chunks, Facts, Found, Raw};
use super::{LoadError, Weights, backend, devices};
use crate::engine::{
    gguf,
    media::{Attention, Image, Layout, MediumDigest},
    senses::{Faculties, Medium, Picture, Segment, Sound, Unperceived},
};

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
    faculties: Faculties,
    weights: Arc<Weights>,
    place: Projection,
}

impl Projector {
    /// Opens the file for the model and computes an image of the projector's own choice. [`super::init`] comes first.
    pub fn open(weights: Arc<Weights>, place: Projection) -> Result<Self, LoadError> {
        let (raw, faculties) = open(&weights, &place)?;
        Ok(Self {
            raw,
            faculties,
            weights,
            place,
        })
    }

    pub fn faculties(&self) -> Faculties {
        self.faculties
    }

    /// What the model takes in place of the picture or the sound.
    pub fn perceive(&mut self, medium: &Medium) -> Result<Vec<Segment>, Unperceived> {
        let outcome = match medium {
            Medium::Picture(picture) => self.look(picture),
            Medium::Sound(sound) => self.listen(sound),
        };
        if let Err(Unperceived::Failed(why)) = &outcome {
            // After an abort halfway nothing is certain.
            tracing::error!(%why, "opening the projector anew");
            match open(&self.weights, &self.place) {
                Ok((raw, _)) => self.raw = raw,
                Err(error) => tracing::error!(%error, "the projector cannot be opened again"),
            }
        }
        outcome
    }

    fn look(&mut self, picture: &Picture) -> Result<Vec<Segment>, Unperceived> {
        let Picture { width, height, .. } = *picture;
        let bytes = u64::from(width) * u64::from(height) * 3;
        if picture.rgb.len() as u64 != bytes || bytes == 0 {
            return Err(Unperceived::Refused("the picture has no pixels".into()));
        }
        backend::take_errors();
        let chunks = self.raw.divide_picture(picture).map_err(|fault| {
            Unperceived::Refused(format!(
                "the model's projector cannot take a picture of {width} × {height} pixels: {}",
                backend::reason(fault)
            ))
        })?;
        self.compute(&chunks, &picture.digest)
    }

    fn listen(&mut self, sound: &Sound) -> Result<Vec<Segment>, Unperceived> {
        let count = sound.samples.len();
        // libmtmd asserts on a single one.
        if count < 2 || !sound.samples.iter().all(|sample| sample.is_finite()) {
            let why = "the sound has no samples, or some that are no numbers";
            return Err(Unperceived::Refused(why.into()));
        }
        backend::take_errors();
        let chunks = self.raw.divide_sound(sound).map_err(|fault| {
            Unperceived::Refused(format!(
                "the model's projector cannot take a sound of {count} samples: {}",
                backend::reason(fault)
            ))
        })?;
        self.compute(&chunks, &sound.digest)
    }

    fn compute(
        &mut self,
        chunks: &Chunks,
        digest: &MediumDigest,
    ) -> Result<Vec<Segment>, Unperceived> {
        let mut segments = Vec::new();
        let mut parts = 0;
        for at in 0.. {
            let chunk = self.raw.chunk(chunks, at);
            let chunk = chunk.map_err(|fault| Unperceived::Refused(backend::reason(fault)))?;
            segments.push(match chunk {
                None => break,
                Some(Found::Text(tokens)) => Segment::Text(tokens),
                Some(Found::Rows {
                    count,
                    columns,
                    whole,
                }) => {
                    let attention = self.attention(whole, count)?;
                    let layout = match columns {
                        0 => Layout::Line,
                        columns => Layout::Grid { columns },
                    };
                    let width = self.weights.embedding_width();
                    let numbers = self.encode(chunks, at, count * width)?;
                    let image = Image::new(digest, parts, layout, attention, width, numbers);
                    parts += 1;
                    let none = || Unperceived::Failed("it made no rows".into());
                    Segment::Image(Arc::new(image.ok_or_else(none)?))
                }
            });
        }
        Ok(segments)
    }

    fn attention(&self, whole: bool, rows: usize) -> Result<Attention, Unperceived> {
        let ubatch = self.place.ubatch;
        match whole {
            false => Ok(Attention::Causal),
            true if rows <= ubatch as usize => Ok(Attention::Whole),
            true => Err(Unperceived::Refused(format!(
                "it takes {rows} tokens, which this model computes at once, and engine.ubatch is {ubatch}"
            ))),
        }
    }

    fn encode(
        &mut self,
        chunks: &Chunks,
        at: usize,
        count: usize,
    ) -> Result<Vec<f32>, Unperceived> {
        backend::take_errors();
        let numbers = self.raw.encode(chunks, at, count);
        let numbers = numbers.map_err(|fault| Unperceived::Failed(backend::reason(fault)))?;
        if numbers.iter().all(|number| number.is_finite()) {
            Ok(numbers)
        } else {
            let why = "it computed numbers that are not finite";
            Err(Unperceived::Failed(why.into()))
        }
    }
}

fn open(weights: &Weights, place: &Projection) -> Result<(Raw, Faculties), LoadError> {
    let refuse = |why: String| LoadError::File {
        path: place.file.clone(),
        why,
    };
    gguf::check_projector(&place.file).map_err(|error| refuse(error.to_string()))?;
    let name = backend::c_path(&place.file)?;
    let device = handle(place.device.as_deref())?;
    backend::take_errors();
    let (raw, facts) = Raw::open(&name, weights.as_ptr(), device, place.threads)
        .map_err(|fault| refuse(format!("as a projector: {}", backend::reason(fault))))?;
    let Facts { sees, grid, hears } = facts;
    tracing::debug!(sees, hears, grid, "projector");
    let faculties = Faculties {
        sees,
        hears: u32::try_from(hears).ok().filter(|&rate| rate > 0),
    };
    if !sees && faculties.hears.is_none() {
        return Err(refuse(
            "the projector reads neither images nor sounds".into(),
        ));
    }
    if grid != (weights.positions() > 1) {
        return Err(refuse(
            "the projector places images in another way than the model".into(),
        ));
    }
    Ok((raw, faculties))
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
    let (on_device, on_host) = raw::gauge(&name, device, threads)
        .map_err(|fault| refuse(format!("as a projector: {}", backend::reason(fault))))?;
    Ok(ProjectorBytes {
        on_device: on_device as u64,
        on_host: on_host as u64,
    })
}

//! The file to load, proved to be the pinned one; fetched first when that was asked for.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    engine::fit::Files,
    fetch::{Fetch, FetchError},
    lock::{Digest, Entry, NoStore, Store, VerifyError},
};

/// Which weights to serve.
#[derive(Debug, Clone)]
pub enum Origin {
    /// An entry of `models.lock`.
    Pinned {
        name: String,
        entry: Box<Entry>,
        absent: Absent,
    },
    /// A file outside the lock; its digest is what it turns out to be.
    File { name: String, path: PathBuf },
}

/// The files to serve.
#[derive(Debug, Clone)]
pub struct Origins {
    pub model: Origin,
    pub projector: Option<Origin>,
    /// In the order of `model.adapters`.
    pub adapters: Vec<Origin>,
    /// A smaller model that guesses.
    pub draft: Option<Origin>,
}

/// What to do when the pinned file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    Refuse,
    Fetch,
}

/// Weights that may be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) file: PathBuf,
    pub(crate) sha256: Digest,
}

/// All files to serve, each of which may be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Proved {
    pub(crate) model: Located,
    pub(crate) projector: Option<Located>,
    /// In the order of `model.adapters`: where each lies, and its digest.
    pub(crate) adapters: Vec<PathBuf>,
    pub(crate) adapters_sha256: Vec<Digest>,
    pub(crate) draft: Option<Located>,
}

impl Proved {
    pub(crate) fn files(&self) -> Files<'_> {
        Files {
            model: &self.model.file,
            projector: self.projector.as_ref().map(|located| &*located.file),
            adapters: &self.adapters,
            draft: self.draft.as_ref().map(|located| &*located.file),
        }
    }
}

impl Origins {
    /// Finds all files and their digests.
    pub(crate) fn prove(&self) -> Result<Proved, LocateError> {
        self.prove_showing(|_| ())
    }

    /// The same; `hashed` is told the bytes of the model read so far while that takes long.
    pub(crate) fn prove_showing(&self, hashed: impl FnMut(u64)) -> Result<Proved, LocateError> {
        let locate = |origin: &Origin| origin.locate(|_| ());
        let model = self.model.locate(hashed)?;
        let adapters = self.adapters.iter().map(locate);
        let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        Ok(Proved {
            model,
            projector: self.projector.as_ref().map(locate).transpose()?,
            draft: self.draft.as_ref().map(locate).transpose()?,
            adapters_sha256: adapters.iter().map(|located| located.sha256).collect(),
            adapters: adapters.into_iter().map(|located| located.file).collect(),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error(transparent)]
    NoStore(#[from] NoStore),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl Origin {
    /// What the model is called towards clients and in the log.
    pub(crate) fn name(&self) -> &str {
        let (Self::Pinned { name, .. } | Self::File { name, .. }) = self;
        name
    }

    /// Bytes of the weights; 0 when they cannot be told yet.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Pinned { entry, .. } => entry.size,
            Self::File { path, .. } => path.metadata().map_or(0, |about| about.len()),
        }
    }

    /// Where the file lies, if it is there, without proof that it is the right one.
    pub(crate) fn present(&self) -> Result<Option<PathBuf>, LocateError> {
        let path = match self {
            Self::Pinned { name, entry, .. } => Store::from_environment()?.path(name, entry),
            Self::File { path, .. } => path.clone(),
        };
        Ok(path.exists().then_some(path))
    }

    /// Finds the file and its digest. `hashed` is told the bytes read so far while that takes long.
    pub(crate) fn locate(&self, hashed: impl FnMut(u64)) -> Result<Located, LocateError> {
        match self {
            Self::Pinned {
                name,
                entry,
                absent,
            } => {
                let store = Store::from_environment()?;
                let file = match (store.verified_showing(name, entry, hashed), absent) {
                    (Err(VerifyError::Missing { .. }), Absent::Fetch) => {
                        Fetch::from_environment()?.entry(name, entry)?;
                        store.verified(name, entry)?
                    }
                    (found, _) => found?,
                };
                Ok(Located {
                    file,
                    sha256: entry.sha256,
                })
            }
            Self::File { path, .. } => Ok(Located {
                file: path.clone(),
                sha256: digest(path, hashed)?,
            }),
        }
    }

    /// The digest without looking at a pinned file; a file outside the lock must be read.
    pub(crate) fn sha256(&self) -> Result<Digest, LocateError> {
        match self {
            Self::Pinned { entry, .. } => Ok(entry.sha256),
            Self::File { path, .. } => digest(path, |_| ()),
        }
    }
}

fn digest(file: &Path, hashed: impl FnMut(u64)) -> Result<Digest, LocateError> {
    let failed = |source| LocateError::Read {
        path: file.into(),
        source,
    };
    // Only regular files: anything else might block, or never end.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    // Without a store there is no place to remember the digest, so it is computed each time.
    let store = Store::from_environment().unwrap_or_else(|_| Store::at("/nonexistent"));
    store.digest_of_showing(file, hashed).map_err(failed)
}

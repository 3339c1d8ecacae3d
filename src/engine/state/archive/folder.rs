//! A folder of states that this process alone uses.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FlockOperation, flock};

use super::{super::file::UNFINISHED, Name};

/// What the names of its files end with; nothing else in it is ever touched.
pub(super) const KEPT: &str = ".state";

/// Held as long as this lives.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Folder {
    /// Makes the folder, for its owner only, and locks it. Fails with `WouldBlock` if another process has it.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        Self::make(&path)?;
        let lock = File::create(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            path,
            _lock: Arc::new(lock),
        })
    }

    /// Makes a folder that only its owner may look into, with all above it.
    pub fn make(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &Name) -> PathBuf {
        self.path.join(&**name)
    }

    /// The states in it, the longest unused first. What an earlier process did not finish is removed.
    pub(super) fn names(&self) -> io::Result<Vec<Name>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.ends_with(UNFINISHED) {
                self.remove(&name.into(), &"it was never finished");
            } else if name.ends_with(KEPT) {
                found.push((entry.metadata()?.modified()?, Arc::from(name)));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    pub(super) fn remove(&self, name: &Name, why: &dyn std::fmt::Display) {
        tracing::info!(file = %name, %why, "a kept prompt is removed");
        if let Err(error) = fs::remove_file(self.file(name)) {
            tracing::warn!(file = %name, %error, "a kept prompt could not be removed");
        }
    }
}

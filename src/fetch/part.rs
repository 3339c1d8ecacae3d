//! A file on its way: written beside its place, hashed as it grows, renamed when it is the pinned one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{FetchError, progress::Progress};
use crate::lock::Digest;

/// Bytes read from the part at a time when it is hashed again.
const CHUNK: usize = 1 << 20;

pub(super) struct Part {
    path: PathBuf,
    file: File,
    sha: Sha256,
    len: u64,
    /// Bytes the whole file has.
    size: u64,
}

impl Part {
    /// An empty part, whatever lay there.
    pub(super) fn fresh(path: &Path, size: u64) -> Result<Self, FetchError> {
        let mut part = Self::open(path, size)?;
        part.restart()?;
        Ok(part)
    }

    /// What an earlier process left, hashed again; empty if it is not the beginning of anything.
    pub(super) fn resume(path: &Path, size: u64, progress: &Progress) -> Result<Self, FetchError> {
        let mut part = Self::open(path, size)?;
        let left = part
            .file
            .metadata()
            .map_err(FetchError::file("read", path))?;
        if left.len() > size {
            part.restart()?;
            return Ok(part);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match io::Read::read(&mut part.file, &mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    part.sha.update(&chunk[..read]);
                    part.len += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FetchError::file("read", path)(error)),
            }
        }
        if part.len > 0 {
            progress.begin_at(part.len);
        }
        Ok(part)
    }

    fn open(path: &Path, size: u64) -> Result<Self, FetchError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(FetchError::file("create", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            sha: Sha256::new(),
            len: 0,
            size,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn missing(&self) -> u64 {
        self.size - self.len
    }

    /// Back to nothing.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        self.forget_etag();
        self.sha = Sha256::new();
        self.len = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(FetchError::file("truncate", &self.path))
    }

    /// Appends `bytes`, which must not be more than are [missing](Part::missing).
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file
            .write_all(bytes)
            .map_err(FetchError::file("write", &self.path))?;
        self.sha.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The strong `ETag` under which the bytes so far were served.
    pub(super) fn etag(&self) -> Option<String> {
        fs::read_to_string(self.etag_path()).ok()
    }

    /// Lost, it costs nothing but the early notice that the file changed: the digest still tells.
    pub(super) fn remember_etag(&self, etag: &str) {
        let _ = fs::write(self.etag_path(), etag);
    }

    pub(super) fn forget_etag(&self) {
        let _ = fs::remove_file(self.etag_path());
    }

    fn etag_path(&self) -> PathBuf {
        self.path.with_added_extension("etag")
    }

    /// Removes the part: nothing of it may be used.
    pub(super) fn discard(self) {
        self.forget_etag();
        let _ = fs::remove_file(&self.path);
    }

    /// Puts the file in its place, durably, if it has the pinned digest; else removes it.
    pub(super) fn install(
        self,
        name: &str,
        pinned: Digest,
        place: &Path,
    ) -> Result<Digest, FetchError> {
        let found = Digest::from(self.sha.clone());
        if found != pinned {
            self.discard();
            return Err(FetchError::Mismatch {
                what: format!("what was fetched for {name}"),
                found,
                pinned,
            });
        }
        self.file
            .sync_all()
            .map_err(FetchError::file("write", &self.path))?;
        fs::rename(&self.path, place).map_err(FetchError::file("create", place))?;
        self.forget_etag();
        // The rename itself must survive a power cut.
        let folder = place.parent().unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(FetchError::file("write", folder))?;
        Ok(found)
    }
}

//! One process at a time: an advisory lock on a file that is gone again when nobody fetches.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Held while fetching; the kernel releases it when the process dies.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    _file: File,
}

impl Turn {
    /// Waits for the lock; `waits` is called once if somebody else has it.
    pub(super) fn take(path: &Path, mut waits: impl FnMut()) -> io::Result<Self> {
        let mut told = false;
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        waits();
                    }
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The last holder removed the file before it let go: a lock on that one excludes nobody.
            let mine = file.metadata()?;
            if fs::metadata(path).is_ok_and(|there| there.ino() == mine.ino()) {
                return Ok(Self {
                    path: path.to_owned(),
                    _file: file,
                });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the lock is released, so that the file removed is surely this one.
        let _ = fs::remove_file(&self.path);
    }
}

//! States that clients save to files and restore from them, each API key its own.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task};

use super::{FileError, Folder, Identity, NotDone, Saved, file};
use crate::engine::Engine;

/// The folder of such files.
#[derive(Debug)]
pub struct Slots {
    folder: PathBuf,
    identity: Identity,
    /// One state at a time: each may take as much host memory as a sequence's cache.
    turn: Arc<Semaphore>,
}

/// A name that a client gave a file; it leads nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a name of 1–255 bytes without path separators, control characters, any of :*?\"<>|, \"..\", spaces at its \
     ends or a dot at its end"
)]
pub struct BadName;

/// What was saved or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub tokens: u32,
    /// Of the file.
    pub bytes: u64,
    pub took: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    #[error(transparent)]
    NotDone(#[from] NotDone),
    /// None that this key has saved.
    #[error("there is no such file")]
    NoFile,
    #[error(transparent)]
    Unusable(FileError),
    #[error("it could not be written: {0}")]
    NotWritten(FileError),
    #[error("the thread that did it is gone")]
    Lost,
}

/// llama-server refuses these as well: their looks or a file system could make something else of them.
const DOTS_AND_SLASHES: [char; 5] = ['\u{ff0e}', '\u{2215}', '\u{2216}', '\u{fffd}', '\u{feff}'];

impl FileName {
    pub fn parse(name: &str) -> Result<Self, BadName> {
        let forbidden = |letter: char| {
            letter.is_control()
                || "/\\:*?\"<>|".contains(letter)
                || DOTS_AND_SLASHES.contains(&letter)
        };
        let bad = name.is_empty()
            || name.len() > 255
            || name.contains(forbidden)
            || name.contains("..")
            || name.starts_with(' ')
            || name.ends_with([' ', '.']);
        if bad {
            Err(BadName)
        } else {
            Ok(Self(name.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Slots {
    pub(crate) fn new(folder: PathBuf, identity: Identity) -> Self {
        Self {
            folder,
            identity,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Writes what a sequence holds of the tenant's to a file.
    pub async fn save(
        self: &Arc<Self>,
        engine: &Engine,
        sequence: u32,
        tenant: u64,
        name: &FileName,
    ) -> Result<Done, SlotError> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let began = Instant::now();
        let saved = engine.copy(sequence, tenant).await?;
        let tokens = count(&saved);
        let (own, path) = (Arc::clone(self), self.path(tenant, name));
        let write = move || {
            let _turn = turn; // also if nobody waits any more
            Folder::make(path.parent().unwrap_or(Path::new(".")))?;
            file::write(&path, &own.identity, &saved, None)
        };
        let written = task::spawn_blocking(write).await;
        let bytes = written
            .map_err(|_| SlotError::Lost)?
            .map_err(SlotError::NotWritten)?;
        let took = began.elapsed();
        Ok(Done {
            tokens,
            bytes,
            took,
        })
    }

    /// Puts what a file of the tenant's holds in place of what a sequence holds. Nothing of it reaches the engine before
    /// all of it was found to be what was saved.
    pub async fn restore(
        self: &Arc<Self>,
        engine: &Engine,
        sequence: u32,
        tenant: u64,
        name: &FileName,
    ) -> Result<Done, SlotError> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let began = Instant::now();
        let (own, path) = (Arc::clone(self), self.path(tenant, name));
        let read = move || (file::read(&path, &own.identity), turn);
        let read = task::spawn_blocking(read).await;
        let (read, _turn) = read.map_err(|_| SlotError::Lost)?;
        let (saved, bytes) = read.map_err(|error| match error {
            FileError::Io(error) if error.kind() == io::ErrorKind::NotFound => SlotError::NoFile,
            other => SlotError::Unusable(other),
        })?;
        // The folder says so already; a file may have been moved.
        if saved.prefix.tenant != Some(tenant) {
            return Err(SlotError::NoFile);
        }
        let tokens = engine.put(sequence, tenant, saved).await?;
        let took = began.elapsed();
        Ok(Done {
            tokens,
            bytes,
            took,
        })
    }

    fn path(&self, tenant: u64, name: &FileName) -> PathBuf {
        self.folder.join(format!("{tenant:016x}")).join(&name.0)
    }
}

fn count(saved: &Saved) -> u32 {
    u32::try_from(saved.tokens()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_lead_elsewhere_is_none() {
        let long = "x".repeat(256);
        let bad = [
            "",
            ".",
            "..",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "../x",
            "x..y",
            " x",
            "x ",
            "x.",
            "a\0",
            "a\nb",
            "a:b",
            "a*",
            "\u{2215}x",
            "\u{ff0e}x",
            &long,
        ];
        for name in bad {
            assert_eq!(FileName::parse(name), Err(BadName), "{name:?}");
        }
        for name in ["a", "slot-0.bin", ".hidden", "größe", "a b"] {
            assert_eq!(FileName::parse(name).unwrap().as_str(), name);
        }
    }
}

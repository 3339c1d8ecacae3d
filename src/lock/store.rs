//! The store: the folder where weights lie, and the proof that they are the pinned ones.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Digest, Entry,
    seen::{Mark, Seen},
};

/// A folder of weights, one file for each entry. May be read-only.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Why there is no place for weights.
#[derive(Debug, thiserror::Error)]
#[error(
    "no place for models: set LLM_SERVER_MODELS to a folder (STATE_DIRECTORY, XDG_DATA_HOME and HOME are unset too)"
)]
pub struct NoStore;

/// Why a file may not be used as the weights of an entry.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{name} is not fetched yet: there is no {path}; run `llm-server models fetch {name}`", path = path.display())]
    Missing { name: String, path: PathBuf },
    #[error(
        "{path} is not what models.lock pins as {name}: its sha256 is {found}, the pinned one is {pinned}; \
         run `llm-server models fetch {name}` to replace it",
        path = path.display()
    )]
    Mismatch {
        name: String,
        path: PathBuf,
        found: Digest,
        pinned: Digest,
    },
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl Store {
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The store of this process: see [`Store::locate`].
    pub fn from_environment() -> Result<Self, NoStore> {
        Self::locate(|name| std::env::var_os(name))
    }

    /// `$LLM_SERVER_MODELS`, else `models` in systemd's state directory, else `llm-server/models` in
    /// the user's data folder (XDG).
    pub fn locate(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, NoStore> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(folder) = set("LLM_SERVER_MODELS") {
            return Ok(Self::at(folder));
        }
        let first_state = set("STATE_DIRECTORY")
            .and_then(|list| std::env::split_paths(&list).next())
            .filter(|path| path.is_absolute());
        if let Some(folder) = first_state {
            return Ok(Self::at(folder.join("models")));
        }
        // The specification says that a relative path there is to be ignored.
        let data = set("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/share")));
        data.map(|folder| Self::at(folder.join("llm-server/models")))
            .ok_or(NoStore)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where an entry's weights lie, whether they are there or not: `NAME-DIGEST.gguf` with the first
    /// 16 hex digits, so that a changed pin never meets the old bytes.
    pub fn path(&self, name: &str, entry: &Entry) -> PathBuf {
        self.folder
            .join(format!("{name}-{}.gguf", entry.sha256.short()))
    }

    /// The entry's file, after it has proved to have the pinned digest.
    pub fn verified(&self, name: &str, entry: &Entry) -> Result<PathBuf, VerifyError> {
        self.verified_showing(name, entry, |_| ())
    }

    /// As [`Store::verified`]; `seen` is told the bytes hashed so far while it takes long.
    pub fn verified_showing(
        &self,
        name: &str,
        entry: &Entry,
        seen: impl FnMut(u64),
    ) -> Result<PathBuf, VerifyError> {
        let path = self.path(name, entry);
        let found = self.digest_of_showing(&path, seen);
        check(name, entry, path, found)
    }

    /// As [`Store::verified`], but hashes every byte again, whatever is remembered.
    pub fn verified_anew(
        &self,
        name: &str,
        entry: &Entry,
        seen: impl FnMut(u64),
    ) -> Result<PathBuf, VerifyError> {
        let path = self.path(name, entry);
        let found = self.hash(&path, seen);
        check(name, entry, path, found)
    }

    /// The digest of a file that has not changed since it was hashed; nothing is hashed.
    pub(crate) fn recalled(&self, path: &Path) -> Option<Digest> {
        let mark = Mark::of(&fs::metadata(path).ok()?);
        Seen::of_store(&self.folder).recall(&mark)
    }

    /// The digest of any file, in the store or not; hashed again only if it changed since.
    pub fn digest_of(&self, path: &Path) -> io::Result<Digest> {
        self.digest_of_showing(path, |_| ())
    }

    /// As [`Store::digest_of`]; `seen` is told the bytes hashed so far.
    pub fn digest_of_showing(&self, path: &Path, seen: impl FnMut(u64)) -> io::Result<Digest> {
        let mark = Mark::of(&fs::metadata(path)?);
        match Seen::of_store(&self.folder).recall(&mark) {
            Some(digest) => Ok(digest),
            None => self.hash(path, seen),
        }
    }

    /// Remembers that `path` has this digest, for whoever has just written it.
    pub(crate) fn remember(&self, path: &Path, digest: Digest) {
        if let Ok(metadata) = fs::metadata(path) {
            Seen::of_store(&self.folder).remember(Mark::of(&metadata), digest);
        }
    }

    fn hash(&self, path: &Path, seen: impl FnMut(u64)) -> io::Result<Digest> {
        let file = fs::File::open(path)?;
        let before = Mark::of(&file.metadata()?);
        let began = Instant::now();
        let digest = Digest::of_reader(&file, seen)?;
        let after = file.metadata()?;
        tracing::debug!(
            path = %path.display(),
            mb_per_s = after.len() as f64 / 1e6 / began.elapsed().as_secs_f64(),
            "hashed"
        );
        // A file that changed under the reader has no digest worth remembering.
        if Mark::of(&after) == before {
            Seen::of_store(&self.folder).remember(before, digest);
        }
        Ok(digest)
    }
}

fn check(
    name: &str,
    entry: &Entry,
    path: PathBuf,
    found: io::Result<Digest>,
) -> Result<PathBuf, VerifyError> {
    match found {
        Ok(found) if found == entry.sha256 => Ok(path),
        Ok(found) => Err(VerifyError::Mismatch {
            name: name.to_owned(),
            path,
            found,
            pinned: entry.sha256,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(VerifyError::Missing {
            name: name.to_owned(),
            path,
        }),
        Err(source) => Err(VerifyError::Read { path, source }),
    }
}

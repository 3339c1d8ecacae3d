//! `models.lock`: the name of a model → where its bytes come from, and which bytes they must be.

mod append;
mod digest;
mod entry;
mod seen;
mod store;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub use append::{AppendError, append, table_text};
pub use digest::{BadDigest, Digest};
pub use entry::{Entry, NAME_RULE, Source, is_name};
pub(crate) use entry::{is_repo, is_revision};
pub use store::{NoStore, Store, VerifyError};

/// The file's name wherever one is looked for.
pub const FILE_NAME: &str = "models.lock";

const BUILTIN: &str = include_str!("../models.lock");

/// A parsed `models.lock`: every entry well-formed, every companion there.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    entries: BTreeMap<String, Entry>,
    file: Option<PathBuf>,
}

/// Why a `models.lock` was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Drawn by the TOML parser: line, column and the offending text.
    #[error("not TOML: {0}")]
    Toml(String),
    #[error("table [{table}]: {problem}; accepted is {accepted}")]
    Table {
        table: String,
        problem: &'static str,
        accepted: &'static str,
    },
    #[error("table [{table}], field `{field}`: {problem}; accepted is {accepted}")]
    Field {
        table: String,
        field: String,
        problem: String,
        accepted: String,
    },
    #[error("{path}: {source}", path = path.display())]
    In {
        path: PathBuf,
        source: Box<LockError>,
    },
}

impl Lock {
    /// Reads the text of a `models.lock`.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let tables: toml::Table =
            toml::from_str(text).map_err(|error| LockError::Toml(error.to_string()))?;
        let mut entries = BTreeMap::new();
        for (name, value) in tables {
            let entry = entry::parse(&name, value)?;
            entries.insert(name, entry);
        }
        check_companions(&entries)?;
        Ok(Self {
            entries,
            file: None,
        })
    }

    /// The lock this program was built with.
    pub fn builtin() -> Self {
        Self::parse(BUILTIN).expect("a test parses the built-in models.lock")
    }

    /// The text behind [`Lock::builtin`].
    pub fn builtin_text() -> &'static str {
        BUILTIN
    }

    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let text = fs::read_to_string(path).map_err(|source| LockError::Read {
            path: path.to_owned(),
            source,
        })?;
        let lock = Self::parse(&text).map_err(|source| LockError::In {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            file: Some(path.to_owned()),
            ..lock
        })
    }

    /// The lock in use: the file `explicit`, else `models.lock` in the folder `beside`, else
    /// `models.lock` in the working directory, else the built-in one.
    pub fn find(explicit: Option<&Path>, beside: Option<&Path>) -> Result<Self, LockError> {
        if let Some(path) = explicit {
            return Self::read(path);
        }
        let folders = [beside, Some(Path::new(""))];
        let found = folders
            .into_iter()
            .flatten()
            .map(|folder| folder.join(FILE_NAME))
            .find(|path| path.exists());
        found.map_or_else(|| Ok(Self::builtin()), |path| Self::read(&path))
    }

    /// Where this lock was read from; `None` for the built-in one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Models akin to `name` that are smaller than `room` bytes and than itself, the nearest kin and the largest
    /// first: other quantizations of the same weights, then of the same family.
    pub fn smaller(&self, name: &str, room: u64) -> Vec<(&str, &Entry)> {
        let own = self.get(name).map_or(u64::MAX, |entry| entry.size);
        let companions: Vec<_> = self
            .iter()
            .filter_map(|(_, entry)| entry.mmproj.as_deref())
            .collect();
        let mut found: Vec<_> = self
            .iter()
            .filter(|(other, entry)| {
                entry.size < room.min(own)
                    && entry.trained_context.is_some()
                    && !companions.contains(other)
                    && kinship(name, other) > 0
            })
            .collect();
        found.sort_by_key(|(other, entry)| std::cmp::Reverse((kinship(name, other), entry.size)));
        found
    }

    /// Names and entries, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }
}

/// How many of the words of two names, from the first on, are equal.
fn kinship(a: &str, b: &str) -> usize {
    let pairs = a.split('-').zip(b.split('-'));
    pairs.take_while(|(a, b)| a == b).count()
}

fn check_companions(entries: &BTreeMap<String, Entry>) -> Result<(), LockError> {
    for (name, entry) in entries {
        let companions = [("mmproj", &entry.mmproj), ("draft", &entry.draft)];
        for (field, companion) in companions {
            let Some(companion) = companion else { continue };
            let problem = if companion == name {
                "a model is not its own companion".to_owned()
            } else if entries.contains_key(companion) {
                continue;
            } else {
                format!("there is no table [{companion}]")
            };
            return Err(LockError::Field {
                table: name.clone(),
                field: field.to_owned(),
                problem,
                accepted: "the name of another table of this file".to_owned(),
            });
        }
    }
    Ok(())
}

//! The model's file: whether it is there, and whether it is the pinned one.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::{
    engine::gguf,
    lock::{Entry, Store, VerifyError},
    report::size,
    serve::Origin,
};

const SUBJECT: &str = "model";
/// Larger files are not hashed here: that is for `models verify`, or for the next start.
const HASHED_AT_MOST: u64 = 1 << 30;

/// And the file, if it may be the right one.
pub(super) fn finding(origin: &Origin) -> (Finding, Option<PathBuf>) {
    match origin {
        Origin::Pinned { name, entry, .. } => match Store::from_environment() {
            Ok(store) => pinned(&store, name, entry),
            Err(none) => {
                let cure = "set LLM_SERVER_MODELS to a folder";
                (Finding::fail(SUBJECT, none.to_string(), cure), None)
            }
        },
        Origin::File { path, .. } => match gguf::check(path) {
            Ok(_) => {
                let found = format!("{} is there; it is not pinned", path.display());
                (Finding::ok(SUBJECT, found), Some(path.clone()))
            }
            Err(error) => {
                let cure = "let --model-file name a GGUF file that the server's user may read";
                (
                    Finding::fail(SUBJECT, format!("{}: {error}", path.display()), cure),
                    None,
                )
            }
        },
    }
}

fn pinned(store: &Store, name: &str, entry: &Entry) -> (Finding, Option<PathBuf>) {
    let path = store.path(name, entry);
    let fetch = || format!("llm-server models fetch {name}");
    let bytes = match path.metadata() {
        Ok(about) => about.len(),
        Err(error) => {
            let found = format!("no {}: {error}", path.display());
            return (Finding::fail(SUBJECT, found, fetch()), None);
        }
    };
    if bytes != entry.size {
        let found = format!(
            "{} has {bytes} bytes, the pinned file {}",
            path.display(),
            entry.size
        );
        return (Finding::fail(SUBJECT, found, fetch()), None);
    }
    let seen = match store.recalled(&path) {
        None if bytes > HASHED_AT_MOST => return unseen(&path, name, bytes),
        seen => seen,
    };
    match store.verified(name, entry) {
        Ok(_) => {
            let how = if seen.is_some() {
                "was seen to be"
            } else {
                "is"
            };
            let found = format!(
                "{name} is there, {}, and its digest {how} the pinned one",
                size(bytes)
            );
            (Finding::ok(SUBJECT, found), Some(path))
        }
        Err(error @ VerifyError::Read { .. }) => {
            let cure = "let the server's user read it";
            (Finding::fail(SUBJECT, error.to_string(), cure), None)
        }
        Err(error @ (VerifyError::Mismatch { .. } | VerifyError::Missing { .. })) => {
            (Finding::fail(SUBJECT, error.to_string(), fetch()), None)
        }
    }
}

/// Its header must do for now.
fn unseen(path: &Path, name: &str, bytes: u64) -> (Finding, Option<PathBuf>) {
    if let Err(error) = gguf::check(path) {
        let found = format!("{}: {error}", path.display());
        return (
            Finding::fail(SUBJECT, found, format!("llm-server models fetch {name}")),
            None,
        );
    }
    let found = format!(
        "{name} is there and has the pinned size, but its {} were not hashed yet",
        size(bytes)
    );
    let cure = format!("llm-server models verify {name}, or let the next start do it");
    (Finding::warn(SUBJECT, found, cure), Some(path.to_owned()))
}

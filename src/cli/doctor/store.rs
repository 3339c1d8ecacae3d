//! The folder of models: whether it can be written, and whether what is missing fits into it.

use std::{fs, path::Path};

use rustix::fs::statvfs;

use super::Finding;
use crate::{lock::Store, report::size, serve::Origin};

const SUBJECT: &str = "state folder";

/// `file`: the model, if it is there.
pub(super) fn finding(origin: &Origin, file: Option<&Path>) -> Finding {
    let store = match Store::from_environment() {
        Ok(store) => store,
        Err(none) => {
            let found = none.to_string();
            let cure = "set LLM_SERVER_MODELS; a service gets a folder with StateDirectory=";
            return match origin {
                Origin::File { .. } => Finding::warn(SUBJECT, found, cure),
                Origin::Pinned { .. } => Finding::fail(SUBJECT, found, cure),
            };
        }
    };
    let folder = store.folder();
    // What is not there yet is made in the nearest folder that is.
    let nearest = folder.ancestors().find(|at| fs::metadata(at).is_ok());
    let nearest = nearest.unwrap_or(folder);
    if let Err(error) = tempfile::tempfile_in(nearest) {
        return unwritable(origin, file, folder, &error.to_string());
    }
    let free = statvfs(nearest).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
    let missing = if file.is_some() { 0 } else { origin.size() };
    if free < missing {
        return Finding::fail(
            SUBJECT,
            format!(
                "{} has {} free, the model takes {}",
                folder.display(),
                size(free),
                size(missing)
            ),
            "make room, or set LLM_SERVER_MODELS to a folder on a larger disk",
        );
    }
    Finding::ok(
        SUBJECT,
        format!("{} can be written, {} free", folder.display(), size(free)),
    )
}

/// A store may be read-only, such as one in a package, if it has what is needed and knows its digest.
fn unwritable(origin: &Origin, file: Option<&Path>, folder: &Path, why: &str) -> Finding {
    let found = format!("{} cannot be written ({why})", folder.display());
    match (origin, file) {
        (Origin::File { .. }, _) | (_, Some(_)) => Finding::warn(
            SUBJECT,
            format!("{found}: the model's digest cannot be remembered there"),
            "let the server's user own the folder, or accept that each start may hash the model again",
        ),
        (Origin::Pinned { .. }, None) => Finding::fail(
            SUBJECT,
            format!("{found}, and the model is not there"),
            "let the server's user own the folder (a service: StateDirectory=), or set LLM_SERVER_MODELS",
        ),
    }
}

//! API keys: whether their files can be read, and by nobody else.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::Finding;
use crate::{config::AuthConfig, serve::files};

const SUBJECT: &str = "API keys";
/// Others read it, or anybody but the owner writes it.
const LOOSE: u32 = 0o026;

pub(super) fn finding(auth: &AuthConfig) -> Finding {
    let count = match files::keys(auth) {
        Ok(keys) => keys.len(),
        Err(failure) => {
            let cure = "let the server's user read it (chown, chmod 0400), or have systemd pass it: LoadCredential= and \
                        a path below $CREDENTIALS_DIRECTORY";
            return Finding::fail(SUBJECT, failure.to_string(), cure);
        }
    };
    let owned = auth.keys.iter().map(|owner| owner.file.as_path());
    let key_files: Vec<_> = auth
        .key_files
        .iter()
        .map(AsRef::as_ref)
        .chain(owned)
        .collect();
    if key_files.is_empty() {
        return Finding::ok(
            SUBJECT,
            "none asked for: whoever reaches the address is served",
        );
    }
    let loose: Vec<_> = key_files.iter().filter_map(|path| loose(path)).collect();
    if !loose.is_empty() {
        let cure = format!("chmod 0400 {}", paths(&key_files));
        return Finding::warn(
            SUBJECT,
            format!("others can get at {}", loose.join(", ")),
            cure,
        );
    }
    let keys = if count == 1 { "key" } else { "keys" };
    Finding::ok(SUBJECT, format!("{count} {keys} in {}", paths(&key_files)))
}

fn loose(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & LOOSE != 0).then(|| format!("{} (mode {mode:04o})", path.display()))
}

fn paths(files: &[&Path]) -> String {
    let paths: Vec<_> = files
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(" ")
}

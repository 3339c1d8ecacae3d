//! The small files that a configuration names: API keys, and a chat template.

use std::{fs, path::Path};

use super::Failure;
use crate::{
    api::{Key, Tape},
    config::{AuthConfig, Config},
};

/// The text of `model.chat_template`.
pub(crate) fn template(config: &Config) -> Result<Option<String>, Failure> {
    config
        .model
        .chat_template
        .as_ref()
        .map(|path| {
            fs::read_to_string(path).map_err(|source| Failure::File {
                field: "model.chat_template",
                path: path.clone(),
                source,
            })
        })
        .transpose()
}

/// The recording that `log.requests` names.
pub(super) fn tape(config: &Config) -> Result<Option<Tape>, Failure> {
    let path = config.log.requests.as_ref();
    path.map(|path| {
        Tape::open(path).map_err(|source| Failure::Place {
            field: "log.requests",
            path: path.clone(),
            source,
        })
    })
    .transpose()
}

/// The keys of `auth.key_files` and `auth.keys`.
pub(crate) fn keys(auth: &AuthConfig) -> Result<Vec<Key>, Failure> {
    let mut keys = Vec::new();
    for path in &auth.key_files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let owned = |secret: &str| Key::new(name.to_string(), secret, Vec::new(), 1);
        let secrets = secrets("auth.key_files", path)?;
        keys.extend(secrets.iter().map(|secret| owned(secret)));
    }
    for owner in &auth.keys {
        let routes = || owner.routes.clone();
        let owned = |secret: &str| Key::new(owner.name.clone(), secret, routes(), owner.share);
        let secrets = secrets("auth.keys", &owner.file)?;
        keys.extend(secrets.iter().map(|secret| owned(secret)));
    }
    Ok(keys)
}

/// One key a line; empty lines and lines that begin with `#` are not keys.
fn secrets(field: &'static str, path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::File {
        field,
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().map(str::trim);
    let secrets: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    // A file that was meant to lock the door and does not must not leave it open.
    if secrets.is_empty() {
        return Err(Failure::NoKeys {
            field,
            path: path.to_owned(),
        });
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_a_line_each_and_a_file_without_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "# for the team\nalpha\n\n  beta \n").unwrap();
        assert_eq!(secrets("x", &path).unwrap(), ["alpha", "beta"]);

        fs::write(&path, "# nobody yet\n").unwrap();
        let refused = secrets("auth.keys", &path).unwrap_err().to_string();
        assert!(refused.starts_with("auth.keys: "), "{refused}");
    }
}

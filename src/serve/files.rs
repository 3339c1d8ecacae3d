//! The small files that a configuration names: API keys, and a chat template.

use std::{fs, path::PathBuf};

use super::Failure;
use crate::{api::Tape, config::Config};

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
        Tape::open(path).map_err(|source| Failure::File {
            field: "log.requests",
            path: path.clone(),
            source,
        })
    })
    .transpose()
}

/// One key a line; empty lines and lines that begin with `#` are not keys.
pub(super) fn keys(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(|source| Failure::File {
            field: "auth.key_files",
            path: path.clone(),
            source,
        })?;
        let before = keys.len();
        let lines = text.lines().map(str::trim);
        keys.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
        // A file that was meant to lock the door and does not must not leave it open.
        if keys.len() == before {
            return Err(Failure::NoKeys(path.clone()));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_a_line_each_and_a_file_without_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, "# for the team\nalpha\n\n  beta \n").unwrap();
        assert_eq!(
            keys(std::slice::from_ref(&path)).unwrap(),
            ["alpha", "beta"]
        );

        fs::write(&path, "# nobody yet\n").unwrap();
        assert!(matches!(keys(&[path]), Err(Failure::NoKeys(_))));
        assert_eq!(keys(&[]).unwrap(), Vec::<String>::new());
    }
}

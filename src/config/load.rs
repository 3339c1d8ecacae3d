//! From a file, overrides and the names of the lock to a checked [`Config`].

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Config,
    nickel::{Failure, Language, Nickel},
};

pub(super) const SCHEMA: &str = include_str!("schema.ncl");
const MERGE: &str = include_str!("merge.ncl");
const BUILT_IN: &str = include_str!("../../config.ncl");

/// Deeper nesting could overflow the interpreter's stack. JSON is bounded by its own parser.
const MOST_NESTED: usize = 100;

/// Larger files are not configurations.
const MOST_BYTES: u64 = 1 << 20;

/// The text of a configuration.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    text: String,
    language: Language,
    folder: PathBuf,
}

/// What the lock says about a model that may be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    pub name: String,
    /// Tokens; unknown: any `engine.context` is accepted.
    pub trained_context: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {why}")]
    Read { path: String, why: io::Error },
    #[error("the configuration {path} is {what}; expected a Nickel (.ncl) or JSON (.json) file")]
    NotConfiguration { path: String, what: &'static str },
    #[error("--set {text:?}: expected 'path = value' in Nickel, such as 'engine.parallel = 8'")]
    NotOverride { text: String },
    #[error("the configuration {path} is not JSON: {why}")]
    NotJson {
        path: String,
        why: serde_json::Error,
    },
    #[error("{path}: brackets nest deeper than {MOST_NESTED} levels")]
    TooDeep { path: String },
    /// Nickel's drawing of what is wrong, and where.
    #[error("{}", plain.trim_end())]
    Refused { plain: String, coloured: String },
    /// The schema lets something pass that [`Config`] cannot hold: a defect of this program.
    #[error("{path}: {why}")]
    Unreadable {
        path: String,
        why: serde_json::Error,
    },
}

impl ConfigError {
    /// The message with colours for a terminal.
    pub fn coloured(&self) -> String {
        match self {
            Self::Refused { coloured, .. } => coloured.trim_end().to_owned(),
            other => other.to_string(),
        }
    }
}

impl From<Failure> for ConfigError {
    fn from(failure: Failure) -> Self {
        Self::Refused {
            plain: failure.plain,
            coloured: failure.coloured,
        }
    }
}

impl Source {
    /// Reads a file: JSON if its name ends in `.json`, else Nickel.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let not_configuration = |what| ConfigError::NotConfiguration {
            path: shown.clone(),
            what,
        };
        let bytes = bytes_of(path).map_err(|why| ConfigError::Read {
            path: shown.clone(),
            why,
        })?;
        let bytes = bytes.map_err(not_configuration)?;
        let text = String::from_utf8(bytes).map_err(|_| not_configuration("not UTF-8 text"))?;
        // Some editors begin a file with a mark of its byte order, which neither parser knows.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        if text.trim().is_empty() {
            return Err(not_configuration("empty"));
        }
        // Nickel finds texts by their name, and a name is text.
        let name = path
            .to_str()
            .ok_or_else(|| not_configuration("in a path that is not UTF-8"))?;
        Ok(Self::new(name, text))
    }

    /// A text that stands for the file `name`, which need not exist.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let name = name.into();
        let path = Path::new(&name);
        let json = path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("json"));
        Self {
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            language: if json {
                Language::Json
            } else {
                Language::Nickel
            },
            text: text.into(),
            name,
        }
    }

    /// The repository's own `config.ncl`, used when there is no file.
    pub fn built_in() -> Self {
        Self::new("config.ncl (built in)", BUILT_IN)
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its relative paths begin; empty: where the process is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The bytes of a small regular file. Anything else might block, or never end.
fn bytes_of(path: &Path) -> io::Result<Result<Vec<u8>, &'static str>> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Ok(Err("a directory"));
    }
    if !about.is_file() {
        return Ok(Err("not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Ok(Err("larger than 1 MiB"));
    }
    Ok(Ok(bytes))
}

/// Evaluates `source` under the schema. `overrides` are Nickel texts `path = value`, merged over it with
/// force, the last one first. `models` are the names that `model.name` may have.
/// Relative paths of files come back joined to the folder of `source`.
pub fn load(
    source: &Source,
    overrides: &[String],
    models: &[KnownModel],
) -> Result<Config, ConfigError> {
    bounded(source)?;
    let mut nickel = Nickel::new();
    let schema = nickel.add("<built-in>schema.ncl", Language::Nickel, SCHEMA);
    let merge = nickel.add("<built-in>merge.ncl", Language::Nickel, MERGE);
    let known: Vec<_> = models
        .iter()
        .map(|known| json!({"name": known.name, "trained_context": known.trained_context}))
        .collect();
    let models = nickel.add("<models.lock>", Language::Json, &json!(known).to_string());
    let file = nickel.add(&source.name, source.language, &source.text);
    let mut over = String::new();
    for (at, text) in overrides.iter().enumerate() {
        if !text.contains('=') {
            return Err(ConfigError::NotOverride { text: text.clone() });
        }
        not_deep(text).map_err(|()| ConfigError::TooDeep {
            path: format!("--set {text:.20}…"),
        })?;
        // The brace stands on a line of its own because the text may end in a comment.
        let record = nickel.add(
            &format!("--set ({})", at + 1),
            Language::Nickel,
            &format!("{{ {text}\n}}"),
        );
        over.push_str(&record);
        over.push(',');
    }
    let json = nickel.json(&format!(
        "let schema = {schema} in {merge} schema.Shape [{over}] {file} | schema.Config {models}"
    ))?;
    let mut config: Config =
        serde_json::from_str(&json).map_err(|why| ConfigError::Unreadable {
            path: source.name.clone(),
            why,
        })?;
    resolve(&mut config, &source.folder);
    Ok(config)
}

/// Refuses what the interpreter could not survive: endless nesting, and numbers of a billion digits.
fn bounded(source: &Source) -> Result<(), ConfigError> {
    let path = || source.name.clone();
    match source.language {
        Language::Json => serde_json::from_str::<Value>(&source.text)
            .map(drop)
            .map_err(|why| ConfigError::NotJson { path: path(), why }),
        Language::Nickel => {
            not_deep(&source.text).map_err(|()| ConfigError::TooDeep { path: path() })
        }
    }
}

/// Counts brackets, also those in strings: near enough for a bound that no configuration comes close to.
fn not_deep(text: &str) -> Result<(), ()> {
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_NESTED {
            return Err(());
        }
    }
    Ok(())
}

fn resolve(config: &mut Config, folder: &Path) {
    let paths = config
        .auth
        .key_files
        .iter_mut()
        .chain(config.auth.keys.iter_mut().map(|key| &mut key.file))
        .chain(&mut config.model.chat_template)
        .chain(&mut config.cache.folder)
        .chain(&mut config.cache.slots)
        .chain(&mut config.log.requests);
    for path in paths {
        *path = folder.join(&*path);
    }
}

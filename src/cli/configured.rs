//! Options shared by the commands that need a configuration, and where its parts are looked for.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{self, Config, ConfigError, KnownModel, Source},
    lock::{Lock, LockError},
};

/// A wrong command line or configuration ends the process with this status.
const WRONG: u8 = 2;

#[derive(Debug, Default, Clone, clap::Args)]
pub struct Configured {
    /// Configuration, Nickel or JSON. Without one: config.ncl in this folder, else the built-in one.
    #[arg(value_name = "FILE", env = "LLM_SERVER_CONFIG")]
    pub file: Option<PathBuf>,

    /// Override a setting with Nickel text, such as --set 'engine.parallel = 8' (may be repeated).
    ///
    /// Strings keep their quotes: --set 'listen = "127.0.0.1:9000"'. Several at once:
    /// --set 'engine = {context = 4096, parallel = 4}'. Of two for the same setting the later one counts.
    #[arg(long, value_name = "PATH = VALUE")]
    pub set: Vec<String>,

    /// Lock file. Without one: models.lock beside the configuration, then in this folder, else the built-in one.
    #[arg(long, value_name = "PATH")]
    pub lock: Option<PathBuf>,

    /// Serve this GGUF file, which need not be in the lock, under its own name.
    #[arg(long, value_name = "PATH")]
    pub model_file: Option<PathBuf>,
}

/// A checked configuration with the lock it was checked against.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub lock: Lock,
    /// Weights outside the lock.
    pub model_file: Option<PathBuf>,
    /// What the configuration's source is called.
    pub source: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfiguredError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("--model-file {0:?}: the file's name without its ending is no name for a model")]
    ModelFile(PathBuf),
}

impl Configured {
    pub fn load(&self) -> Result<Loaded, ConfiguredError> {
        let source = self.source()?;
        let lock = Lock::find(self.lock.as_deref(), Some(source.folder()))?;
        let mut overrides = self.set.clone();
        let known = match &self.model_file {
            Some(file) => {
                let name = stem(file).ok_or_else(|| ConfiguredError::ModelFile(file.clone()))?;
                overrides.push(format!("model.name = {}", config::nickel_string(name)));
                vec![KnownModel {
                    name: name.to_owned(),
                    trained_context: None,
                }]
            }
            None => lock.names().filter_map(|name| known(&lock, name)).collect(),
        };
        Ok(Loaded {
            config: config::load(&source, &overrides, &known)?,
            lock,
            model_file: self.model_file.clone(),
            source: source.name().to_owned(),
        })
    }

    fn source(&self) -> Result<Source, ConfigError> {
        let here = Path::new("config.ncl");
        match &self.file {
            Some(file) => Source::read(file),
            None if here.exists() => Source::read(here),
            None => Ok(Source::built_in()),
        }
    }
}

fn known(lock: &Lock, name: &str) -> Option<KnownModel> {
    let entry = lock.get(name)?;
    Some(KnownModel {
        name: name.to_owned(),
        trained_context: entry.trained_context,
    })
}

fn stem(file: &Path) -> Option<&str> {
    let stem = file.file_stem()?.to_str()?;
    (!stem.trim().is_empty()).then_some(stem)
}

impl ConfiguredError {
    /// Prints the error on stderr, coloured on a terminal, and returns the status to exit with.
    pub fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        let plain = !stderr.is_terminal()
            || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let text = match self {
            Self::Config(error @ ConfigError::Refused { .. }) if !plain => error.coloured(),
            Self::Config(error @ ConfigError::Refused { .. }) => error.to_string(),
            other => format!("error: {other}"),
        };
        // Nothing is left to be said when stderr is closed.
        let _ = writeln!(stderr, "{text}");
        WRONG.into()
    }
}

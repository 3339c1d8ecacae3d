//! Options shared by the commands that need a configuration, and where its parts are looked for.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{self, AdapterConfig, Config, ConfigError, KnownModel, Source},
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

    /// See images through this projector, which need not be in the lock (see model.projector).
    #[arg(long, value_name = "PATH")]
    pub projector_file: Option<PathBuf>,

    /// Offer this LoRA adapter, which need not be in the lock (may be repeated; see model.adapters).
    ///
    /// Its name is the file's without the ending. An entry of model.adapters with that name says its scale and alias.
    #[arg(long = "adapter-file", value_name = "PATH")]
    pub adapter_files: Vec<PathBuf>,

    /// Guess with this smaller model, which need not be in the lock (see engine.speculate.draft).
    #[arg(long, value_name = "PATH")]
    pub draft_file: Option<PathBuf>,
}

/// A checked configuration with the lock it was checked against.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub lock: Lock,
    /// Weights outside the lock.
    pub model_file: Option<PathBuf>,
    /// A projector outside the lock.
    pub projector_file: Option<PathBuf>,
    /// Adapters outside the lock, by their names.
    pub adapter_files: BTreeMap<String, PathBuf>,
    /// A model that guesses, outside the lock.
    pub draft_file: Option<PathBuf>,
    /// What the configuration's source is called.
    pub source: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfiguredError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{option} {path:?}: the file's name without its ending is no name for a model")]
    FileName { option: &'static str, path: PathBuf },
}

impl Configured {
    pub fn load(&self) -> Result<Loaded, ConfiguredError> {
        let source = self.source()?;
        let lock = Lock::find(self.lock.as_deref(), Some(source.folder()))?;
        let mut overrides = self.set.clone();
        let mut models: Vec<_> = lock.names().filter_map(|name| known(&lock, name)).collect();
        let mut outside = |option, path: &Path| {
            let name = stem(path).ok_or_else(|| ConfiguredError::FileName {
                option,
                path: path.to_owned(),
            })?;
            // Of a file outside the lock the lock knows nothing, whatever it is called.
            models.retain(|known| known.name != name);
            models.push(KnownModel {
                name: name.to_owned(),
                trained_context: None,
            });
            Ok::<_, ConfiguredError>(name.to_owned())
        };
        let files = [
            ("--model-file", "model.name", &self.model_file),
            ("--projector-file", "model.projector", &self.projector_file),
            ("--draft-file", "engine.speculate.draft", &self.draft_file),
        ];
        for (option, field, file) in files {
            let Some(path) = file else { continue };
            let name = outside(option, path)?;
            overrides.push(format!("{field} = {}", config::nickel_string(&name)));
        }
        let mut adapter_files = BTreeMap::new();
        for path in &self.adapter_files {
            adapter_files.insert(outside("--adapter-file", path)?, path.clone());
        }
        let mut config = config::load(&source, &overrides, &models)?;
        offer(&mut config, &adapter_files);
        Ok(Loaded {
            config,
            lock,
            model_file: self.model_file.clone(),
            projector_file: self.projector_file.clone(),
            draft_file: self.draft_file.clone(),
            adapter_files,
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

/// Adds the adapters that the configuration does not name itself.
fn offer(config: &mut Config, adapter_files: &BTreeMap<String, PathBuf>) {
    let adapters = &mut config.model.adapters;
    for name in adapter_files.keys() {
        if !adapters.iter().any(|adapter| adapter.name == *name) {
            adapters.push(AdapterConfig {
                name: name.clone(),
                scale: 1.0,
                alias: None,
            });
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

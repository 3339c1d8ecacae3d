//! The command line: `serve · check · plan · doctor · schema · models · generate · rpc-worker · bench · replay · version · completions · man`.

pub mod bench;
pub mod check;
pub mod completions;
pub mod configured;
pub mod doctor;
pub mod generate;
pub mod man;
pub mod models;
pub mod plan;
pub mod replay;
pub mod rpc_worker;
pub mod schema;
pub mod serve;
mod svg;
pub mod trial_projector;
pub mod version;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{AdapterConfig, Config},
    engine::{fit::FitError, llama::LoadError, rpc::Unusable, threads},
    fetch::FetchError,
    lock::VerifyError,
    serve::{Absent, Failure, LoadFailure, LocateError, Origin, Origins},
};
use configured::Loaded;

/// How the process ends. The table in `--help` says the same; a test holds both together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    BadModel = 65,
    NoModel = 66,
    Unavailable = 69,
    EngineDied = 70,
    CannotWork = 78,
}

impl From<Exit> for i32 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
    0  success; after SIGTERM or SIGINT: drained and stopped
    1  failure that none of the others names, such as a port in use
    2  the command line or the configuration is wrong
   65  the model file is corrupt, or is not the one that models.lock names
   66  the model file is missing: `llm-server models fetch NAME` gets it
   69  a worker of engine.rpc cannot be used now; under systemd it is tried again
   70  the engine died; under systemd the next process takes over its socket
   78  the configuration is well-formed but cannot work with this model or machine
  130  ended by a second SIGINT, without waiting for anything
  143  ended by a second SIGTERM, without waiting for anything";

/// Serves one pinned language model from one declarative file over an OpenAI-compatible HTTP API.
#[derive(Debug, Parser)]
#[command(name = "llm-server", version, after_help = EXIT_CODES, propagate_version = true)]
#[command(after_long_help = format!("\
Examples:
  llm-server serve --fetch                     serve config.ncl; get the model first if it is missing
  llm-server check --set 'engine.parallel = 8' what would this configuration do?
  llm-server plan --svg plan.svg               what would lie on which device?
  llm-server generate 'Name three rivers.'     one answer on the terminal, no server
  llm-server models list                       the models that models.lock pins

{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, and it is made once"
)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Plan(plan::Args),
    Doctor(doctor::Args),
    Schema(schema::Args),
    Models(models::Args),
    Generate(generate::Args),
    RpcWorker(rpc_worker::Args),
    Bench(bench::Args),
    Replay(replay::Args),
    Version(version::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    TrialProjector(trial_projector::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Serve(_) | Command::Generate(_) | Command::RpcWorker(_) = command {
        threads::spin(None);
    }
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::RpcWorker(args) => rpc_worker::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::TrialProjector(args) => trial_projector::run(&args),
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Listen(_)
            | Failure::System(_)
            | Failure::Load(LoadFailure::Engine(LoadError::Cancelled)) => Self::Failure,
            Failure::File { .. }
            | Failure::Place { .. }
            | Failure::NoFolder
            | Failure::NoKeys { .. }
            | Failure::Defaults(_) => Self::Usage,
            Failure::Locate(error) => error.into(),
            Failure::Load(
                LoadFailure::Engine(LoadError::File { .. })
                | LoadFailure::Fit(FitError::Load(LoadError::File { .. })),
            ) => Self::BadModel,
            Failure::Load(LoadFailure::Fit(FitError::Worker(unusable))) => unusable.into(),
            Failure::Load(
                LoadFailure::Engine(
                    LoadError::Refused { .. }
                    | LoadError::Context(_)
                    | LoadError::WarmUp(_)
                    | LoadError::Backend(_),
                )
                | LoadFailure::Fit(_)
                | LoadFailure::Chat(_),
            ) => Self::CannotWork,
            Failure::EngineDied | Failure::EngineStuck => Self::EngineDied,
        }
    }
}

impl From<&Unusable> for Exit {
    fn from(unusable: &Unusable) -> Self {
        match unusable {
            Unusable::NoPlugin => Self::CannotWork,
            // What another machine does may be different soon.
            Unusable::Unknown { .. }
            | Unusable::Unreachable { .. }
            | Unusable::Silent { .. }
            | Unusable::Stranger { .. }
            | Unusable::OtherVersion { .. }
            | Unusable::Refused { .. } => Self::Unavailable,
        }
    }
}

impl From<&LocateError> for Exit {
    fn from(error: &LocateError) -> Self {
        match error {
            LocateError::Verify(VerifyError::Mismatch { .. })
            | LocateError::Fetch(FetchError::Mismatch { .. }) => Self::BadModel,
            LocateError::NoStore(_) | LocateError::Fetch(_) => Self::Failure,
            LocateError::Verify(VerifyError::Missing { .. } | VerifyError::Read { .. })
            | LocateError::Read { .. } => Self::NoModel,
        }
    }
}

/// `; models.lock has smaller ones: …` when a model does not fit: other quantizations of it first.
pub(crate) fn smaller(error: &FitError, loaded: &Loaded) -> Option<String> {
    const NAMED: usize = 3;
    let FitError::Shortage { room, .. } = error else {
        return None;
    };
    let names: Vec<_> = loaded
        .lock
        .smaller(&loaded.config.model.name, *room)
        .into_iter()
        .take(NAMED)
        .map(|(name, entry)| format!("{name} ({})", crate::report::size(entry.size)))
        .collect();
    (!names.is_empty()).then(|| format!("; models.lock has smaller ones: {}", names.join(", ")))
}

/// All files that a checked configuration means.
pub(crate) fn origins(loaded: &Loaded, absent: Absent) -> Origins {
    let Config { model, engine, .. } = &loaded.config;
    let beside = |name: Option<&String>, file: Option<&PathBuf>| {
        Some(find(loaded, name?, file.map(PathBuf::as_path), absent))
    };
    Origins {
        model: origin(loaded, absent),
        projector: beside(model.projector.as_ref(), loaded.projector_file.as_ref()),
        draft: beside(engine.speculate.draft.as_ref(), loaded.draft_file.as_ref()),
        adapters: adapters(loaded, absent),
    }
}

/// The weights that a checked configuration means.
pub(crate) fn origin(loaded: &Loaded, absent: Absent) -> Origin {
    let name = &loaded.config.model.name;
    find(loaded, name, loaded.model_file.as_deref(), absent)
}

fn find(loaded: &Loaded, name: &str, file: Option<&Path>, absent: Absent) -> Origin {
    let name = name.to_owned();
    match (file, loaded.lock.get(&name)) {
        (Some(path), _) => Origin::File {
            name,
            path: path.to_owned(),
        },
        (None, Some(entry)) => Origin::Pinned {
            name,
            entry: Box::new(entry.clone()),
            absent,
        },
        (None, None) => unreachable!("the configuration was checked against the lock"),
    }
}

/// The adapters that a checked configuration names, in its order.
pub(crate) fn adapters(loaded: &Loaded, absent: Absent) -> Vec<Origin> {
    let adapters = loaded.config.model.adapters.iter();
    let origin = |adapter: &AdapterConfig| {
        let file = loaded.adapter_files.get(&adapter.name);
        find(loaded, &adapter.name, file.map(PathBuf::as_path), absent)
    };
    adapters.map(origin).collect()
}

/// Prints what a command answers. A reader that went away has read enough; a full disk has not.
pub(crate) fn say(answer: &[u8]) -> Exit {
    let mut out = io::stdout();
    match out.write_all(answer).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output: {error}");
            Exit::Failure
        }
        _ => Exit::Success,
    }
}

/// Prints an error with its causes, the way every command does.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut said = error.to_string();
    eprintln!("error: {said}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let why = deeper.to_string();
        // Some errors say their cause in their own sentence.
        if !said.ends_with(&why) {
            eprintln!("  because: {why}");
        }
        said = why;
        cause = deeper.source();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help_text() {
        use Exit::{BadModel, CannotWork, EngineDied, Failure, NoModel, Success, Usage};
        let help = Cli::command().render_help().to_string();
        for exit in [
            Success, Failure, Usage, BadModel, NoModel, EngineDied, CannotWork,
        ] {
            let line = format!("{:>5}  ", i32::from(exit));
            assert!(
                help.lines().any(|it| it.starts_with(&line)),
                "{exit:?} is not in\n{help}"
            );
        }
    }
}

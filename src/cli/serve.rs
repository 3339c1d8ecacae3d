//! `llm-server serve`: the server itself, until a signal stops it.

use std::process::ExitCode;

use signal_hook::low_level;

use super::{Exit, complain, configured::Configured};
use crate::{
    engine::threads,
    log,
    serve::{self, Absent, Failure, LoadFailure},
};

/// Loads the configured model and serves it until SIGTERM or SIGINT.
///
/// The address answers at once (503 while the model loads); `/health` turns 200 when the model has
/// decoded. On SIGTERM or SIGINT new requests get 503, running ones finish until `limits.drain`.
/// A second signal ends the process at once. Under systemd, `Type=notify`, `WatchdogSec=` and the sockets
/// of a socket unit work as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server serve --fetch
  llm-server serve site.ncl --set 'listen = \"unix:/run/llm-server/api.sock\"'
  llm-server serve --set 'engine = {context = 8192, parallel = 2}'
  RUST_LOG=info,llm_server=debug,llama=info llm-server serve")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,
    /// Download the model first if it is missing, instead of ending with exit code 66.
    #[arg(long)]
    fetch: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let absent = if args.fetch {
        Absent::Fetch
    } else {
        Absent::Refuse
    };
    let loaded = match args.configured.load() {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    if let Some(poll) = loaded.config.engine.poll {
        threads::spin(Some(poll));
    }
    if let Err(error) = log::start(&loaded.config.log.level) {
        complain(&error);
        return Exit::Usage.into();
    }
    let origins = super::origins(&loaded, absent);
    let configured = args.configured.clone();
    let reread = move || {
        let again = configured.load().map_err(|error| error.to_string())?;
        Ok(again.config)
    };
    let exit = match serve::run(loaded.config.clone(), origins, reread) {
        Ok(()) => Exit::Success,
        Err(failure) => {
            // The journal keeps what is logged; whoever typed the command reads stderr.
            let smaller = match &failure {
                Failure::Load(LoadFailure::Fit(error)) => super::smaller(error, &loaded),
                _ => None,
            };
            tracing::error!("{failure}{}", smaller.unwrap_or_default());
            Exit::from(&failure)
        }
    };
    // A thread of the engine may still run, and exit hooks of its libraries would pull the ground from
    // under it: a clean stop must not end in a crash.
    low_level::exit(exit.into())
}

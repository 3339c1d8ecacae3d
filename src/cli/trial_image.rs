//! `llm-server trial-image`: what the server starts to find out whether a projector can be trusted with its process.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use signal_hook::low_level;

use super::Exit;
use crate::{
    engine::{
        llama::{self, LoadError, Projection, Projector, Weights},
        vision::Unseen,
    },
    serve::vision::{PLAIN, pattern},
};

/// Looks at a few pictures and ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    projector: PathBuf,
    #[arg(long)]
    device: Option<String>,
    #[arg(long)]
    threads: u32,
    #[arg(long)]
    ubatch: u32,
}

/// A pixel, and a strip: shapes that divide badly.
const ODD: [(u32, u32); 2] = [(1, 1), (13, 700)];

pub fn run(args: &Args) -> ExitCode {
    let exit = match look(args) {
        Ok(()) => Exit::Success,
        Err(error) => {
            // One line: the last one is what is passed on.
            eprintln!("{}", error.trim().replace('\n', "; "));
            Exit::BadModel
        }
    };
    // No exit hooks under threads of the engine.
    low_level::exit(exit.into())
}

fn look(args: &Args) -> Result<(), String> {
    let said = |error: LoadError| match error {
        LoadError::File { why, .. } => why,
        other => other.to_string(),
    };
    llama::init(|why| {
        eprintln!("{why}");
        low_level::exit(Exit::EngineDied.into())
    })
    .map_err(said)?;
    let weights = Weights::outline(&args.model).map_err(said)?;
    let place = Projection {
        file: args.projector.clone(),
        device: args.device.clone(),
        threads: args.threads,
        ubatch: args.ubatch,
    };
    let mut projector = Projector::open(Arc::new(weights), place).map_err(said)?;
    let plain = projector.see(&pattern(PLAIN, PLAIN));
    plain.map_err(|unseen| unseen.to_string())?;
    for (width, height) in ODD {
        // A picture may be refused, but not half-computed.
        if let Err(Unseen::Failed(why)) = projector.see(&pattern(width, height)) {
            return Err(format!("a picture of {width} × {height} pixels: {why}"));
        }
    }
    Ok(())
}

//! `llm-server trial-projector`: what the server starts to find out whether a projector can be trusted with its process.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use signal_hook::low_level;

use super::Exit;
use crate::{
    engine::{
        llama::{self, LoadError, Projection, Projector, Weights},
        senses::{Medium, SHORTEST_SOUND, Unperceived},
    },
    serve::patterns::{self, PLAIN},
};

/// Looks at a few pictures, listens to a few sounds, and ends.
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
const PLAIN_SOUND: Duration = Duration::from_secs(1);
/// The shortest, and one that is longer than most encoders take at once.
const ODD_SOUNDS: [Duration; 2] = [SHORTEST_SOUND, Duration::from_millis(31_007)];

pub fn run(args: &Args) -> ExitCode {
    let exit = match attempt(args) {
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

fn attempt(args: &Args) -> Result<(), String> {
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
    let faculties = projector.faculties();
    if faculties.sees {
        whole(&mut projector, &patterns::picture(PLAIN, PLAIN))?;
        for (width, height) in ODD {
            odd(&mut projector, &patterns::picture(width, height))?;
        }
    }
    if let Some(rate) = faculties.hears {
        whole(&mut projector, &patterns::sound(rate, PLAIN_SOUND))?;
        for length in ODD_SOUNDS {
            odd(&mut projector, &patterns::sound(rate, length))?;
        }
    }
    Ok(())
}

fn whole(projector: &mut Projector, medium: &Medium) -> Result<(), String> {
    let perceived = projector.perceive(medium);
    perceived.map(drop).map_err(|why| why.to_string())
}

/// What is odd may be refused, but not half-computed.
fn odd(projector: &mut Projector, medium: &Medium) -> Result<(), String> {
    match projector.perceive(medium) {
        Err(Unperceived::Failed(why)) => Err(format!("{medium:?}: {why}")),
        _ => Ok(()),
    }
}

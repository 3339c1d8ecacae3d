//! `llm-server plan`: what would lie where, computed from the file's header before a byte is loaded.

mod limits;
mod picture;
mod svg;
mod table;
pub(super) mod terminal;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use signal_hook::low_level;

use self::terminal::Terminal;
use super::{
    Exit, complain,
    configured::{Configured, Loaded},
};
use crate::{
    config::Config,
    engine::{
        fit::{self, Files, Plan},
        llama,
    },
    log, report,
    serve::{Absent, LocateError, Origin, trial},
};

/// Computes what would lie on which device and shows it. Only the header of the model's file is read.
///
/// Exit status 0: it fits. 78: it does not; the message names what is missing on which device, and the
/// nearest settings that fit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server plan --set 'engine.context = 65536'
  llm-server plan --model-file model.gguf --svg plan.svg
  llm-server plan --json | jq '.devices[] | {name, used, left}'
  llm-server plan --memory --set 'cache.ram = 2048'")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,
    /// One JSON object, as `plan` in the answer of `GET /props`; sizes are bytes.
    #[arg(long)]
    json: bool,
    /// Only how much memory of the machine a service manager may hold the server to: `MemoryMax=` and `MemoryLow=`, in bytes.
    ///
    /// The first is what the plan puts there and everything that the configuration bounds: kept prompts (cache.ram has to
    /// be a number), kept answers, images, and the bodies of requests that run or wait. The second is the plan alone.
    #[arg(long, conflicts_with = "json")]
    memory: bool,
    /// Draw the picture into this file as well.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error(transparent)]
    Engine(#[from] llama::LoadError),
    #[error(transparent)]
    Fit(#[from] fit::FitError),
    #[error(transparent)]
    Unbounded(#[from] limits::Unbounded),
    #[error("--svg: cannot write {}: {source}", path.display())]
    Svg { path: PathBuf, source: io::Error },
    #[error("the plan cannot be written: {0}")]
    Output(io::Error),
}

impl From<&PlanError> for Exit {
    fn from(error: &PlanError) -> Self {
        match error {
            PlanError::Svg { .. } | PlanError::Output(_) => Self::Failure,
            PlanError::Unbounded(_) => Self::Usage,
            PlanError::Locate(error) => error.into(),
            PlanError::Fit(fit::FitError::Load(llama::LoadError::File { .. })) => Self::BadModel,
            PlanError::Fit(fit::FitError::Worker(unusable)) => unusable.into(),
            PlanError::Engine(_) | PlanError::Fit(_) => Self::CannotWork,
        }
    }
}

pub fn run(args: &Args) -> ExitCode {
    let loaded = match args.configured.load() {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    // Only what is wrong: stdout belongs to the plan.
    let _ = log::start("error");
    match plan(&loaded).and_then(|plan| show(&plan, &loaded.config, args)) {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            complain(&error);
            if let PlanError::Fit(error) = &error
                && let Some(smaller) = super::smaller(error, &loaded)
            {
                eprintln!("  {}", smaller.trim_start_matches("; "));
            }
            Exit::from(&error).into()
        }
    }
}

fn plan(loaded: &Loaded) -> Result<Plan, PlanError> {
    let origins = super::origins(loaded, Absent::Refuse);
    let model = present(&origins.model)?;
    let projector = origins.projector.as_ref().map(present).transpose()?;
    let adapters = origins.adapters.iter().map(present);
    let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
    let draft = origins.draft.as_ref().map(present).transpose()?;
    llama::init(|why| {
        eprintln!("error: the engine died: {why}");
        low_level::exit(Exit::EngineDied.into())
    })?;
    let files = Files {
        model: &model,
        projector: projector.as_deref(),
        adapters: &adapters,
        draft: draft.as_deref(),
    };
    trial::run(files, &loaded.config.engine)?;
    Ok(fit::fit_all(
        loaded.config.model.kind,
        files,
        &loaded.config.engine,
    )?)
}

/// Without the proof that it is the pinned one: hashing would read all of it.
fn present(origin: &Origin) -> Result<PathBuf, LocateError> {
    match origin.present()? {
        Some(file) => Ok(file),
        None => Ok(origin.locate(|_| ())?.file), // says what is missing
    }
}

fn show(plan: &Plan, config: &Config, args: &Args) -> Result<(), PlanError> {
    if let Some(path) = &args.svg {
        fs::write(path, svg::svg(plan)).map_err(|source| PlanError::Svg {
            path: path.clone(),
            source,
        })?;
    }
    let text = if args.json {
        format!("{:#}\n", report::json(plan))
    } else if args.memory {
        limits::limits(plan, config)?.to_string()
    } else {
        text(plan, Terminal::of_stdout())
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(PlanError::Output(error)),
        _ => Ok(()),
    }
}

/// Head, table and picture.
pub(crate) fn text(plan: &Plan, terminal: Terminal) -> String {
    format!(
        "{}\n{}\n{}",
        table::head(plan, terminal),
        table::table(plan, terminal),
        picture::picture(plan, terminal)
    )
}

#[cfg(test)]
mod tests {
    use super::{terminal::Colour, *};
    use crate::report::examples;

    const PLAIN: Terminal = Terminal {
        columns: 80,
        colour: Colour::None,
    };

    #[test]
    fn a_laptop_without_a_gpu_is_shown_in_one_column() {
        insta::assert_snapshot!(text(&examples::laptop(), PLAIN));
    }

    #[test]
    fn a_mixture_of_experts_on_a_small_card_is_shown_with_its_experts_on_the_host() {
        insta::assert_snapshot!(text(&examples::experts_on_the_cpu(), PLAIN));
    }

    #[test]
    fn two_gpus_are_shown_each_with_its_layers_and_what_is_missing() {
        insta::assert_snapshot!(text(&examples::two_gpus(), PLAIN));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut many = examples::two_gpus();
        for at in 2..6 {
            let mut card = many.devices[0].clone();
            card.name = format!("CUDA{at}");
            many.devices.insert(at, card);
        }
        let plans = [
            examples::laptop(),
            examples::experts_on_the_cpu(),
            examples::by_hand(),
            many,
        ];
        for columns in [50, 80, 200] {
            let terminal = Terminal { columns, ..PLAIN };
            for line in plans.iter().flat_map(|plan| {
                text(plan, terminal)
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            }) {
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn colour_adds_nothing_but_escape_sequences() {
        let colour = Terminal {
            colour: Colour::Ansi,
            ..PLAIN
        };
        for plan in [examples::two_gpus(), examples::by_hand()] {
            let coloured = text(&plan, colour);
            assert!(coloured.contains("\u{1b}["));
            let bare =
                coloured
                    .split('\u{1b}')
                    .enumerate()
                    .fold(String::new(), |text, (at, part)| {
                        text + if at == 0 {
                            part
                        } else {
                            part.split_once('m').unwrap().1
                        }
                    });
            assert_eq!(bare, text(&plan, PLAIN));
        }
    }
}

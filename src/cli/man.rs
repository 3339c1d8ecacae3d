//! `llm-server man`: manual pages, from the same definition as `--help`.

use std::{path::PathBuf, process::ExitCode};

use clap::CommandFactory;

use super::{Cli, Exit};

/// Prints the manual page, or writes one for each command into a folder.
///
/// For example: `llm-server man | man -l -` or `llm-server man ~/.local/share/man/man1`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An existing folder; gets llm-server.1, llm-server-serve.1 and so on.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub fn run(args: &Args) -> ExitCode {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        if let Err(error) = clap_mangen::Man::new(Cli::command()).render(&mut page) {
            super::complain(&error);
            return Exit::Failure.into();
        }
        return super::say(&page).into();
    };
    match clap_mangen::generate_to(Cli::command(), folder) {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            Exit::Failure.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_a_manual_page_that_shows_its_options() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args {
            folder: Some(folder.path().into()),
        };
        run(&args);
        let commands = Cli::command();
        let shown = commands.get_subcommands().filter(|it| !it.is_hide_set());
        for command in shown {
            let page = folder
                .path()
                .join(format!("llm-server-{}.1", command.get_name()));
            let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{page:?}: {e}"));
            assert!(text.contains(".SH SYNOPSIS"), "{text}");
        }
        let serve = fs::read_to_string(folder.path().join("llm-server-serve.1")).unwrap();
        assert!(serve.contains("\\-\\-fetch"), "{serve}");
    }
}

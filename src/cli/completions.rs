//! `llm-server completions`: a script that teaches a shell the command line.

use std::{io, process::ExitCode};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Prints the completion script of a shell.
///
/// For example: `llm-server completions bash > ~/.local/share/bash-completion/completions/llm-server`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> ExitCode {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "llm-server",
        &mut io::stdout(),
    );
    Exit::Success.into()
}

//! `llm-server completions`: a script that teaches a shell the command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Prints the completion script of a shell.
///
/// For example: `llm-server completions bash > ~/.local/share/bash-completion/completions/llm-server`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> ExitCode {
    // Into memory first: clap_complete panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "llm-server", &mut script);
    super::say(&script).into()
}

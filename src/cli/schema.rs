//! `llm-server schema`: the option reference.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::configured::ConfiguredError;
use crate::config::{self, Entry};

/// Prints every option of the configuration: name, what is accepted, default, meaning.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON instead of a Markdown table.
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let entries = match config::reference() {
        Ok(entries) => entries,
        Err(error) => return ConfiguredError::from(error).report(),
    };
    // A reader that went away has read enough.
    let _ = match args.json {
        true => writeln!(io::stdout(), "{}", json(&entries)),
        false => write!(io::stdout(), "{}", config::markdown(&entries)),
    };
    ExitCode::SUCCESS
}

fn json(entries: &[Entry]) -> String {
    serde_json::to_string_pretty(entries).expect("plain text in plain structs")
}

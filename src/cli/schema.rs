//! `llm-server schema`: the option reference.

use std::process::ExitCode;

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
    let text = if args.json {
        json(&entries)
    } else {
        config::markdown(&entries)
    };
    super::say(text.as_bytes()).into()
}

fn json(entries: &[Entry]) -> String {
    let mut text = serde_json::to_string_pretty(entries).expect("plain text in plain structs");
    text.push('\n');
    text
}

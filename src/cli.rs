//! The command line: `serve · check · schema · models · generate · version · completions`.

use std::process::ExitCode;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}

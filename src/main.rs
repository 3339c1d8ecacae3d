//! Reads the command line, calls one function, prints its error.

use std::process::ExitCode;

fn main() -> ExitCode {
    llm_server::cli::main()
}

//! Python tests of the surface, run with pytest in a virtual environment of the project's own.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{path::Path, process::Command};

use crate::{
    packages::{self, Packages},
    server::{self, Server},
};

/// Runs one file of tests/ with pytest against a server; the output is this test's output.
pub(crate) fn run(file: &str, server: &Server, environment: &[(&str, &str)]) {
    run_with(Packages::Clients, file, server, environment);
}

pub(crate) fn run_with(
    packages: Packages,
    file: &str,
    server: &Server,
    environment: &[(&str, &str)],
) {
    let mut pytest = pytest(packages, file);
    pytest
        .env("BASE_URL", server.url("/v1"))
        .env("MODEL", server::MODEL)
        .envs(environment.iter().copied());
    finish(&mut pytest, server, file);
}

/// Whether one file of tests/ passes.
pub(crate) fn passes(file: &str, environment: &[(&str, &str)]) -> bool {
    let mut pytest = pytest(Packages::Clients, file);
    said(pytest.envs(environment.iter().copied())).is_some()
}

/// Runs a client of a server, and returns what it said.
pub(crate) fn finish(client: &mut Command, server: &Server, name: &str) -> String {
    said(client)
        .unwrap_or_else(|| panic!("{name} failed; the server logged:\n{}", server.read_log()))
}

fn pytest(packages: Packages, file: &str) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut python = Command::new(packages::python(packages));
    python
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests.join(file))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// What a program says if it succeeds. Its output is this test's output.
fn said(program: &mut Command) -> Option<String> {
    let output = program
        // A proxy has no business between two processes of one machine.
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(said)
}

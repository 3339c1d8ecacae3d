//! Python tests of the surface, run with pytest in a virtual environment of the project's own.

use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server::{self, Server};

/// Runs one file of tests/ with pytest against a server; the output is this test's output.
pub(crate) fn run(file: &str, server: &Server, environment: &[(&str, &str)]) {
    let url = server.url("/v1");
    let mut all = vec![("BASE_URL", url.as_str()), ("MODEL", server::MODEL)];
    all.extend(environment);
    assert!(
        passes(file, &all),
        "{file} failed; the server logged:\n{}",
        server.read_log()
    );
}

/// Whether one file of tests/ passes.
pub(crate) fn passes(file: &str, environment: &[(&str, &str)]) -> bool {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests.join(file))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // A proxy has no business between two processes of one machine.
        .env("NO_PROXY", "127.0.0.1")
        .envs(environment.iter().copied())
        .output()
        .expect("python can be started");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

/// Python of the virtual environment that `make test` made, or of one made here.
fn python() -> PathBuf {
    if let Some(venv) = env::var_os("LLM_SERVER_TEST_VENV") {
        return Path::new(&venv).join("bin/python");
    }
    let target = server::target();
    let venv = target.join("venv");
    // Tests run at once: the first makes it, the others wait.
    let lock = File::create(target.join("venv.lock")).expect("the target folder can be written");
    lock.lock().expect("the lock can be taken");
    let ready = venv.join("ready");
    if !ready.exists() {
        let requirements =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/requirements.txt");
        succeed(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        );
        succeed(
            Command::new(venv.join("bin/python"))
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                ])
                .arg(requirements),
        );
        File::create(ready).expect("the target folder can be written");
    }
    venv.join("bin/python")
}

fn succeed(command: &mut Command) {
    let status = command
        .status()
        .expect("python3 and its venv module are installed");
    assert!(status.success(), "{command:?} failed");
}

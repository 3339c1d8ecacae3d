//! OpenAI's own Python client against the real binary with the real small model.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use server::Server;

const SEQUENCES: u32 = 2;

#[test]
fn the_openai_client_finds_what_it_relies_on() {
    let server = Server::start(&[&format!(
        "engine = {{context = 1024, parallel = {SEQUENCES}}}"
    )]);
    run(
        "test_openai.py",
        &server,
        &[("SEQUENCES", &SEQUENCES.to_string())],
    );
}

#[test]
fn clients_get_answers_of_the_form_they_ask_for() {
    let server = Server::start(&["engine = {context = 1024, parallel = 4}"]);
    run("test_constrained.py", &server, &[]);
}

#[test]
fn the_openai_client_needs_the_key_that_is_configured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, "sk-for-this-test-only\n").expect("a file of keys");
    let setting = format!("auth.key_files = [\"{}\"]", keys.display());
    let server = Server::start(&["engine = {context = 512, parallel = 1}", &setting]);
    run("test_keys.py", &server, &[("KEY", "sk-for-this-test-only")]);
}

#[test]
fn the_openai_client_shows_images() {
    let projector = encoders::projector("line", 576);
    let server = Server::start_seeing(&projector, &["engine = {context = 1024, parallel = 2}"]);
    run("test_images.py", &server, &[]);
}

#[test]
fn the_openai_client_embeds() {
    let file = encoders::model("minilm");
    let name = file.file_stem().expect("a name").to_owned();
    let server = Server::start_file(&file, &["engine.context = 512"]);
    let name = name.to_str().expect("a plain name");
    run("test_embeddings.py", &server, &[("MODEL", name)]);
}

/// Runs one file of tests/clients with pytest; its output is this test's output.
fn run(file: &str, server: &Server, environment: &[(&str, &str)]) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let output = Command::new(python())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(clients.join(file))
        .env("BASE_URL", server.url("/v1"))
        .env("MODEL", server::MODEL)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // A proxy has no business between two processes of one machine.
        .env("NO_PROXY", "127.0.0.1")
        .envs(environment.iter().copied())
        .output()
        .expect("python can be started");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{file} failed; the server logged:\n{}",
        server.read_log()
    );
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

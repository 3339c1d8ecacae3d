//! Official clients against the real binary with the real small model.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/server.rs"]
mod server;

use std::{fs, process::Command};

use packages::Packages;
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
fn the_openai_client_embeds() {
    let file = encoders::model("minilm");
    let name = file.file_stem().expect("a name").to_owned();
    let server = Server::start_file(&file, &["engine.context = 512"]);
    let name = name.to_str().expect("a plain name");
    run("test_embeddings.py", &server, &[("MODEL", name)]);
}

#[test]
fn the_anthropic_client_finds_what_it_relies_on() {
    let server = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    run("test_anthropic.py", &server, &[("CONTEXT", "1024")]);
}

#[test]
fn demanded_tools_are_called_with_inputs_of_their_schemas() {
    let server = Server::start(&["engine = {context = 2048, parallel = 2}", TOOLS]);
    run("test_anthropic_tools.py", &server, &[]);
}

#[test]
fn programs_made_of_these_clients_work_too() {
    let server = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    run("test_langchain.py", &server, &[]);
    run("test_llm.py", &server, &[]);
    run_with(Packages::LiteLlm, "test_litellm.py", &server, &[]);
}

#[test]
fn the_javascript_clients_find_what_they_rely_on() {
    let Some(folder) = packages::node_folder() else {
        eprintln!("SKIPPED: node is not installed, so no JavaScript client was tested");
        return;
    };
    let plain = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    let tools = Server::start(&["engine = {context = 2048, parallel = 2}", TOOLS]);
    for (server, file) in [
        (&plain, "openai.test.mjs"),
        (&plain, "anthropic.test.mjs"),
        (&plain, "ai.test.mjs"),
        (&tools, "tools.test.mjs"),
    ] {
        let mut node = Command::new("node");
        node.args(["--test", "--test-reporter", "spec", file])
            .env("MODEL", server::MODEL);
        finish(node.current_dir(&folder), server, file);
    }
}

/// A template with tools, of which the small model's own has none, and with examples, without which it would rather talk.
const TOOLS: &str = "model.chat_template = \"tests/clients/tools.jinja\"";

/// Runs one file of tests/clients with pytest.
fn run(file: &str, server: &Server, environment: &[(&str, &str)]) {
    run_with(Packages::Clients, file, server, environment);
}

fn run_with(packages: Packages, file: &str, server: &Server, environment: &[(&str, &str)]) {
    let mut python = Command::new(packages::python(packages));
    python
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(packages::source(file))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MODEL", server::MODEL)
        .envs(environment.iter().copied());
    finish(&mut python, server, file);
}

/// Runs a client, whose output is this test's output.
fn finish(client: &mut Command, server: &Server, file: &str) {
    let output = client
        .env("BASE_URL", server.url("/v1"))
        // A proxy has no business between two processes of one machine.
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("it can be started");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "{file} failed; the server logged:\n{}",
        server.read_log()
    );
}

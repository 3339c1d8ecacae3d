//! OpenAI's and Ollama's own Python clients against the real binary with the real small model.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/python.rs"]
mod python;
#[path = "support/server.rs"]
mod server;

use std::fs;

use python::run;
use server::Server;

const SEQUENCES: u32 = 2;

#[test]
fn the_openai_client_finds_what_it_relies_on() {
    let server = Server::start(&[&format!(
        "engine = {{context = 1024, parallel = {SEQUENCES}}}"
    )]);
    run(
        "clients/test_openai.py",
        &server,
        &[("SEQUENCES", &SEQUENCES.to_string())],
    );
}

#[test]
fn the_openai_client_gets_responses() {
    // The model's own template has neither tools nor reasoning.
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/templates/qwen3.jinja");
    let server = Server::start(&[
        &format!("engine = {{context = 1024, parallel = {SEQUENCES}}}"),
        &format!("model.chat_template = \"{template}\""),
    ]);
    run(
        "test_responses.py",
        &server,
        &[("SEQUENCES", &SEQUENCES.to_string())],
    );
}

#[test]
fn clients_get_answers_of_the_form_they_ask_for() {
    let server = Server::start(&["engine = {context = 1024, parallel = 4}"]);
    run("clients/test_constrained.py", &server, &[]);
}

#[test]
fn the_openai_client_needs_the_key_that_is_configured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, "sk-for-this-test-only\n").expect("a file of keys");
    let setting = format!("auth.key_files = [\"{}\"]", keys.display());
    let server = Server::start(&["engine = {context = 512, parallel = 1}", &setting]);
    run(
        "clients/test_keys.py",
        &server,
        &[("KEY", "sk-for-this-test-only")],
    );
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
    run("clients/test_embeddings.py", &server, &[("MODEL", name)]);
}

#[test]
fn ollamas_client_finds_what_it_relies_on() {
    let server = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    run("clients/test_ollama.py", &server, &[]);
}

#[test]
fn ollamas_client_embeds() {
    let file = encoders::model("minilm");
    let name = file.file_stem().expect("a name").to_owned();
    let server = Server::start_file(&file, &["engine.context = 512"]);
    let name = name.to_str().expect("a plain name");
    run("clients/test_ollama_embed.py", &server, &[("MODEL", name)]);
}

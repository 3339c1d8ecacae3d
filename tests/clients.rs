//! Official clients against the real binary with the real small model.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/python.rs"]
mod python;
#[path = "support/server.rs"]
mod server;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use packages::Packages;
use python::{finish, run, run_with};
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
        "clients/test_responses.py",
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
    run("clients/test_images.py", &server, &[]);
}

#[test]
fn the_openai_client_plays_sounds_and_has_them_written_down() {
    let projector = encoders::projector("hears", 576);
    let server = Server::start_seeing(&projector, &["engine = {context = 1024, parallel = 2}"]);
    run("clients/test_audio.py", &server, &[]);
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
fn the_anthropic_client_finds_what_it_relies_on() {
    let server = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    run("clients/test_anthropic.py", &server, &[("CONTEXT", "1024")]);
}

#[test]
fn demanded_tools_are_called_with_inputs_of_their_schemas() {
    let server = Server::start(&["engine = {context = 2048, parallel = 2}", TOOLS]);
    run("clients/test_anthropic_tools.py", &server, &[]);
}

#[test]
fn programs_made_of_these_clients_work_too() {
    let server = Server::start(&["engine = {context = 1024, parallel = 2}"]);
    run("clients/test_langchain.py", &server, &[]);
    run("clients/test_llm.py", &server, &[]);
    run_with(Packages::LiteLlm, "clients/test_litellm.py", &server, &[]);
}

#[test]
fn the_javascript_clients_find_what_they_rely_on() {
    let Some(folder) = packages::node_folder("js") else {
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
            .env("BASE_URL", server.url("/v1"))
            .env("MODEL", server::MODEL);
        finish(node.current_dir(&folder), server, file);
    }
}

/// Claude Code, led through one tool call by what tests/clients/agent/scripted.py lets the engine say.
#[test]
fn an_agent_runs_the_command_that_the_model_calls_for() {
    let Some(folder) = packages::node_folder("agent") else {
        eprintln!("SKIPPED: node is not installed, so no agent was tested");
        return;
    };
    let server = Server::start(&["engine = {context = 8192, parallel = 2}", TOOLS]);
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut script = Command::new("python3")
        .arg(packages::source("agent/scripted.py"))
        .args([
            &server.url(""),
            "echo written by the agent > proof.txt",
            "The file is written.",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python can be started");
    let mut address = String::new();
    let said = script.stdout.take().expect("a pipe");
    BufReader::new(said)
        .read_line(&mut address)
        .expect("an address");
    let mut agent = Command::new("node");
    agent
        .arg(folder.join("node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs"))
        .args(["--bare", "--print", "Write the file proof.txt."])
        .args(["--system-prompt", "You are a coding agent."])
        .args(["--tools", "Bash", "--allowedTools", "Bash"])
        .current_dir(place.path())
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", place.path())
        .env("ANTHROPIC_BASE_URL", address.trim())
        .env("ANTHROPIC_API_KEY", "none")
        .env("ANTHROPIC_MODEL", server::MODEL)
        .env("ANTHROPIC_SMALL_FAST_MODEL", server::MODEL)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    let said = finish(&mut agent, &server, "the agent");
    let _ = script.kill();
    let _ = script.wait();
    let written = fs::read_to_string(place.path().join("proof.txt"));
    assert_eq!(written.expect("the agent's file"), "written by the agent\n");
    assert_eq!(said.trim(), "The file is written.");
}

#[test]
fn every_answer_to_requests_made_from_the_description_is_a_described_one() {
    let settings = [
        "engine = {context = 512, parallel = 2}",
        "limits.max_tokens = 4",
    ];
    let server = Server::start(&settings);
    run("clients/test_fuzz.py", &server, &[]);
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

/// A template with tools, of which the small model's own has none, and with examples, without which it would rather talk.
const TOOLS: &str = "model.chat_template = \"tests/clients/tools.jinja\"";

//! The page at `/` in a real Chromium, in front of the real server with the real small model.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/python.rs"]
mod python;
#[path = "support/server.rs"]
mod server;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::routing::post;
use llm_server::{
    api::{Early, Internet, Settings, Stage, Surface},
    config::{ImagesConfig, Limits, Origins, RemoteImages, Share},
};
use server::Server;
use tokio::{runtime::Runtime, sync::watch};

/// Where screenshots go.
fn shots() -> PathBuf {
    server::target().join("page")
}

/// Runs a file of tests/page.
fn browse(file: &str, server: &Server, environment: &[(&str, &str)]) {
    let (url, shots) = (server.url(""), shots());
    let mut all = vec![
        ("BASE_URL", url.as_str()),
        ("SHOTS", shots.to_str().expect("a plain path")),
    ];
    all.extend(environment);
    python::run(&format!("page/{file}"), server, &all);
}

#[test]
fn a_browser_shows_what_the_server_does_and_talks_with_the_model() {
    let server = Server::start(&["engine = {context = 2048, parallel = 2}"]);
    browse("test_page.py", &server, &[]);
}

#[test]
fn the_description_of_the_api_is_a_page() {
    let server = Server::start(&["engine = {context = 512, parallel = 1}"]);
    browse("test_docs.py", &server, &[]);
}

#[test]
fn gpus_and_a_placement_on_them_are_shown() {
    let server = Server::start(&["engine = {context = 512, parallel = 1}"]);
    browse("test_gpus.py", &server, &[]);
}

#[test]
fn reasoning_is_shown_folded_and_apart_from_the_answer() {
    // Its beginning makes all that the small model says reasoning.
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/reasoning.jinja");
    let template = format!("model.chat_template = \"{}\"", template.display());
    let server = Server::start(&["engine = {context = 512, parallel = 1}", &template]);
    browse("test_reasoning.py", &server, &[]);
}

#[test]
fn a_server_with_keys_is_seen_by_who_has_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    fs::write(&keys, "sk-for-this-test-only\n").expect("a file of keys");
    let setting = format!("auth.key_files = [\"{}\"]", keys.display());
    let server = Server::start(&["engine = {context = 512, parallel = 1}", &setting]);
    browse("test_keys.py", &server, &[("KEY", "sk-for-this-test-only")]);
}

#[test]
fn a_server_that_goes_away_and_comes_back_is_followed() {
    let server = Server::start(&["engine = {context = 512, parallel = 1}"]);
    let (models, pid) = (server::models(), server.pid().to_string());
    let environment = [
        ("BINARY", env!("CARGO_BIN_EXE_llm-server")),
        ("LLM_SERVER_MODELS", models.to_str().expect("a plain path")),
        ("PID", &pid),
    ];
    browse("test_away.py", &server, &environment);
}

#[test]
fn a_model_that_does_not_generate_cannot_be_talked_to() {
    let file = encoders::model("reranker");
    let server = Server::start_file(&file, &["engine.context = 256"]);
    browse("test_encoder.py", &server, &[]);
}

/// The real router through stages that pass too quickly with the small model.
#[test]
fn a_server_without_a_model_says_why_there_is_none() {
    let runtime = Runtime::new().expect("a runtime");
    let (stage, seen) = watch::channel(Stage::Loading { percent: 40 });
    let minute = Duration::from_mins(1);
    let settings = Settings {
        limits: Limits {
            responses_bytes: 0,
            images: 1,
            image_bytes: 0,
            image_pixels: 0,
            audio: 1,
            audio_bytes: 0,
            audio_length: minute,
            queue: 4,
            max_tokens: None,
            body_bytes: 64 << 10,
            queue_wait: minute,
            request: minute,
            receive: minute,
            send: minute,
            keep_alive: minute,
            drain: minute,
        },
        keys: Vec::new(),
        share: Share::Key,
        normalize: llm_server::config::Normalize::On,
        aliases: Vec::new(),
        origins: Origins::Listed(Vec::new()),
        images: ImagesConfig {
            fetch: RemoteImages::Never,
            hosts: Vec::new(),
            timeout: minute,
        },
        defaults: serde_json::Map::new(),
    };
    let go_on = move || async move {
        stage.send_modify(|stage| {
            *stage = match stage {
                Stage::Loading { percent: ..90 } => Stage::Loading { percent: 90 },
                Stage::Loading { .. } => Stage::Draining,
                _ => Stage::Failed,
            }
        });
    };
    let surface = Surface::new(
        seen,
        "a-model-that-loads",
        settings,
        None,
        Early::TurnedAway,
        Internet::real(),
    );
    let router = surface.router().route("/go-on", post(go_on));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket"));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("inside the runtime");
        axum::serve(listener, router).await
    });
    let shots = shots();
    let environment = [
        ("BASE_URL", url.as_str()),
        ("SHOTS", shots.to_str().expect("a plain path")),
    ];
    assert!(python::passes("page/test_stages.py", &environment));
}

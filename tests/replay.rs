//! The same request, the same bits: recorded from the real process, asked again after a restart and in other company.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/http.rs"]
mod http;
#[path = "support/server.rs"]
mod server;
#[path = "support/systemd.rs"]
mod systemd;

use std::{
    fs,
    path::Path,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use http::{Stream, post};
use serde_json::{Value, json};
use systemd::Service;

const ENGINE: &str =
    "engine = {context = 2048, parallel = 4, threads = 1, ubatch = 128, reproducible = true}";

fn start(recording: &Path, model: &[&str]) -> (Service, String) {
    start_with(recording, &[], model)
}

fn start_with(recording: &Path, options: &[&str], model: &[&str]) -> (Service, String) {
    server::fetch_model();
    let mut command = server::command();
    let requests = format!("log.requests = {:?}", recording.display().to_string());
    command.args([
        "serve",
        "--set",
        "listen = \"127.0.0.1:0\"",
        "--set",
        ENGINE,
    ]);
    command.args(["--set", &requests]);
    command.args(options);
    for setting in model {
        command.args(["--set", setting]);
    }
    let mut service = Service::start(command);
    let address = service.address();
    service.hear("READY=1");
    (service, address)
}

fn replay(recording: &Path, address: &str, concurrency: &str) -> (Output, String) {
    let output = server::command()
        .arg("replay")
        .arg(recording)
        .args([
            "--url",
            &format!("http://{address}"),
            "--concurrency",
            concurrency,
        ])
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

/// Requests that share beginnings, with and without a seed of their own, whole and streamed.
fn requests() -> Vec<(&'static str, Value)> {
    let history = "The story of the lighthouse keeper and his seven cats is long. ".repeat(30);
    let mut requests = Vec::new();
    for (at, end) in ["It begins", "It ends", "Nobody knows"]
        .into_iter()
        .enumerate()
    {
        requests.push((
            "/v1/completions",
            json!({"prompt": format!("{history}{end}"), "max_tokens": 24, "temperature": 0.9, "logprobs": 2}),
        ));
        requests.push((
            "/v1/chat/completions",
            json!({"messages": [{"role": "system", "content": history}, {"role": "user", "content": end}],
                "max_tokens": 16, "seed": at, "logprobs": true, "top_logprobs": 3, "stream": at % 2 == 0}),
        ));
    }
    let user = |text: &str| json!([{"role": "user", "content": text}]);
    let model = server::MODEL;
    requests.extend([
        (
            "/v1/messages",
            json!({"model": model, "max_tokens": 12, "messages": user("Hello there")}),
        ),
        (
            "/v1/messages",
            json!({"model": model, "max_tokens": 12, "messages": user("Who?"), "stream": true}),
        ),
        (
            "/v1/responses",
            json!({"input": "Tell me.", "max_output_tokens": 12, "stream": true}),
        ),
        (
            "/completion",
            json!({"prompt": "Once", "n_predict": 12, "n_probs": 1}),
        ),
        (
            "/api/chat",
            json!({"model": model, "messages": user("Why?"), "options": {"num_predict": 12}}),
        ),
        (
            "/api/generate",
            json!({"model": model, "prompt": "How?", "options": {"num_predict": 12, "seed": 3}}),
        ),
    ]);
    requests
}

#[test]
fn what_was_recorded_is_answered_identically_after_a_restart_and_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("requests.jsonl");
    let (service, address) = start(&recording, &[]);
    for (route, body) in requests() {
        let (status, answer) = post(&address, route, &body.to_string());
        assert_eq!(status, 200, "{answer}");
    }
    // A client that goes away in the middle is not recorded as if it had been answered.
    let endless = json!({"prompt": "Once", "max_tokens": 1500, "ignore_eos": true, "stream": true});
    drop(Stream::open(
        &address,
        "/v1/completions",
        &endless.to_string(),
    ));
    drop(service);

    let text = fs::read_to_string(&recording).unwrap();
    assert_eq!(text.lines().count(), requests().len());
    assert!(text.lines().all(|line| line.contains("\"seed\":")));
    let other = folder.path().join("second.jsonl");
    let (_service, address) = start(&other, &[]);
    let noise = address.clone();
    let neighbour = thread::spawn(move || {
        for length in [40, 700, 90] {
            let body = json!({"prompt": "noise ".repeat(length), "max_tokens": 8});
            post(&noise, "/v1/completions", &body.to_string());
        }
    });
    for concurrency in ["1", "4"] {
        let (output, said) = replay(&recording, &address, concurrency);
        assert!(output.status.success(), "{said}");
        assert_eq!(said, "12 of 12 identical\n");
    }
    neighbour.join().unwrap();

    let changed = text.replacen(
        "\"finish_reason\":\"length\"",
        "\"finish_reason\":\"stop\"",
        1,
    );
    fs::write(&recording, changed).unwrap();
    let (output, said) = replay(&recording, &address, "2");
    assert_eq!(output.status.code(), Some(1));
    let expected = r#"differs at choices[0].finish_reason: Some("stop") and Some("length")"#;
    assert!(said.contains(expected), "{said}");
    assert!(said.ends_with("11 of 12 identical\n"), "{said}");
}

#[test]
fn scales_that_held_when_a_request_came_are_recorded_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("requests.jsonl");
    let adapter = encoders::adapter("one");
    let options = ["--adapter-file", adapter.to_str().unwrap()];
    let named = r#"model.adapters = [{name = "adapter-one", alias = "poet"}]"#;
    let (service, address) = start_with(&recording, &options, &[named]);
    let ask = |model: &str, lora: &Value| {
        let body = json!({"model": model, "lora": lora, "prompt": "The capital of France is", "max_tokens": 8, "logprobs": 2});
        let (status, answer) = post(&address, "/v1/completions", &body.to_string());
        assert_eq!(status, 200, "{answer}");
    };
    ask(server::MODEL, &json!([]));
    ask("poet", &json!(null));
    post(&address, "/lora-adapters", r#"[{"id": 0, "scale": 0.25}]"#);
    ask(server::MODEL, &json!(null));
    ask("poet", &json!([]));
    ask(server::MODEL, &json!([{"id": 0, "scale": 0}]));
    // Lines are written beside the answers.
    let begun = Instant::now();
    while fs::read_to_string(&recording).unwrap().lines().count() < 5 {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "not all was recorded"
        );
        thread::yield_now();
    }
    drop(service);

    let text = fs::read_to_string(&recording).unwrap();
    let scale = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["request"]["lora"][0]["scale"].as_f64().unwrap()
    };
    assert_eq!(
        text.lines().map(scale).collect::<Vec<_>>(),
        [1.0, 1.0, 0.25, 1.0, 0.0]
    );
    let other = folder.path().join("second.jsonl");
    let (_service, address) = start_with(&other, &options, &[named]);
    let (output, said) = replay(&recording, &address, "4");
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "5 of 5 identical\n");
}

#[test]
fn a_recording_that_cannot_be_read_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("broken.jsonl");
    fs::write(&recording, "{}\n").unwrap();
    let (output, _) = replay(&recording, "127.0.0.1:9", "1");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("broken.jsonl, line 1: missing field `id`"),
        "{said}"
    );
}

/// Its window's cells are used anew: what is found in a cache must lie as if it had been computed just now.
#[test]
fn a_model_with_sliding_windows_says_the_same_from_a_cache() {
    let model = encoders::windowed();
    let mut command = server::command();
    command.arg("serve").arg("--model-file").arg(model);
    command.args(["--set", "listen = \"127.0.0.1:0\"", "--set", ENGINE]);
    // One thread adds in one order, whatever lies where.
    command.args(["--set", "engine.threads = 2"]);
    let mut service = Service::start(command);
    let address = service.address();
    service.hear("READY=1");
    let ask = |length: usize, end: usize, cached: bool| {
        let mut prompt: Vec<_> = (0..length).map(|at| 1000 + at * 7919 % 3000).collect();
        prompt.extend([end, end + 1, end + 2]);
        let body = json!({"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 3, "cache_prompt": cached,
            "ignore_eos": true});
        let (status, answer) = post(&address, "/completion", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let found = answer["timings"]["cache_n"].as_u64().unwrap();
        (answer["completion_probabilities"].clone(), found)
    };
    let mut found = 0;
    for length in [1500, 400, 700, 260, 1100, 900] {
        for end in [1000, 2000] {
            let (alone, _) = ask(length, end, false);
            let (from_cache, cached) = ask(length, end, true);
            assert_eq!(from_cache, alone, "{length} tokens, {cached} of them found");
            found += cached;
        }
    }
    assert!(found > 5000, "{found} tokens found");
}

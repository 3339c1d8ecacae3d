//! A model on several machines: two workers on the loopback address, with the real binary and the real small model.

#[path = "support/server.rs"]
mod server;
#[path = "support/worker.rs"]
mod worker;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use llm_server::{
    config::{self, KnownModel},
    engine::{
        fit,
        llama::{self, Llama, Weights},
    },
    lock::{Lock, Store},
};
use serde_json::{Value, json};
use server::Server;
use worker::Worker;

/// One thread, and weights as the file has them: workers do not rearrange theirs, and other kernels round otherwise.
const PLAIN: &str =
    "engine = {context = 512, parallel = 2, threads = 1, repack = false, load = 'none}";

fn naming(workers: &[SocketAddr]) -> String {
    let names: Vec<_> = workers
        .iter()
        .map(|worker| format!("\"{worker}\""))
        .collect();
    format!("engine.rpc = [{}]", names.join(", "))
}

/// An address of this machine that nobody listens on.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn ask(server: &Server) -> Value {
    let body = json!({
        "messages": [{"role": "user", "content": "Write two sentences about the sea."}],
        "max_tokens": 40,
        "temperature": 0,
        "logprobs": true,
    });
    let (status, answer) = server
        .post("/v1/chat/completions", &body.to_string())
        .unwrap();
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

fn logprobs(answer: &Value) -> Vec<f64> {
    answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["logprob"].as_f64().unwrap())
        .collect()
}

/// Exit status and stderr of a command that is to end by itself.
fn said(arguments: &[&str]) -> (i32, String) {
    let output = server::command().args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), stderr)
}

#[test]
fn two_workers_hold_all_layers_and_answer_as_this_machine_does_alone() {
    let here = ask(&Server::start(&[PLAIN]));

    let workers = [Worker::start(), Worker::start()];
    let both = naming(&workers.each_ref().map(|worker| worker.address));
    let server = Server::start(&[PLAIN, &both]);
    let there = ask(&server);

    let text = |answer: &Value| answer["choices"][0]["message"]["content"].clone();
    assert_eq!(text(&there), text(&here));
    let (here, there) = (logprobs(&here), logprobs(&there));
    assert_eq!(there.len(), here.len());
    for (here, there) in here.iter().zip(&there) {
        assert!((here - there).abs() < 1e-3, "{here} here, {there} there");
    }

    let props: Value = serde_json::from_str(&server.get("/props").unwrap().1).unwrap();
    let devices = props["plan"]["devices"].as_array().unwrap();
    let names: Vec<_> = devices.iter().map(|device| &device["name"]).collect();
    assert_eq!(names, ["RPC0", "RPC1", "host"]);
    for (device, worker) in devices.iter().zip(&workers) {
        assert_eq!(device["description"], worker.address.to_string());
    }
    let layers = props["plan"]["layers"].as_array().unwrap();
    for name in ["RPC0", "RPC1"] {
        let share = layers.iter().filter(|layer| layer["device"] == name);
        assert!(share.count() > 3, "{name} has too few of {layers:?}");
    }
}

#[test]
fn layers_go_to_the_workers_that_placement_names() {
    let workers = [Worker::start(), Worker::start()];
    let both = naming(&workers.each_ref().map(|worker| worker.address));
    let server = Server::start(&[
        PLAIN,
        &both,
        "engine.placement = {devices = [\"RPC1\"], gpu_layers = 10}",
    ]);
    let props: Value = serde_json::from_str(&server.get("/props").unwrap().1).unwrap();
    let layers = props["plan"]["layers"].as_array().unwrap();
    let on = |name: &str| layers.iter().filter(|one| one["device"] == name).count();
    assert_eq!((on("RPC0"), on("RPC1"), on("host")), (0, 10, 21));
    ask(&server);
}

#[test]
fn a_plan_agrees_with_what_workers_then_allocate() {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
    server::fetch_model();
    let lock = Lock::builtin();
    let model = Store::at(server::models()).path(server::MODEL, lock.get(server::MODEL).unwrap());
    let workers = [Worker::start(), Worker::start()];
    let overrides = [
        PLAIN.to_owned(),
        naming(&workers.each_ref().map(|worker| worker.address)),
    ];
    let known = KnownModel {
        name: server::MODEL.into(),
        trained_context: None,
    };
    let config = config::load(&config::Source::built_in(), &overrides, &[known])
        .unwrap()
        .engine;

    let plan = fit::fit(&model, &config).unwrap();
    let weights = Weights::load(&model, &plan, &mut |_| true).unwrap();
    let llama = Llama::open(weights, &config, &plan).unwrap();

    let mut real = BTreeMap::<String, [u64; 3]>::new();
    for buffer in llama.buffers() {
        let name = if buffer.host {
            "host".to_owned()
        } else {
            buffer.device
        };
        let sums = real.entry(name).or_default();
        sums[0] += buffer.weights;
        sums[1] += buffer.cache;
        sums[2] += buffer.compute;
    }
    assert_eq!(plan.devices.len(), 3);
    for device in &plan.devices {
        let planned = [device.weights.total(), device.kv.total(), device.compute];
        let [weights, cache, compute] = real[&device.name];
        assert_eq!(planned[..2], [weights, cache], "{}", device.name);
        // Planning, llama.cpp forgets where it wants the norm of a device's first layer, and counts its result among what
        // comes from the device before: a step of 576 numbers a token, four of them under way at once.
        let forgotten = if device.name == "RPC1" {
            4 * 512 * 576 * 4
        } else {
            0
        };
        assert_eq!(planned[2], compute + forgotten, "{}", device.name);
    }
}

/// Begins a long stream and returns what is read of it, from its first event.
fn begin_stream(server: &Server) -> BufReader<TcpStream> {
    let body = json!({
        "prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": true, "stream": true,
    })
    .to_string();
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "no event came");
    }
    lines
}

#[test]
fn a_worker_that_dies_ends_the_server_with_70_and_the_next_one_waits_for_it_by_name() {
    let (mut lost, kept) = (Worker::start(), Worker::start());
    let both = naming(&[lost.address, kept.address]);
    let mut server = Server::start(&[PLAIN, &both]);

    let mut stream = begin_stream(&server);
    let killed = Instant::now();
    lost.kill();
    let mut rest = String::new();
    while let Ok(1..) = stream.read_line(&mut rest) {}
    assert!(
        rest.contains("\"error\""),
        "the stream was not told: {rest}"
    );
    assert!(!rest.contains("[DONE]"), "{rest}");
    let status = server.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(70), "{}", server.read_log());
    assert!(killed.elapsed() < Duration::from_secs(20));
    assert!(
        server.read_log().contains("RPC server crashed"),
        "{}",
        server.read_log()
    );

    // What the service manager would start next.
    let mut next = Server::spawn(&[PLAIN, &both]);
    let status = next.wait(Duration::from_secs(20));
    let log = next.read_log();
    assert_eq!(status.code(), Some(69), "{log}");
    assert!(
        log.contains(&format!(
            "engine.rpc: the worker {} cannot be reached",
            lost.address
        )),
        "{log}"
    );

    let _back = Worker::start_at(lost.address);
    ask(&Server::start(&[PLAIN, &both]));
}

#[test]
fn a_worker_that_serves_another_is_refused_by_name_instead_of_waited_for() {
    let worker = Worker::start();
    let naming = naming(&[worker.address]);
    let first = Server::start(&[PLAIN, &naming]);
    let (status, message) = said(&["plan", "--set", PLAIN, "--set", &naming]);
    assert_eq!(status, 69, "{message}");
    assert!(message.contains("serves one server at a time"), "{message}");
    assert!(message.contains(&worker.address.to_string()), "{message}");
    ask(&first);
}

#[test]
fn workers_that_cannot_be_used_are_refused_before_anything_is_loaded() {
    let gone = nobody();
    let (status, message) = said(&["plan", "--set", PLAIN, "--set", &naming(&[gone])]);
    assert_eq!(status, 69, "{message}");
    assert!(message.contains("engine.rpc"), "{message}");
    assert!(message.contains(&gone.to_string()), "{message}");

    let wrong = [
        ("[\"10.0.0.1\"]", "host:port"),
        ("[\"[::1]:50052\"]", "host:port"),
        ("[\"worker:0\"]", "host:port"),
        ("[\"worker:65536\"]", "host:port"),
        ("\"worker:50052\"", "list of host:port"),
        ("[\"a:1\", \"b:1\", \"a:1\"]", "names a worker twice"),
    ];
    for (value, words) in wrong {
        let (status, message) = said(&["check", "--set", &format!("engine.rpc = {value}")]);
        assert_eq!(status, 2, "{value}: {message}");
        assert!(message.contains(words), "{value}: {message}");
    }
}

#[test]
fn a_worker_lends_nothing_to_a_network_unless_it_is_told_that_it_may() {
    for open in ["0.0.0.0:0", "192.0.2.1:50052"] {
        let (status, message) = said(&["rpc-worker", "--listen", open]);
        assert_eq!(status, 2, "{message}");
        assert!(message.contains("--trust-network"), "{message}");
    }
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--devices", "GPU7"], 2, "this machine has CPU"),
        (&["--devices", "CPU,CPU"], 2, "named twice"),
        (&["--listen", "[::1]:50052"], 2, "--listen"),
        // An address of documentation, which no machine has.
        (
            &["--listen", "192.0.2.1:50052", "--trust-network"],
            1,
            "192.0.2.1:50052",
        ),
    ];
    for (arguments, expected, words) in cases {
        let (status, message) = said(&[&["rpc-worker"], arguments].concat());
        assert_eq!(status, expected, "{arguments:?}: {message}");
        assert!(message.contains(words), "{arguments:?}: {message}");
    }
}

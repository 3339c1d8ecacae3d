//! The life of the real process with the real small model, as systemd, a shell and clients see it.

#[path = "support/http.rs"]
mod http;
#[path = "support/server.rs"]
mod server;
#[path = "support/systemd.rs"]
mod systemd;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt, unix::net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use http::{Stream, get, get_with_key, post};
use rustix::process::Signal;
use serde_json::Value;
use server::MODEL;
use systemd::{LONG, Service};

/// One thread each: two servers that spin on two cores beside other work slow each other down tenfold.
const SMALL: &str = "engine = {context = 512, parallel = 2, threads = 1}";
const LARGE: &str = "engine = {context = 8192, parallel = 1, threads = 1}";
/// Hundreds of tokens a second: far more than any of these tests lets it generate.
const ENDLESS: &str =
    r#"{"prompt": "Once upon a time", "max_tokens": 8000, "ignore_eos": true, "stream": true}"#;

/// `serve` on a free port with these settings.
fn serve(settings: &[&str]) -> Command {
    server::fetch_model();
    let mut command = server::command();
    command.args(["serve", "--set", "listen = \"127.0.0.1:0\""]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// A service that is ready, and its address.
fn ready(settings: &[&str]) -> (Service, String) {
    let mut service = Service::start(serve(settings));
    let address = service.address();
    service.hear("READY=1");
    (service, address)
}

fn run(arguments: &[&str]) -> Output {
    server::command()
        .args(arguments)
        .output()
        .expect("the binary can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn systemd_hears_of_the_load_and_then_of_a_model_that_answers() {
    let mut service = Service::start(serve(&[SMALL]));
    let address = service.address();
    // The port answers from the first word on; the small model may be there before the question.
    let (status, body) = get(&address, "/health");
    assert!(
        status == 200 || status == 503 && body.contains("Loading model"),
        "{status} {body}"
    );

    service.hear("READY=1");
    let before = &service.said[..service
        .said
        .iter()
        .position(|line| line == "READY=1")
        .unwrap()];
    assert!(before[0].starts_with("EXTEND_TIMEOUT_USEC="), "{before:?}");
    for step in ["STATUS=Verifying", "STATUS=Loading", "STATUS=Warming up"] {
        assert!(
            before.iter().any(|line| line.starts_with(step)),
            "no {step} in {before:?}"
        );
    }
    assert_eq!(get(&address, "/health").0, 200);
    let (status, body) = post(
        &address,
        "/v1/completions",
        r#"{"prompt": "One, two,", "max_tokens": 4}"#,
    );
    assert_eq!(status, 200, "{body}");
}

#[test]
fn compute_threads_sleep_soon_unless_somebody_chose_otherwise() {
    let mut service = Service::start(serve(&[SMALL]));
    service.hear("STATUS=");
    assert!(service.proc("environ").contains("GOMP_SPINCOUNT=1000\0"));
    assert_eq!(service.proc("comm"), "llm-server\n");

    let mut command = serve(&[SMALL]);
    command.env("OMP_WAIT_POLICY", "active");
    let mut service = Service::start(command);
    service.hear("STATUS=");
    assert!(!service.proc("environ").contains("GOMP_SPINCOUNT"));
}

#[test]
fn the_watchdog_is_fed_while_the_server_is_idle_and_while_it_works() {
    let mut command = serve(&[LARGE]);
    command.env("WATCHDOG_USEC", "600000");
    let mut service = Service::start(command);
    let address = service.address();
    service.hear("READY=1");
    assert!(
        !service.said.contains(&"WATCHDOG=1".to_owned()),
        "fed before it was ready"
    );
    for _ in 0..3 {
        service.hear("WATCHDOG=1");
    }
    let mut stream = Stream::open(&address, "/v1/completions", ENDLESS);
    stream.event();
    service.hear(&format!("STATUS=Serving {MODEL}: 1 running, 0 queued"));
    for _ in 0..3 {
        service.hear("WATCHDOG=1");
    }
    drop(stream);
    service.hear(&format!("STATUS=Serving {MODEL}: idle"));
}

/// A service that inherits `listener`, as systemd passes it: from descriptor 3 on, naming the process it means.
fn activated(serve: &Command, listener: TcpListener) -> Service {
    let mut shell = shell(
        "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$",
        serve,
    );
    shell.stdin(Stdio::from(OwnedFd::from(listener)));
    Service::start(shell)
}

/// A shell that does this and then becomes the server.
fn shell(first: &str, serve: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!(r#"{first}; exec "$0" "$@""#)])
        .arg(serve.get_program())
        .args(serve.get_args())
        .current_dir(serve.get_current_dir().unwrap())
        .envs(
            serve
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    shell
}

#[test]
fn who_connects_to_a_socket_of_the_service_manager_waits_for_the_model_instead_of_hearing_503() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut service = activated(&serve(&[SMALL]), listener);
    // Asked before anything is loaded: the kernel holds the connection until the process is up.
    let (status, body) = post(
        &address,
        "/v1/completions",
        r#"{"prompt": "One, two,", "max_tokens": 4}"#,
    );
    assert_eq!(status, 200, "{body}");
    assert_eq!(service.address(), address);
    service.hear("READY=1");
    assert_eq!(get(&address, "/health").0, 200);
}

#[test]
fn who_comes_during_the_drain_is_left_to_the_next_process_on_a_socket_of_the_service_manager() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ours = listener.try_clone().unwrap();
    let mut service = activated(&serve(&[SMALL, "limits.drain = 100"]), listener);
    service.hear("READY=1");
    let body =
        r#"{"prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": true, "stream": true}"#;
    let mut stream = Stream::open(&address, "/v1/completions", body);
    stream.event();
    service.signal(Signal::TERM);
    service.hear("STOPPING=1");

    let late = TcpStream::connect(&address).unwrap();
    assert!(
        stream.rest().trim_end().ends_with("data: [DONE]"),
        "the stream was cut"
    );
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
    // Still in the kernel's queue, and the first there.
    let (_, from) = ours.accept().unwrap();
    assert_eq!(from, late.local_addr().unwrap());
}

#[test]
fn a_request_that_began_before_the_drain_is_answered_on_a_socket_of_the_service_manager() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut service = activated(&serve(&[SMALL, "limits.drain = 100"]), listener);
    service.hear("READY=1");
    let body = r#"{"prompt": "One, two,", "max_tokens": 4}"#;
    let mut early = TcpStream::connect(&address).unwrap();
    early
        .write_all(b"POST /v1/completions HTTP/1.1\r\nhost: test\r\n")
        .unwrap();
    // Who came later was accepted, so the first one was.
    assert_eq!(get(&address, "/health").0, 200);
    service.signal(Signal::TERM);
    service.hear("STOPPING=1");

    let rest = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    early.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
}

#[test]
fn sigterm_lets_a_running_stream_finish_and_turns_new_requests_away() {
    let (mut service, address) = ready(&[SMALL, "limits.drain = 100"]);
    let body =
        r#"{"prompt": "Once upon a time", "max_tokens": 300, "ignore_eos": true, "stream": true}"#;
    let mut stream = Stream::open(&address, "/v1/completions", body);
    stream.event();
    service.signal(Signal::TERM);
    service.hear("STOPPING=1");

    let mut late = Stream::open(&address, "/v1/completions", r#"{"prompt": "Hello"}"#);
    assert_eq!(late.status, 503, "{}", late.head);
    assert!(
        late.head.to_ascii_lowercase().contains("\r\nretry-after: "),
        "{}",
        late.head
    );
    assert!(late.rest().contains("error"));

    assert!(
        stream.rest().trim_end().ends_with("data: [DONE]"),
        "the stream was cut"
    );
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
}

#[test]
fn a_stream_that_outlives_the_drain_ends_with_an_error_event() {
    let (mut service, address) = ready(&[LARGE, "limits.drain = 0.2"]);
    let mut stream = Stream::open(&address, "/v1/completions", ENDLESS);
    stream.event();
    service.signal(Signal::TERM);
    let rest = stream.rest();
    let last = rest
        .lines()
        .rfind(|line| line.starts_with("data: "))
        .unwrap_or_default();
    assert!(
        last.starts_with("data: {\"error\":"),
        "the last event was {last:?}"
    );
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut service, address) = ready(&[LARGE, "limits.drain = 600"]);
        let mut stream = Stream::open(&address, "/v1/completions", ENDLESS);
        stream.event();
        service.signal(Signal::TERM);
        service.hear("STOPPING=1");
        service.signal(second);
        assert_eq!(
            service.wait(Duration::from_secs(5)).code(),
            Some(code),
            "{}",
            service.log()
        );
    }
}

#[test]
fn sigterm_ends_a_load_that_is_under_way() {
    // A store without memory: the digest is computed again, so the load takes its time.
    let store = tempfile::tempdir().unwrap();
    let mut command = serve(&[SMALL]);
    fs::copy(
        model_file(),
        store.path().join(model_file().file_name().unwrap()),
    )
    .unwrap();
    command.env("LLM_SERVER_MODELS", store.path());
    let mut service = Service::start(command);
    service.hear("STATUS=Verifying");
    service.signal(Signal::TERM);
    assert_eq!(
        service.wait(Duration::from_secs(10)).code(),
        Some(0),
        "{}",
        service.log()
    );
    assert!(!service.said.contains(&"READY=1".to_owned()));
}

#[test]
fn sighup_takes_over_keys_and_names_and_leaves_streams_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("site.ncl");
    let keys = folder.path().join("team");
    let write = |text: &str| fs::write(&config, text).unwrap();
    let with = |settings: &str| {
        write(&format!(
            "{{ model.name = \"{MODEL}\", listen = \"127.0.0.1:0\", {LARGE}, {settings} }}"
        ));
    };
    with("model.aliases = [\"old\"]");
    let mut command = server::command();
    command.args(["serve", config.to_str().unwrap()]);
    let mut service = Service::start(command);
    let address = service.address();
    service.hear("READY=1");
    let mut stream = Stream::open(&address, "/v1/completions", ENDLESS);
    stream.event();
    assert_eq!(get(&address, "/v1/models/old").0, 200);

    fs::write(&keys, "sk-new\n").unwrap();
    with("model.aliases = [\"new\"], auth.key_files = [\"team\"], engine.poll = 10");
    service.signal(Signal::HUP);
    service.hear("RELOADING=1");
    service.hear("READY=1");
    stream.event();
    assert_eq!(get(&address, "/v1/models/new").0, 401);
    assert_eq!(get_with_key(&address, "/v1/models/new", "sk-new").0, 200);
    assert_eq!(get_with_key(&address, "/v1/models/old", "sk-new").0, 404);
    let log = service.log();
    assert!(
        log.contains("changes at the next restart only setting=\"engine.poll\""),
        "{log}"
    );

    // What is wrong changes nothing.
    with("model.aliases = [7]");
    service.signal(Signal::HUP);
    service.hear("READY=1");
    assert_eq!(get_with_key(&address, "/v1/models/new", "sk-new").0, 200);
    assert!(service.log().contains("the configuration stays as it is"));
    stream.event();
}

#[test]
fn sigterm_is_heard_while_a_reload_waits_for_a_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, keys) = (folder.path().join("site.ncl"), folder.path().join("team"));
    let with = |settings: &str| {
        let text = format!(
            "{{ model.name = \"{MODEL}\", listen = \"127.0.0.1:0\", {SMALL}, {settings} }}"
        );
        fs::write(&config, text).unwrap();
    };
    with("");
    let mut command = server::command();
    command.args(["serve", config.to_str().unwrap()]);
    let mut service = Service::start(command);
    service.hear("READY=1");

    // A pipe that nobody writes to.
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &keys, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    with("auth.key_files = [\"team\"]");
    service.signal(Signal::HUP);
    service.hear("RELOADING=1");
    service.signal(Signal::TERM);
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
}

#[test]
fn requests_get_the_configured_defaults_and_wrong_ones_end_the_start() {
    let (_service, address) = ready(&[SMALL, "model.defaults = {max_tokens = 3}"]);
    let tokens = |path: &str, body: &str| {
        let (status, answer) = post(&address, path, body);
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["usage"]["completion_tokens"].as_u64().unwrap()
    };
    let chat = r#"{"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": true"#;
    assert_eq!(tokens("/v1/chat/completions", &format!("{chat}}}")), 3);
    let more = format!("{chat}, \"max_tokens\": 5}}");
    assert_eq!(tokens("/v1/chat/completions", &more), 5);
    let text = r#"{"prompt": "Once", "ignore_eos": true, "max_tokens": null}"#;
    assert_eq!(tokens("/v1/completions", text), 3);
    let (status, props) = get(&address, "/props");
    assert_eq!(status, 200, "{props}");
    let props: Value = serde_json::from_str(&props).unwrap();
    let told = &props["default_generation_settings"]["params"];
    assert_eq!(
        (&told["max_tokens"], &told["n_predict"]),
        (&3.into(), &3.into())
    );

    let wrong = "model.defaults = {temperature = \"hot\"}";
    let output = run(&[
        "serve",
        "--set",
        "listen = \"127.0.0.1:0\"",
        "--set",
        SMALL,
        "--set",
        wrong,
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let expected = "model.defaults.temperature: expected a number from 0 to 5, got \"hot\"";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    assert!(!stderr(&output).contains("ready"), "{}", stderr(&output));
}

#[test]
fn a_spent_budget_ends_the_thinking_and_the_answer_begins() {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/deepseek.jinja");
    let template = format!("model.chat_template = {template:?}");
    let (_service, address) = ready(&[SMALL, &template]);
    let ask = |budget: i32| {
        let body = format!(
            r#"{{"messages": [{{"role": "user", "content": "Tell me a story."}}], "max_tokens": 60,
                "temperature": 0, "ignore_eos": true, "reasoning_budget_tokens": {budget}}}"#
        );
        let (status, answer) = post(&address, "/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let endless = ask(-1);
    let message = &endless["choices"][0]["message"];
    assert_eq!(message["content"], "", "{endless}");
    let story = message["reasoning_content"].as_str().unwrap();
    for budget in [0, 8] {
        let answer = ask(budget);
        let message = &answer["choices"][0]["message"];
        let thought = message["reasoning_content"].as_str().unwrap_or_default();
        assert!(
            story.starts_with(thought),
            "{thought:?} is not the beginning of {story:?}"
        );
        assert_eq!(thought.is_empty(), budget == 0, "{answer}");
        assert!(message["content"].as_str().unwrap().len() > 20, "{answer}");
        assert_eq!(message["reasoning"], message["reasoning_content"]);
        let details = &answer["usage"]["completion_tokens_details"];
        assert!(
            details["reasoning_tokens"].as_i64().unwrap() <= i64::from(budget) + 6,
            "{answer}"
        );
    }
}

#[test]
fn a_limit_on_the_size_of_files_costs_the_recording_and_not_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("requests");
    let setting = format!("log.requests = {recording:?}");
    let serve = serve(&[SMALL, &setting]);
    let mut shell = shell("ulimit -f 8", &serve);
    shell.stdin(Stdio::null());
    let mut service = Service::start(shell);
    let address = service.address();
    service.hear("READY=1");
    let short = r#"{"prompt": "One, two,", "max_tokens": 4}"#;
    let long = r#"{"prompt": "One, two,", "max_tokens": 300, "logprobs": 5, "ignore_eos": true}"#;
    for body in [short, long, short] {
        assert_eq!(post(&address, "/v1/completions", body).0, 200);
    }
    service.signal(Signal::TERM);
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
    // What did not fit is left out as a whole.
    let lines = fs::read_to_string(&recording).unwrap();
    let lines = lines.lines().map(serde_json::from_str::<Value>);
    assert_eq!(lines.collect::<Result<Vec<_>, _>>().unwrap().len(), 2);
}

#[test]
fn a_unix_socket_is_served_to_its_group_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listen = format!("listen = \"unix:{}\"", path.display());
    let mut service = Service::start(serve(&[SMALL, &listen]));
    service.hear("READY=1");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let (status, _) = http::get_over(UnixStream::connect(&path).unwrap(), "/health");
    assert_eq!(status, 200);
    service.signal(Signal::INT);
    assert_eq!(service.wait(LONG).code(), Some(0), "{}", service.log());
    assert!(!path.exists(), "the socket file was left behind");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = run(&["serve", "--set", &format!("listen = \"{address}\"")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("listen = \"{address}\": the address is in use")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_missing_model_is_exit_code_66_and_names_the_command_that_gets_it() {
    let empty = tempfile::tempdir().unwrap();
    let output = serve(&[])
        .env("LLM_SERVER_MODELS", empty.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(66), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("llm-server models fetch {MODEL}")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn weights_with_one_wrong_bit_are_exit_code_65() {
    let store = tempfile::tempdir().unwrap();
    let mut command = serve(&[]);
    let mut weights = fs::read(model_file()).unwrap();
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    fs::write(
        store.path().join(model_file().file_name().unwrap()),
        weights,
    )
    .unwrap();
    let output = command
        .env("LLM_SERVER_MODELS", store.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("sha256"), "{}", stderr(&output));
}

#[test]
fn a_truncated_model_file_is_exit_code_65_and_no_crash() {
    server::fetch_model();
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.gguf");
    let weights = fs::read(model_file()).unwrap();
    fs::write(&cut, &weights[..weights.len() / 3]).unwrap();
    let output = run(&["generate", "Hello", "--model-file", cut.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("cut.gguf"), "{}", stderr(&output));
}

#[test]
fn a_wrong_setting_is_exit_code_2_and_named() {
    let output = run(&["serve", "--set", "engine.parallel = 0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("parallel"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_went_away_has_read_enough_and_a_full_disk_has_not() {
    let answers: [&[&str]; 6] = [
        &["version"],
        &["check"],
        &["schema"],
        &["doctor"],
        &["man"],
        &["completions", "bash"],
    ];
    for arguments in answers {
        let printed = |to: Stdio| {
            let mut command = server::command();
            command.args(arguments).stdout(to).stderr(Stdio::piped());
            command.spawn().unwrap().wait_with_output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = printed(writer.into());
        assert_eq!(stderr(&output), "", "{arguments:?}");

        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = printed(full.into());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
}

#[test]
fn generate_knows_the_capital_of_france() {
    server::fetch_model();
    let question = "What is the capital of France? Answer in one sentence.";
    let output = run(&[
        "generate",
        question,
        "--temperature",
        "0",
        "--max-tokens",
        "32",
        "--set",
        SMALL,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("Paris"),
        "{output:?}"
    );
}

#[test]
fn version_names_the_engine_and_the_features_of_this_machine() {
    let output = run(&["version", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["model"]["name"], MODEL);
    assert!(
        version["system_fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("fp_")
    );
    let backends = version["backends"].as_array().unwrap();
    let cpus = backends.iter().filter(|it| *it == "CPU").count();
    assert_eq!(cpus, 1, "the CPU backend is loaded once: {backends:?}");
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        let features = version["cpu_features"].as_array().unwrap();
        assert!(
            features.iter().any(|it| it == "AVX2"),
            "AVX2 is not used: {features:?}"
        );
    }
}

#[test]
fn the_server_shows_the_version_that_the_command_prints() {
    let (_service, address) = ready(&[SMALL]);
    let output = run(&["version", "--json", "--set", SMALL]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let served: Value = serde_json::from_str(&get(&address, "/version").1).unwrap();
    assert_eq!(served, printed);
}

#[test]
fn the_plan_that_the_command_prints_is_served_with_what_was_then_allocated() {
    let (_service, address) = ready(&[SMALL]);
    let svg = tempfile::NamedTempFile::new().unwrap();
    let drawing = svg.path().to_str().unwrap();
    let output = run(&["plan", "--json", "--set", SMALL, "--svg", drawing]);
    assert!(output.status.success());
    assert!(
        std::fs::read_to_string(drawing)
            .unwrap()
            .starts_with("<svg")
    );
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let served: Value = serde_json::from_str(&get(&address, "/props").1).unwrap();
    let served = &served["plan"];
    for field in [
        "model", "layers", "settings", "context", "parallel", "threads",
    ] {
        assert_eq!(served[field], printed[field], "{field}");
    }
    let host = served["devices"].as_array().unwrap().last().unwrap();
    let sum = |part: &Value| {
        part.as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum::<u64>()
    };
    assert_eq!(host["allocated"]["weights"], sum(&host["weights"]));
    assert_eq!(host["allocated"]["cache"], sum(&host["kv"]));
    assert_eq!(host["allocated"]["compute"], host["compute"]);
}

/// The pinned weights in the tests' store.
fn model_file() -> std::path::PathBuf {
    let output = run(&["models", "path", MODEL]);
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).to_owned()
}

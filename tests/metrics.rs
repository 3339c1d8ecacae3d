//! What the real server counts of real requests, and that Prometheus' own tool accepts all that is made for it.
#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

#[path = "support/http.rs"]
mod http;
#[path = "support/journal.rs"]
mod journal;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/python.rs"]
mod python;
#[path = "support/server.rs"]
mod server;
#[path = "support/systemd.rs"]
mod systemd;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use http::Stream;
use journal::Journal;
use serde_json::{Value, json};
use server::{MODEL, Server};
use systemd::LONG;

const ONE: &str = "engine = {context = 2048, parallel = 1, threads = 1}, limits = {queue = 1, max_tokens = 'context}";
const COMPLETIONS: &str = "/v1/completions";

/// Every sample of a scrape, by its name and labels.
type Samples = BTreeMap<String, f64>;

fn scrape(server: &Server) -> Samples {
    let (status, text) = server.get("/metrics").unwrap();
    assert_eq!(status, 200, "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The first scrape that is as wished; another process counts, and it may do so after the answer was read.
fn scrape_until(server: &Server, wish: impl Fn(&Samples) -> bool) -> Samples {
    let deadline = Instant::now() + LONG;
    loop {
        let samples = scrape(server);
        if wish(&samples) {
            return samples;
        }
        assert!(
            Instant::now() < deadline,
            "it never came true: {samples:#?}"
        );
        thread::yield_now();
    }
}

fn requests(route: &str, outcome: &str) -> String {
    format!(
        "llm_server_requests_total{{key=\"none\",model=\"{MODEL}\",outcome=\"{outcome}\",route=\"{route}\"}}"
    )
}

fn stream(server: &Server, max_tokens: u32) -> Stream {
    let body = json!({
        "prompt": "Once upon a time", "max_tokens": max_tokens, "ignore_eos": true, "stream": true,
    });
    Stream::open(&server.address.to_string(), COMPLETIONS, &body.to_string())
}

#[test]
fn after_requests_of_every_outcome_the_counters_say_exactly_so() {
    let server = Server::start(&[ONE]);
    let before = scrape(&server);
    assert_eq!(before["llm_server_generated_tokens_total"], 0.0);
    assert_eq!(before["llm_server_sequences"], 1.0);
    assert_eq!(before["llm_server_kv_capacity_tokens"], 2048.0);

    // Three answers; of the streamed one every piece of text is seen.
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(8);
    let (mut prompt_tokens, mut cached_tokens) = (0.0, 0.0);
    for _ in 0..2 {
        let body = json!({"prompt": prompt, "max_tokens": 5, "ignore_eos": true});
        let (status, answer) = server.post(COMPLETIONS, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{answer}");
        let usage = &serde_json::from_str::<Value>(&answer).unwrap()["usage"];
        prompt_tokens += usage["prompt_tokens"].as_f64().unwrap();
        cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
            .as_f64()
            .unwrap();
    }
    assert!(cached_tokens > 32.0);
    let five = |samples: &Samples| samples["llm_server_generated_tokens_total"] >= 10.0;
    let samples = scrape_until(&server, five);
    assert_eq!(samples["llm_server_generated_tokens_total"], 10.0);
    assert_eq!(samples["llm_server_prompt_tokens_total"], prompt_tokens);
    assert_eq!(
        samples["llm_server_cached_prompt_tokens_total"],
        cached_tokens
    );
    let computed = prompt_tokens - cached_tokens;
    assert_eq!(samples["llm_server_prefill_tokens_total"], computed);
    // Of the second prompt next to nothing was left to compute.
    assert_eq!(samples["llm_server_prefill_tokens_per_second_count"], 1.0);
    assert_eq!(samples["llm_server_decode_tokens_per_second_count"], 2.0);
    assert!(samples["llm_server_decode_seconds_total"] > 0.0);
    assert_eq!(samples["llamacpp:tokens_predicted_total"], 10.0);

    let gaps = samples["llm_server_inter_token_seconds_count"];
    let text = stream(&server, 7).rest();
    let pieces = text.lines().filter(|line| line.starts_with("data: {"));
    let said = pieces
        .filter(|line| !line.contains("\"text\":\"\""))
        .count();
    let over = |samples: &Samples| samples.get(&requests(COMPLETIONS, "length")) == Some(&3.0);
    let samples = scrape_until(&server, over);
    let more = samples["llm_server_inter_token_seconds_count"] - gaps;
    assert_eq!(more, said as f64 - 1.0, "{text}");

    // Two are refused, before anything is computed.
    assert_eq!(server.post(COMPLETIONS, "{").unwrap().0, 400);
    let other = r#"{"prompt": "a", "model": "other"}"#;
    assert_eq!(server.post(COMPLETIONS, other).unwrap().0, 404);

    // One runs, one waits, one finds the queue full; then both hang up.
    let mut running = stream(&server, 2000);
    running.event();
    // Its answer begins only with a sequence, so nothing is read.
    let mut waiting = TcpStream::connect(server.address).unwrap();
    let body = r#"{"prompt": "b"}"#;
    let length = body.len();
    let head = format!("POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}");
    write!(waiting, "{head}\r\n\r\n{body}").unwrap();
    scrape_until(&server, |samples| {
        samples["llm_server_requests_queued"] == 1.0
    });
    let full = server.post(COMPLETIONS, r#"{"prompt": "c"}"#).unwrap();
    assert_eq!(full.0, 429, "{}", full.1);
    drop(waiting);
    scrape_until(&server, |samples| {
        samples.get(&requests(COMPLETIONS, "hung_up")) == Some(&1.0)
    });
    drop(running);

    let samples = scrape_until(&server, |samples| {
        samples.get(&requests(COMPLETIONS, "hung_up")) == Some(&2.0)
            && samples["llm_server_requests_running"] == 0.0
    });
    let counts: BTreeMap<_, _> = samples
        .iter()
        .filter(|(name, _)| {
            name.starts_with("llm_server_requests_total") && name.contains(COMPLETIONS)
        })
        .map(|(name, &count)| (name.clone(), count))
        .collect();
    let expected = [
        ("length", 3.0),
        ("invalid_request_error", 1.0),
        ("model_not_found", 1.0),
        ("queue_full", 1.0),
        ("hung_up", 2.0),
    ];
    let expected = expected.map(|(outcome, count)| (requests(COMPLETIONS, outcome), count));
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(samples["llm_server_requests_cancelled_total"], 2.0);
    assert_eq!(samples["llm_server_requests_queued"], 0.0);
    // Four said something; with the one that only waited five were accepted, with the refused one six came so far.
    assert_eq!(samples["llm_server_time_to_first_token_seconds_count"], 4.0);
    assert_eq!(samples["llm_server_queue_wait_seconds_count"], 5.0);
    assert_eq!(samples["llm_server_request_duration_seconds_count"], 6.0);
    assert_eq!(samples["llm_server_decode_tokens_per_second_count"], 3.0);
    assert!(samples["llm_server_resident_memory_bytes"] > 50e6);
}

#[test]
fn a_request_is_found_in_the_journal_by_its_id() {
    let Some(journal) = Journal::open() else {
        return;
    };
    let mut service = journal.serve(&[ONE]);
    let address = service.address();
    service.hear("READY=1");
    let body = json!({"prompt": "Once upon a time", "max_tokens": 3, "ignore_eos": true});
    let (status, answer) = http::post(&address, COMPLETIONS, &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let usage = &serde_json::from_str::<Value>(&answer).unwrap()["usage"];

    let entry = journal.hear("ROUTE", COMPLETIONS);
    assert!(entry["REQUEST_ID"].starts_with("req_"), "{entry:?}");
    assert_eq!(entry["KEY"], "none");
    assert_eq!(entry["MODEL"], MODEL);
    assert_eq!(entry["OUTCOME"], "length");
    assert_eq!(entry["STATUS"], "200");
    assert_eq!(entry["TOKENS_IN"], usage["prompt_tokens"].to_string());
    assert_eq!(entry["TOKENS_OUT"], "3");
    assert_eq!(entry["TARGET"], "request");
    let number = |field: &str| entry[field].parse::<u64>().unwrap();
    assert!((1..=number("TOTAL_US")).contains(&number("TTFT_US")));
    let times = number("QUEUED_US") + number("PREFILL_US") + number("DECODE_US");
    assert!(times <= number("TOTAL_US"), "{entry:?}");
    let message = &entry["MESSAGE"];
    assert!(message.starts_with("/v1/completions length: "), "{message}");
    // Nothing that was said is logged.
    assert!(entry.values().all(|value| !value.contains("Once upon")));
}

#[test]
fn promtool_finds_no_fault_with_the_live_metrics() {
    let Some(promtool) = promtool() else {
        return;
    };
    let server = Server::start(&[ONE]);
    let body = r#"{"prompt": "Hello", "max_tokens": 2}"#;
    assert_eq!(server.post(COMPLETIONS, body).unwrap().0, 200);
    let (_, text) = server.get("/metrics").unwrap();
    // Their names are llama-server's, with colons that promtool wants to keep for rules.
    let ours = |line: &&str| !line.contains("llamacpp:");
    let text: String = text
        .lines()
        .filter(ours)
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    let faults = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && faults.is_empty(), "{faults}");
}

#[test]
fn promtool_accepts_the_alerts_with_their_tests_and_the_example_of_a_scrape() {
    let Some(promtool) = promtool() else {
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "scrape.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let mut command = Command::new(&promtool);
        succeed(command.args(arguments).current_dir(&folder));
    }
}

#[test]
fn every_expression_of_the_dashboard_can_be_read_by_prometheus() {
    let Some(promtool) = promtool() else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/grafana/llm-server.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let rules: Vec<_> = (0..)
        .zip(targets)
        .map(|(number, target)| {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$instance", "one");
            json!({"record": format!("expression:{number}"), "expr": expression})
        })
        .collect();
    assert!(rules.len() > 40);
    // Every JSON document is a YAML document.
    let file = tempfile::NamedTempFile::new().unwrap();
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(file.path(), rules.to_string()).unwrap();
    succeed(
        Command::new(&promtool)
            .args(["check", "rules"])
            .arg(file.path()),
    );
}

#[test]
fn grafana_knows_every_field_and_word_of_the_dashboard() {
    assert!(python::passes("dashboard/test_dashboard.py", &[]));
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `PROMTOOL`, or the one in the path (Debian's package `prometheus`); `None`, said on stderr, where there is none.
fn promtool() -> Option<PathBuf> {
    let program = env::var_os("PROMTOOL").map_or_else(|| "promtool".into(), PathBuf::from);
    let works = Command::new(&program).arg("--version").output();
    if works.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    eprintln!("not tested: promtool is not installed");
    None
}

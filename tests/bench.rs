//! `llm-server bench` as a user sees it: against the real server, against itself, and against servers that err.

#[path = "support/server.rs"]
mod server;
#[path = "support/sse_server.rs"]
mod sse_server;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::Path,
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use server::Server;
use sse_server::{SseServer, head, stream};

const SMALL: &str = "engine = {context = 1024, parallel = 2, threads = 1}";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n";

fn bench(arguments: &[&str]) -> Output {
    let output = server::command().arg("bench").args(arguments).output();
    output.expect("the binary can be started")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a report")).expect("JSON")
}

/// One request of three tokens, once, with a warm-up before it.
fn ask_once(server: &SseServer) -> Output {
    bench(&[
        &server.url,
        "--prompt-tokens",
        "8",
        "--max-tokens",
        "3",
        "--runs",
        "1",
    ])
}

#[test]
fn a_sweep_over_the_real_server_has_every_figure_its_memory_and_a_picture() {
    let server = Server::start(&[SMALL]);
    let folder = tempfile::tempdir().unwrap();
    let (report, picture) = (folder.path().join("a.json"), folder.path().join("a.svg"));
    let output = bench(&[
        &server.url(""),
        "--prompt-tokens=24",
        "--max-tokens=8",
        "--runs=2",
        "--concurrency=1,2",
        "--json",
        report.to_str().unwrap(),
        "--svg",
        picture.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.contains("24/8, 2 clients"), "{table}");

    let report = json(&report);
    let target = &report["targets"][0];
    assert_eq!(target["pid"], server.pid());
    let points = target["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    for (point, clients) in points.iter().zip([1, 2]) {
        assert_eq!(point["concurrency"], clients);
        assert_eq!(
            point["outcomes"],
            serde_json::json!({"answered": 2 * clients})
        );
        assert_eq!(point["without_usage"], 0);
        for metric in [
            "ttft_ms",
            "prompt_tps",
            "decode_tps",
            "total_tps",
            "gap_p99_ms",
            "rss_mib",
        ] {
            let runs = point["metrics"][metric]["runs"].as_array().unwrap();
            assert!(
                runs.len() == 2 && runs.iter().all(|run| run.as_f64() > Some(0.0)),
                "{metric}"
            );
        }
        assert!(point["gaps"]["max_ms"].as_f64() >= point["gaps"]["p50_ms"].as_f64());
    }
    let picture = fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
}

#[test]
fn without_a_url_it_measures_a_server_of_its_own_and_ends_it() {
    server::fetch_model();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("own.json");
    let output = bench(&[
        "--set",
        SMALL,
        "--prompt-tokens=8",
        "--max-tokens=4",
        "--runs=1",
        "--json",
        report.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json(&report);
    let target = &report["targets"][0];
    assert_eq!(target["points"][0]["outcomes"]["answered"], 1);
    assert!(target["points"][0]["metrics"]["rss_mib"]["median"].as_f64() > Some(10.0));
    let pid = Pid::from_raw(target["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    assert!(test_kill_process(pid).is_err(), "{pid:?} still runs");
}

#[test]
fn an_own_server_that_cannot_start_is_shown_with_its_own_words() {
    let output = bench(&["--set", "engine.parallel = 0"]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains("did not become ready (exit status: 2)"),
        "{error}"
    );
    assert!(error.contains("parallel"), "{error}");
}

#[test]
fn a_measurement_that_is_terminated_takes_its_own_server_with_it() {
    server::fetch_model();
    let mut bench = server::command()
        .args(["bench", "--set", SMALL, "--max-tokens=512", "--runs=1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    let address = first
        .strip_prefix("http://")
        .and_then(|it| it.split_once(": "));
    let (address, _) = address.expect(&first);
    kill_process(Pid::from_child(&bench), Signal::TERM).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(143));
    let deadline = Instant::now() + Duration::from_mins(1);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "{address} still answers");
        // Not our child: its port is all that can be watched.
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_conversation_sends_all_earlier_turns_again() {
    let server = SseServer::start(stream(&["x", "y", "z"], USAGE));
    let output = bench(&[
        &server.url,
        "--workload=multi-turn",
        "--runs=1",
        "--endpoint=chat",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let asked = server.asked();
    // The warm-up is a whole conversation too.
    assert_eq!(asked.len(), 12);
    let messages = |turn: usize| asked[6 + turn]["messages"].as_array().unwrap().clone();
    for turn in 1..6 {
        let (earlier, now) = (messages(turn - 1), messages(turn));
        assert_eq!(now.len(), 2 * turn + 1);
        assert_eq!(now[..earlier.len()], earlier[..]);
        assert_eq!(now[earlier.len()]["role"], "assistant");
        assert_eq!(now[earlier.len()]["content"], "xyz");
        assert_eq!(now[2 * turn]["role"], "user");
    }
    assert!(stdout(&output).contains("… of the last turn, ms"));
}

#[test]
fn a_field_that_is_null_in_the_extra_body_is_left_out() {
    let server = SseServer::start(stream(&["x", "y"], USAGE));
    let body = r#"{"ignore_eos": null, "top_k": 1}"#;
    let output = bench(&[&server.url, "--runs=1", "--prompt-tokens=4", "--body", body]);
    assert!(output.status.success(), "{}", stderr(&output));
    for asked in server.asked() {
        assert_eq!(asked["top_k"], 1);
        assert!(asked.get("ignore_eos").is_none(), "{asked}");
        assert_eq!(asked["stream_options"]["include_usage"], true);
    }
}

#[test]
fn a_server_without_usage_is_measured_by_words_and_events_and_this_is_said() {
    let output = ask_once(&SseServer::start(stream(&["x", "y"], "")));
    assert!(output.status.success(), "{}", stdout(&output));
    let table = stdout(&output);
    assert!(table.contains("prompt 8 tokens"), "{table}");
    assert!(table.contains("1 answers came without usage"), "{table}");
}

#[test]
fn what_a_server_does_wrong_is_told_and_fails() {
    let pretty = "{\n \"error\": {\n \"message\": \"no sequence is left\"}}";
    let broken = |answer: String| {
        let output = ask_once(&SseServer::start(answer));
        assert_eq!(output.status.code(), Some(1));
        stdout(&output)
    };
    for (answer, told) in [
        (
            head(500, "application/json") + pretty,
            "status 500: no sequence is left",
        ),
        (
            head(404, "text/html") + "<h1>nothing</h1>\nhere",
            "status 404: <h1>nothing</h1>\n",
        ),
        (
            head(200, "text/html") + "<p>hello",
            "status 200 with text/html instead of a stream: <p>hello",
        ),
        (
            head(200, "text/event-stream") + "data: {oops\n\n",
            "an event is no JSON",
        ),
        (
            head(200, "text/event-stream") + "\u{fffd}garbage\n\u{0}\n",
            "the stream ended without [DONE]",
        ),
        (
            stream(&["x", "y"], USAGE).replace("data: [DONE]\n\n", ""),
            "the stream ended without [DONE], after 2 events with text",
        ),
        (
            head(200, "text/event-stream") + "data: {\"error\": {\"message\": \"cut\"}}\n\n",
            "the stream says: cut",
        ),
        (String::new(), "broken 1"),
    ] {
        let table = broken(answer);
        assert!(table.contains(told), "{told:?} is not in\n{table}");
        assert!(!table.contains("NaN") && !table.contains("inf"), "{table}");
    }
}

#[test]
fn a_full_server_is_counted_but_no_fault() {
    let output = ask_once(&SseServer::start(head(429, "application/json") + "{}"));
    assert!(output.status.success());
    assert!(stdout(&output).contains("status_429 1"));
}

#[test]
fn reports_are_compared_by_exit_code_and_other_workloads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = SseServer::start(stream(&["x", "y", "z"], USAGE));
    let (a, other) = (path("a.json"), path("other.json"));
    assert!(
        bench(&[&server.url, "--workload=short", "--runs=2", "--json", &a])
            .status
            .success()
    );
    assert!(
        bench(&[&server.url, "--workload=long", "--runs=2", "--json", &other])
            .status
            .success()
    );

    let same = bench(&["compare", &a, &a, "--max-regression=0%"]);
    assert!(same.status.success(), "{}", stdout(&same));
    assert!(stdout(&same).contains("1.000"));

    let mut slower = json(Path::new(&a));
    let first = &mut slower["targets"][0]["points"][0]["metrics"]["ttft_ms"];
    for key in ["median", "min", "max"] {
        first[key] = 1e6.into();
    }
    first["runs"] = serde_json::json!([1e6, 1e6]);
    let b = path("b.json");
    fs::write(&b, slower.to_string()).unwrap();
    let worse = bench(&["compare", &a, &b, "--max-regression=5%"]);
    assert_eq!(worse.status.code(), Some(1));
    assert!(
        stdout(&worse).contains("worse than allowed"),
        "{}",
        stdout(&worse)
    );
    assert!(
        bench(&["compare", &b, &a, "--max-regression=5%"])
            .status
            .success()
    );

    let refused = bench(&["compare", &a, &other]);
    assert_eq!(refused.status.code(), Some(1));
    let error = stderr(&refused);
    assert!(
        error.contains("only A measured short") && error.contains("only B measured long"),
        "{error}"
    );
}

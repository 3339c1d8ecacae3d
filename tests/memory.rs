//! The limits that `plan --memory` prints, against what a working server takes.

#[path = "support/server.rs"]
mod server;

use std::{fs, thread};

use server::Server;

const SETTINGS: &[&str] = &[
    "engine = {context = 2048, parallel = 4}",
    "cache.ram = 256",
    "limits = {queue = 16, body_bytes = 1048576}",
];

fn plan(settings: &[&str]) -> (i32, String, String) {
    server::fetch_model();
    let mut command = server::command();
    command.args(["plan", "--memory"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

/// Bytes of a line such as `VmHWM:  1234 kB` of the process.
fn status(server: &Server, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap() * 1024
}

#[test]
fn a_server_under_load_stays_below_the_limit_and_above_what_it_is_to_keep() {
    let (code, limits, stderr) = plan(SETTINGS);
    assert_eq!(code, 0, "{stderr}");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {limits}"))
            .parse::<u64>()
            .unwrap()
    };
    let (max, low) = (limit("MemoryMax="), limit("MemoryLow="));
    assert_eq!(limits.lines().count(), 2, "{limits}");

    let server = Server::start(SETTINGS);
    thread::scope(|scope| {
        for at in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let words = format!("{at} and so on, ").repeat(80);
                let body = format!("{{\"prompt\": \"{words}\", \"max_tokens\": 8}}");
                let (status, answer) = server.post("/v1/completions", &body).unwrap();
                assert_eq!(status, 200, "{answer}");
            });
        }
    });
    let peak = status(&server, "VmHWM:");
    assert!(peak < max, "{peak} bytes were used, the limit is {max}");
    // Buffers are touched only as far as they are used: more than half is, under this load.
    assert!(
        peak > low / 2,
        "{peak} bytes were used, {low} are to be kept"
    );
    assert!(low < max);
}

#[test]
fn a_cache_without_a_bound_is_refused_by_its_name() {
    let (code, limits, stderr) = plan(&["cache.ram = 'auto"]);
    assert_eq!((code, limits.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("cache.ram"), "{stderr}");
}

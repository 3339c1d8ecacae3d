//! `llm-server replay`: asks a server the requests of a recording again, and tells where answers differ.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde_json::Value;

use super::Exit;
use crate::replay::{Answer, Entry};

/// Ask the requests of a recording again and compare the answers, tokens and log-probabilities.
///
/// `log.requests` in the configuration records. With `engine.reproducible = true` the same server gives identical
/// answers; a difference then names what has changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recording: one JSON object a line
    log: PathBuf,
    /// The server to ask
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// API key of the server
    #[arg(long, env = "LLM_SERVER_API_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Requests under way at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
}

/// What became of one request.
enum Outcome {
    Identical,
    Differs(String),
    Failed(String),
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match replay(args) {
        Ok(true) => Exit::Success.into(),
        Ok(false) => Exit::Failure.into(),
        Err(why) => {
            eprintln!("error: {why}");
            Exit::Usage.into()
        }
    }
}

/// Whether all answers were identical. `Err`: the recording cannot be read.
fn replay(args: &Args) -> Result<bool, String> {
    let entries = read(args)?;
    let threads = args.concurrency as usize;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let (tell, told) = std::sync::mpsc::channel();
    let agent = agent();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tell, next, entries, agent) = (tell.clone(), &next, &entries, agent.clone());
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(entry) = entries.get(at) else { break };
                    let _ = tell.send((at, ask(&agent, args, entry)));
                }
            });
        }
        drop(tell);
    });
    let mut outcomes: Vec<_> = told.into_iter().collect();
    outcomes.sort_by_key(|(at, _)| *at);
    let (mut lines, mut identical) = (Vec::new(), 0);
    for (at, outcome) in &outcomes {
        let id = &entries[*at].id;
        match outcome {
            Outcome::Identical => identical += 1,
            Outcome::Differs(what) => lines.push(format!("{} {id}: differs at {what}\n", at + 1)),
            Outcome::Failed(why) => lines.push(format!("{} {id}: {why}\n", at + 1)),
        }
    }
    lines.push(format!("{identical} of {} identical\n", entries.len()));
    Ok(super::say(lines.concat().as_bytes()) == Exit::Success && identical == entries.len())
}

fn read(args: &Args) -> Result<Vec<Entry>, String> {
    let path = args.log.display();
    let file = File::open(&args.log).map_err(|error| format!("cannot read {path}: {error}"))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(at, line)| {
            let line = line.map_err(|error| format!("{path}: {error}"))?;
            serde_json::from_str(&line).map_err(|error| format!("{path}, line {}: {error}", at + 1))
        })
        .collect()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_hours(1)))
        .build()
        .into()
}

fn ask(agent: &ureq::Agent, args: &Args, entry: &Entry) -> Outcome {
    let base = args.url.trim_end_matches('/').trim_end_matches("/v1");
    let mut request = agent.post(format!("{base}{}", entry.route));
    if let Some(key) = &args.key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let body = Value::Object(entry.request.clone());
    let mut response = match request.send_json(&body) {
        Ok(response) => response,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let status = response.status();
    let text = match response.body_mut().read_to_string() {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    if status != 200 {
        return Outcome::Failed(format!("status {status}: {}", text.trim()));
    }
    match Answer::read(&text) {
        Ok(answer) => match entry.answer.difference(&answer) {
            None => Outcome::Identical,
            Some(what) => Outcome::Differs(what),
        },
        Err(why) => Outcome::Failed(why),
    }
}

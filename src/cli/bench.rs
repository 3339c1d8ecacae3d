//! `llm-server bench`: measures any OpenAI-compatible server from outside, and compares two reports.

mod answer;
mod compare;
mod figures;
mod load;
mod memory;
mod metric;
mod options;
mod own;
mod plot;
mod process;
mod prompt;
mod report;
mod request;
mod stats;
mod stream;
mod table;
mod workload;

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use options::Measure;
use own::OwnServer;
use request::{Manner, Target};

/// Measures OpenAI-compatible servers, or compares two earlier reports.
///
/// Without a URL a server of this program is started, measured, and ended. Several URLs are measured in
/// turns (A B, B A, …), so that what disturbs one disturbs the other. Every conversation is new from its
/// first word on: no cache of earlier prompts can help. Times are wall-clock times of the client, taken at
/// each event with text; token counts are the server's own (`usage`). Memory is read after each run of
/// servers on this machine: resident from /proc, on GPUs from nvidia-smi; what cannot be read is shown as –.
/// Exits with 1 when a request broke.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  llm-server bench --workloads --set 'engine.parallel = 4'
  llm-server bench http://127.0.0.1:8080 --workload short,long --concurrency 1,2,4,8 --json a.json --svg a.svg
  llm-server bench http://127.0.0.1:8080 http://127.0.0.1:9090 --label ours --label theirs
  llm-server bench compare before.json after.json --max-regression 5%")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the ratios of medians B/A of two reports; exits 1 when B is worse than allowed.
    Compare(compare::Compare),
}

/// Runs the command: 0 when all was measured, 1 when a request broke or a regression was found.
pub fn run(args: &Args) -> ExitCode {
    let done = match &args.command {
        Some(Command::Compare(args)) => compare::run(args),
        None => measure(&args.measure),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why nothing could be measured or compared.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{path}: {cause}", path = path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{path} is not a report of `llm-server bench`: {cause}", path = path.display())]
    Report {
        path: PathBuf,
        cause: serde_json::Error,
    },
    #[error("{url}: {why}")]
    Server { url: String, why: String },
    #[error("{given} {option} for {urls} URLs: give one for each, or none")]
    Uneven {
        option: &'static str,
        given: usize,
        urls: usize,
    },
    #[error("the own server cannot be started: {0}")]
    Start(io::Error),
    #[error("the own server did not become ready ({status}):\n{log}")]
    OwnServer { status: ExitStatus, log: String },
    #[error(
        "{path} has the servers {labels}: name one of them, as {path}#LABEL",
        path = path.display()
    )]
    WhichServer { path: PathBuf, labels: String },
    #[error("the reports cannot be compared: {0}")]
    Different(String),
}

/// `true`: every request was answered, refused with 429, or hung up on purpose.
fn measure(options: &Measure) -> Result<bool, Error> {
    for path in [&options.json, &options.svg].into_iter().flatten() {
        can_write(path)?;
    }
    let (targets, _own) = targets(options)?;
    let seed = options.seed.unwrap_or_else(prompt::random_seed);
    let report = report::Report {
        tool: concat!("llm-server bench ", env!("CARGO_PKG_VERSION")).to_owned(),
        settings: report::Settings {
            endpoint: options.endpoint,
            runs: options.runs,
            seed,
            body: options.body.clone().unwrap_or_default(),
        },
        targets: load::measure(&targets, &workload::loads(options), options.runs, seed),
    };
    print!("{report}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &options.svg {
        write(path, &plot::svg(&report))?;
    }
    Ok(report.broken() == 0)
}

/// Better now than after an hour; an earlier report stays until there is a new one.
fn can_write(path: &Path) -> Result<(), Error> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|cause| Error::File {
        path: path.to_owned(),
        cause,
    })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|cause| Error::File {
        path: path.to_owned(),
        cause,
    })
}

/// Who is measured, and the own server where it is that.
fn targets(options: &Measure) -> Result<(Vec<Target>, Option<OwnServer>), Error> {
    let urls = options.urls.len();
    if urls == 0 {
        one_each("--label", options.labels.len(), 1)?;
        one_each("--pid", options.pids.len(), 0)?;
        let own = OwnServer::start(&options.own)?;
        let label = options.labels.first().map_or("llm-server", |label| label);
        let target = find(&own.url, label, Some(own.pid()), options)?;
        return Ok((vec![target], Some(own)));
    }
    one_each("--label", options.labels.len(), urls)?;
    one_each("--pid", options.pids.len(), urls)?;
    let target = |(index, url): (usize, &String)| {
        let label = options.labels.get(index).unwrap_or(url);
        let pid = options.pids.get(index).copied().filter(|&pid| pid != 0);
        find(url, label, pid, options)
    };
    let targets: Result<_, Error> = options.urls.iter().enumerate().map(target).collect();
    Ok((targets?, None))
}

fn one_each(option: &'static str, given: usize, urls: usize) -> Result<(), Error> {
    if given == 0 || given == urls {
        return Ok(());
    }
    Err(Error::Uneven {
        option,
        given,
        urls,
    })
}

fn find(url: &str, label: &str, pid: Option<u32>, options: &Measure) -> Result<Target, Error> {
    let manner = Manner {
        endpoint: options.endpoint,
        key: options.api_key.clone(),
        body: options.body.clone().unwrap_or_default(),
        timeout: Duration::from_secs(options.timeout),
    };
    Target::find(url, label, options.model.as_deref(), pid, manner)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["bench"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn compare_takes_two_reports_and_no_url() {
        let args = parse(&["compare", "a.json", "b.json", "--max-regression", "5%"]).unwrap();
        assert!(args.command.is_some());
        assert!(parse(&["compare", "a.json"]).is_err());
    }

    #[test]
    fn labels_and_processes_are_one_for_each_url() {
        assert!(one_each("--pid", 0, 2).is_ok() && one_each("--pid", 2, 2).is_ok());
        let error = one_each("--label", 1, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 --label for 2 URLs: give one for each, or none"
        );
    }
}

//! `llm-server bench`: measures any OpenAI-compatible server from outside, and compares two reports.

mod compare;
mod load;
mod prompt;
mod report;
mod request;
mod stats;
mod stream;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use request::{Endpoint, Target};

/// Measures OpenAI-compatible servers, or compares two earlier reports.
///
/// Several URLs are measured in turns (A B, B A, …), so that what disturbs one disturbs the other.
/// Every prompt is new from its first word on: no prefix cache can help. Times are wall-clock times
/// of the client; token counts are the server's own (`usage`).
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the ratios of medians B/A of two reports; exits 1 when B is worse than allowed.
    Compare {
        /// The report to compare with.
        a: PathBuf,
        /// The report in question.
        b: PathBuf,
        /// How much worse a median may be, such as `5%`.
        #[arg(long, value_name = "PERCENT", value_parser = compare::percent)]
        max_regression: Option<f64>,
    },
}

#[derive(Debug, clap::Args)]
struct Measure {
    /// Base URLs such as `http://127.0.0.1:8080`, with or without `/v1`.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Names of the URLs in tables and reports, in the same order.
    #[arg(long = "label", value_name = "NAME")]
    labels: Vec<String>,
    /// Model to ask for; without it, the first that the server lists.
    #[arg(long)]
    model: Option<String>,
    /// Lengths of the prompts, in words of about one token each.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    prompt_tokens: Vec<u32>,
    /// Tokens to generate for each request (`ignore_eos` is asked for).
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Numbers of simultaneous clients.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    concurrency: Vec<u32>,
    /// Measured runs of each combination, after one that is thrown away.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Requests of one run; without it, one for each client.
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// One load of mixed sizes: each request takes one of the prompt lengths and up to `--max-tokens`.
    #[arg(long)]
    mixed: bool,
    /// Share of the clients that hang up midway, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    hangup: f64,
    /// Where to ask.
    #[arg(long, value_enum, default_value_t = Endpoint::Completions)]
    endpoint: Endpoint,
    /// JSON object whose fields are added to every request body.
    #[arg(long, value_name = "JSON", value_parser = object)]
    body: Option<serde_json::Map<String, serde_json::Value>>,
    /// Equal seeds give equal prompts; without it, they differ each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after which one request counts as broken.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// API key.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

/// Runs the command: 0 when all was measured, 1 when a request broke or a regression was found.
pub fn run(args: &Args) -> ExitCode {
    let done = match &args.command {
        Some(Command::Compare {
            a,
            b,
            max_regression,
        }) => compare::files(a, b, *max_regression),
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
    #[error("{path}: {cause}")]
    File {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{path} is not a report of `llm-server bench`: {cause}")]
    Report {
        path: PathBuf,
        cause: serde_json::Error,
    },
    #[error("{url}: {why}")]
    Server { url: String, why: String },
    #[error("{0} --label for {1} URLs: give one for each, or none")]
    Labels(usize, usize),
    #[error("the reports have no measurement in common: same prompts and concurrency are needed")]
    NothingInCommon,
}

/// `true`: every request was answered, refused with 429, or hung up on purpose.
fn measure(args: &Measure) -> Result<bool, Error> {
    let targets = targets(args)?;
    let seed = args.seed.unwrap_or_else(prompt::random_seed);
    let report = report::Report {
        tool: concat!("llm-server bench ", env!("CARGO_PKG_VERSION")).to_owned(),
        settings: report::Settings {
            endpoint: args.endpoint,
            max_tokens: args.max_tokens,
            runs: args.runs,
            hangup: args.hangup,
            mixed: args.mixed,
            seed,
        },
        targets: load::measure(&targets, &mixes(args), args.runs, seed),
    };
    print!("{report}");
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
        fs::write(path, text + "\n").map_err(|cause| Error::File {
            path: path.clone(),
            cause,
        })?;
    }
    Ok(report.broken() == 0)
}

fn targets(args: &Measure) -> Result<Vec<Target>, Error> {
    if !args.labels.is_empty() && args.labels.len() != args.urls.len() {
        return Err(Error::Labels(args.labels.len(), args.urls.len()));
    }
    let target = |(index, url): (usize, &String)| {
        Target::find(
            url,
            args.labels.get(index).unwrap_or(url),
            args.model.as_deref(),
            request::Manner {
                endpoint: args.endpoint,
                key: args.api_key.clone(),
                body: args.body.clone().unwrap_or_default(),
                timeout: Duration::from_secs(args.timeout),
            },
        )
    };
    args.urls.iter().enumerate().map(target).collect()
}

/// Every combination that is measured on its own.
fn mixes(args: &Measure) -> Vec<load::Mix> {
    let lengths: Vec<Vec<u32>> = if args.mixed {
        vec![args.prompt_tokens.clone()]
    } else {
        args.prompt_tokens.iter().map(|&n| vec![n]).collect()
    };
    let mix = |prompt_words: &Vec<u32>, clients: u32| load::Mix {
        prompt_words: prompt_words.clone(),
        answers: if args.mixed {
            load::Answers::UpTo(args.max_tokens)
        } else {
            load::Answers::Exactly(args.max_tokens)
        },
        clients,
        requests: args.requests.unwrap_or(clients),
        hangup: args.hangup,
    };
    lengths
        .iter()
        .flat_map(|words| args.concurrency.iter().map(|&clients| mix(words, clients)))
        .collect()
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1 is expected".to_owned()),
    }
}

fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("a JSON object is expected: {error}"))
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
    fn a_url_alone_is_enough() {
        let args = parse(&["http://127.0.0.1:1"]).unwrap();
        assert!(args.command.is_none());
        assert_eq!(args.measure.prompt_tokens, [512]);
    }

    #[test]
    fn without_a_url_there_is_nothing_to_measure() {
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn compare_needs_no_url() {
        let args = parse(&["compare", "a.json", "b.json", "--max-regression", "5%"]).unwrap();
        assert!(args.command.is_some());
    }

    #[test]
    fn every_length_meets_every_concurrency_unless_mixed() {
        let words = ["u", "--prompt-tokens", "16,512", "--concurrency", "1,4,8"];
        assert_eq!(mixes(&parse(&words).unwrap().measure).len(), 6);
        let mixed = [&words[..], &["--mixed"]].concat();
        assert_eq!(mixes(&parse(&mixed).unwrap().measure).len(), 3);
    }

    #[test]
    fn a_share_above_one_is_refused() {
        assert!(parse(&["u", "--hangup", "20"]).is_err());
        assert!(parse(&["u", "--hangup", "NaN"]).is_err());
    }
}

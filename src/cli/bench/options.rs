//! The command line of a measurement.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{request::Endpoint, workload::Workload};

/// What to measure, how, and where to write it.
#[derive(Debug, clap::Args)]
pub(super) struct Measure {
    /// Base URLs such as `http://127.0.0.1:8080`, with or without `/v1`. Without one, this program starts
    /// its own server and measures that.
    #[arg(value_name = "URL")]
    pub(super) urls: Vec<String>,
    /// Names of the URLs in tables and reports, in the same order.
    #[arg(long = "label", value_name = "NAME")]
    pub(super) labels: Vec<String>,
    /// Model to ask for; without it, the first that the server lists.
    #[arg(long)]
    pub(super) model: Option<String>,
    /// Where to ask.
    #[arg(long, value_enum, default_value_t = Endpoint::Completions)]
    pub(super) endpoint: Endpoint,
    /// JSON object whose fields are added to every request body; a field that is null is left out, such as
    /// `{"ignore_eos": null}` for servers that refuse what they do not know.
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub(super) body: Option<Map<String, Value>>,
    /// API key.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true)]
    pub(super) api_key: Option<String>,
    /// Process of each URL, in the same order, whose memory is measured; 0 or nothing: found by its port.
    #[arg(long = "pid", value_name = "PID")]
    pub(super) pids: Vec<u32>,
    /// Seconds after which one request counts as broken.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: u64,

    /// Workloads with names, one or more.
    #[arg(
        long,
        value_enum,
        value_name = "NAME,…",
        value_delimiter = ',',
        help_heading = "Load"
    )]
    #[arg(conflicts_with_all = ["workloads", "prompt_tokens", "max_tokens", "mixed"])]
    pub(super) workload: Vec<Workload>,
    /// All four workloads.
    #[arg(long, help_heading = "Load")]
    #[arg(conflicts_with_all = ["prompt_tokens", "max_tokens", "mixed"])]
    pub(super) workloads: bool,
    /// Instead of workloads: lengths of the prompts, in words of about one token each.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "512",
        help_heading = "Load"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prompt_tokens: Vec<u32>,
    /// Instead of workloads: tokens to generate for each request (`ignore_eos` is asked for).
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Load")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tokens: u32,
    /// One load of mixed sizes: each request takes one of the prompt lengths and up to `--max-tokens`.
    #[arg(long, help_heading = "Load")]
    pub(super) mixed: bool,
    /// Numbers of simultaneous clients.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1",
        help_heading = "Load"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) concurrency: Vec<u32>,
    /// Measured runs of each combination, after one that is thrown away.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Load")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
    /// Requests (or conversations) of one run; without it, one for each client.
    #[arg(long, value_name = "N", help_heading = "Load")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) requests: Option<u32>,
    /// Share of the clients that hang up midway, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share, help_heading = "Load")]
    pub(super) hangup: f64,
    /// Equal seeds give equal prompts; without it, they differ each time.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) seed: Option<u64>,

    /// Also write the report to this file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Also draw first token, decoding and total speed to this file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) svg: Option<PathBuf>,

    #[command(flatten)]
    pub(super) own: Own,
}

/// The server that is started when no URL is given: the options of `serve`.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Without a URL")]
pub(super) struct Own {
    /// Configuration of the server, as `serve` takes it.
    #[arg(long, value_name = "FILE", conflicts_with = "urls")]
    pub(super) config: Option<PathBuf>,
    /// Override a setting of the server, such as --set 'engine.parallel = 8' (may be repeated).
    #[arg(long, value_name = "PATH = VALUE", conflicts_with = "urls")]
    pub(super) set: Vec<String>,
    /// Lock file of the server.
    #[arg(long, value_name = "PATH", conflicts_with = "urls")]
    pub(super) lock: Option<PathBuf>,
    /// Measure with this GGUF file, which need not be in the lock.
    #[arg(long, value_name = "PATH", conflicts_with = "urls")]
    pub(super) model_file: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1 is expected".to_owned()),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("a JSON object is expected: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{
        super::workload::{Answer, loads},
        *,
    };

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Measure,
    }

    fn parse(words: &[&str]) -> Result<Measure, clap::Error> {
        Line::try_parse_from([&["bench"], words].concat()).map(|line| line.options)
    }

    #[test]
    fn a_url_alone_is_enough() {
        let loads = loads(&parse(&["http://127.0.0.1:1"]).unwrap());
        assert_eq!(loads.len(), 1);
        assert_eq!(loads[0].prompt_words, [512]);
        assert_eq!(loads[0].answer, Answer::Exactly(128));
    }

    #[test]
    fn the_settings_of_an_own_server_are_refused_beside_a_url() {
        assert!(parse(&["--set", "engine.parallel = 2"]).is_ok());
        assert!(parse(&["http://127.0.0.1:1", "--set", "engine.parallel = 2"]).is_err());
    }

    #[test]
    fn every_length_meets_every_concurrency_unless_mixed() {
        let words = ["u", "--prompt-tokens", "16,512", "--concurrency", "1,4,8"];
        assert_eq!(loads(&parse(&words).unwrap()).len(), 6);
        let mixed = [&words[..], &["--mixed"]].concat();
        assert_eq!(loads(&parse(&mixed).unwrap()).len(), 3);
    }

    #[test]
    fn workloads_are_chosen_by_name_and_all_at_once_and_have_their_own_sizes() {
        let names = |words: &[&str]| -> Vec<String> {
            let loads = loads(&parse(words).unwrap());
            loads.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names(&["u", "--workload", "long,multi-turn", "--concurrency", "1,2"]),
            [
                "long, 1 client",
                "long, 2 clients",
                "multi-turn, 1 client",
                "multi-turn, 2 clients"
            ]
        );
        assert_eq!(names(&["u", "--workloads"]).len(), 4);
        assert!(parse(&["u", "--workloads", "--prompt-tokens", "5"]).is_err());
        assert!(parse(&["u", "--workload", "short", "--max-tokens", "5"]).is_err());
    }

    #[test]
    fn shares_above_one_and_loads_of_nothing_are_refused() {
        assert!(parse(&["u", "--hangup", "20"]).is_err());
        assert!(parse(&["u", "--hangup", "NaN"]).is_err());
        for none in ["--concurrency", "--requests", "--runs", "--prompt-tokens"] {
            assert!(parse(&["u", none, "0"]).is_err(), "{none}");
        }
    }
}

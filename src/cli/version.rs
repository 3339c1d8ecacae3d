//! `llm-server version`: what this binary is made of and, with a configuration, what it would serve.

use std::process::ExitCode;

use serde_json::Value;

use super::{Exit, complain, configured::Configured};
use crate::{engine::llama, log, serve};

/// Prints versions, backends, CPU features and digests, as `GET /version` does.
///
/// The model's digest is the pinned one; nothing is loaded or hashed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server version
  llm-server version --json | jq -r .system_fingerprint")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,
    /// One JSON object, the same that `GET /version` answers.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let loaded = match args.configured.load() {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    // Only what is wrong: the answer belongs to stdout alone.
    let _ = log::start("error");
    if let Err(error) = llama::init(|why| eprintln!("error: {why}")) {
        complain(&error);
        return Exit::Failure.into();
    }
    let origins = super::origins(&loaded, serve::Absent::Refuse);
    let version = match serve::version(&loaded.config, &origins) {
        Ok(version) => version,
        Err(failure) => {
            complain(&failure);
            return Exit::from(&failure).into();
        }
    };
    let text = if args.json {
        format!("{version:#}\n")
    } else {
        table(&version)
    };
    super::say(text.as_bytes()).into()
}

/// A line for each field, nested ones by their path.
fn table(version: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", version, &mut lines);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |table, (name, text)| {
        table + &format!("{name:width$}  {text}\n")
    })
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&path, field, lines);
            }
        }
        Value::Array(items) => {
            let words: Vec<_> = items.iter().map(word).collect();
            lines.push((path.into(), words.join(", ")));
        }
        other => lines.push((path.into(), word(other))),
    }
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::table;

    #[test]
    fn nested_fields_are_shown_by_their_path() {
        let version =
            json!({"version": "1", "cpu_features": ["AVX", "AVX2"], "model": {"name": "tiny"}});
        insta::assert_snapshot!(table(&version), @r"
        version       1
        cpu_features  AVX, AVX2
        model.name    tiny
        ");
    }
}

//! `llm-server doctor`: whether this machine can do what the configuration asks of it, and how to cure what is wrong.

mod address;
mod cpu;
mod disk;
mod finding;
mod gpu;
mod keys;
mod memory;
mod model;
mod process;
mod store;
mod workers;

use std::{fmt::Write as _, process::ExitCode};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::json;

use self::finding::{Finding, Verdict};
use super::{
    Exit,
    configured::{Configured, ConfiguredError, Loaded},
    plan::terminal::Terminal,
};
use crate::{
    config::ConfigError,
    engine::{
        fit::{self, FitError, Plan},
        llama,
    },
    log,
    serve::{Absent, Origin, files},
};

/// Examines machine, configuration, model and surroundings, a line each, and says how to cure what is wrong.
///
/// Nothing is changed but a digest that is remembered, and a temporary file where the disk's speed cannot be
/// measured otherwise. Run it as the user that serves: what root may read and lock says nothing about others.
///
/// Exit status 0: nothing is wrong enough to fail. 1: something is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server doctor
  llm-server doctor /etc/llm-server/config.ncl --json | jq '.findings[] | select(.verdict != \"ok\")'
  systemd-run --pipe --uid=llm-server -p LimitMEMLOCK=8M llm-server doctor")]
pub struct Args {
    #[command(flatten)]
    configured: Configured,
    /// One JSON object: `ok`, and `findings` with `subject`, `verdict`, `found` and `cure`
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    // What is wrong is told as findings.
    let _ = log::start("off");
    let findings = examine(&args.configured);
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let terminal = Terminal::of_stdout();
    let text = if args.json {
        let ok = worst < Some(Verdict::Fail);
        format!("{:#}\n", json!({"ok": ok, "findings": findings}))
    } else {
        findings.iter().map(|it| line(it, terminal)).collect()
    };
    match (super::say(text.as_bytes()), worst) {
        (Exit::Success, Some(Verdict::Fail)) => Exit::Failure.into(),
        (said, _) => said.into(),
    }
}

/// What can be examined once the configuration is right.
struct Patient<'a> {
    loaded: &'a Loaded,
    origin: Origin,
    /// What would lie where; `None`: there is no file to plan for, or a worker is not there.
    plan: Option<Result<Plan, FitError>>,
}

fn examine(configured: &Configured) -> Vec<Finding> {
    let loaded = configured.load();
    let mut findings = vec![configuration(loaded.as_ref())];
    let loaded = loaded.ok();
    let config = loaded.as_ref().map(|loaded| &loaded.config);
    findings.extend(engine());
    findings.extend(cpu::findings(config.map(|config| &config.engine)));
    findings.extend(gpu::findings(config.map(|config| &config.engine)));
    if let Some(loaded) = &loaded {
        let of_workers = workers::findings(&loaded.config.engine.rpc);
        let can_plan = of_workers.iter().all(|it| it.verdict == Verdict::Ok);
        findings.extend(of_workers);
        let origin = super::origin(loaded, Absent::Refuse);
        let (of_model, file) = model::finding(&origin);
        let plan = file
            .as_ref()
            .filter(|_| can_plan)
            .map(|file| fit::fit_as(loaded.config.model.kind, file, &loaded.config.engine));
        let patient = Patient {
            loaded,
            origin,
            plan,
        };
        findings.push(of_model);
        findings.extend(memory::plan(&patient));
        findings.push(memory::lockable(&patient));
        findings.extend(disk::finding(patient.origin.size(), file.as_deref()));
        findings.push(store::finding(&patient.origin, file.as_deref()));
        findings.push(keys::finding(&loaded.config.auth));
        findings.push(address::finding(&loaded.config.listen));
    }
    findings.push(memory::huge_pages());
    findings.push(process::systemd());
    findings.push(process::clock());
    findings
}

fn configuration(loaded: Result<&Loaded, &ConfiguredError>) -> Finding {
    const SUBJECT: &str = "configuration";
    const CURE: &str =
        "correct it; `llm-server check` shows the same, `llm-server schema` all that is accepted";
    match loaded {
        Ok(loaded) => match files::template(&loaded.config) {
            Ok(_) => Finding::ok(SUBJECT, format!("{} is right", loaded.source)),
            Err(failure) => {
                let cure = "let model.chat_template name a file that the server's user may read";
                Finding::fail(SUBJECT, failure.to_string(), cure)
            }
        },
        Err(ConfiguredError::Config(error @ ConfigError::Refused { .. })) => {
            Finding::fail(SUBJECT, error.to_string(), CURE)
        }
        Err(error) => Finding::fail(SUBJECT, error.to_string(), CURE),
    }
}

/// Silent when it is well: everything after it shows that.
fn engine() -> Option<Finding> {
    let error = llama::init(|why| eprintln!("error: {why}")).err()?;
    let cure = "install the package whole: its libggml-*.so belong into `backends` beside the binary or into \
                ../lib/llm-server/backends";
    Some(Finding::fail("engine", error.to_string(), cure))
}

/// Subject, verdict and what was found; the cure below it.
fn line(finding: &Finding, terminal: Terminal) -> String {
    const SUBJECT: usize = 15;
    const INDENT: usize = SUBJECT + 6;
    let colour = match finding.verdict {
        Verdict::Ok => AnsiColor::Green,
        Verdict::Warn => AnsiColor::Yellow,
        Verdict::Fail => AnsiColor::Red,
    };
    let verdict = format!("{:4}", finding.verdict.word());
    let mut text = format!(
        "{:SUBJECT$} {} ",
        finding.subject,
        terminal.paint(colour.on_default().bold(), verdict)
    );
    let inside = Terminal {
        columns: terminal.columns.saturating_sub(INDENT).max(30),
        ..terminal
    };
    let indented = |text: &str| {
        let lines: Vec<_> = text
            .lines()
            // Drawings keep their columns.
            .map(|line| {
                if line.starts_with(' ') {
                    line.to_owned()
                } else {
                    inside.wrap(line)
                }
            })
            .collect();
        lines.join("\n").replace('\n', &format!("\n{:INDENT$}", ""))
    };
    text += &indented(finding.found.trim_end());
    text.push('\n');
    if let Some(cure) = &finding.cure {
        let arrow = terminal.paint(Style::new().bold(), "→");
        let _ = writeln!(text, "{:INDENT$}{arrow} {}", "", indented(cure));
    }
    text
}

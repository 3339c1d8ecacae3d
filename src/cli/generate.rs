//! `llm-server generate`: one answer on the terminal, through the same engine, without a server.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Exit, complain,
    configured::{Configured, Loaded as Configuration},
};
use crate::{
    api::Work,
    chat::{ChatError, Delta, Parser, Rendered},
    config::{Kind, Limits},
    engine::{
        Adapters, Claimant, Enough, Event, Failed, Finish, Finished, Grammar, Job, Refused,
        Sampling, fit, llama, model::Vocab, threads,
    },
    log,
    serve::{
        self, Absent, Failure,
        load::{Loaded, load},
        locate::Proved,
        states::States,
    },
};

/// Answers one prompt on the terminal and exits.
///
/// The prompt is one message of the user, put through the model's chat template; `--raw` gives it to
/// the model as it is. The answer goes to stdout; everything else goes to stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  llm-server generate 'What is the capital of France?' --temperature 0
  git diff | llm-server generate - --max-tokens 200
  llm-server generate 'Once upon a time' --raw --model-file model.gguf")]
pub struct Args {
    /// The prompt; `-` reads it from stdin.
    #[arg(value_name = "PROMPT")]
    prompt: String,
    #[command(flatten)]
    configured: Configured,
    /// Most tokens to generate [default: what is left of the context].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// 0 always takes the most likely token; higher values give more varied text.
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = temperature)]
    temperature: f32,
    /// The same seed gives the same answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u32,
    /// Continue the prompt as it is, without the chat template.
    #[arg(long)]
    raw: bool,
    /// Download the model first if it is missing.
    #[arg(long)]
    fetch: bool,
}

#[derive(Debug, thiserror::Error)]
enum GenerateError {
    #[error("the prompt is empty")]
    Empty,
    #[error("the prompt cannot be read from stdin: {0}")]
    Stdin(io::Error),
    #[error(transparent)]
    Serve(#[from] Failure),
    #[error("the prompt cannot be put into the chat template: {0}")]
    Chat(#[from] ChatError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error("the answer cannot be written: {0}")]
    Output(io::Error),
    #[error("the engine ended without a word")]
    Silence,
}

impl From<&GenerateError> for Exit {
    fn from(error: &GenerateError) -> Self {
        match error {
            GenerateError::Serve(failure) => failure.into(),
            GenerateError::Empty | GenerateError::Stdin(_) | GenerateError::Refused(_) => {
                Self::Usage
            }
            GenerateError::Silence => Self::EngineDied,
            GenerateError::Chat(_) | GenerateError::Failed(_) | GenerateError::Output(_) => {
                Self::Failure
            }
        }
    }
}

pub fn run(args: &Args) -> ExitCode {
    let loaded = match args.configured.load() {
        Ok(loaded) => loaded,
        Err(error) => return error.report(),
    };
    if let Some(poll) = loaded.config.engine.poll {
        threads::spin(Some(poll));
    }
    // Of the log only what is wrong: the answer is what was asked for.
    let _ = log::start("warn");
    let exit = match answer(args, &loaded) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&error);
            Exit::from(&error)
        }
    };
    // As in `serve`: no exit hooks under running threads.
    signal_hook::low_level::exit(exit.into())
}

fn answer(args: &Args, loaded: &Configuration) -> Result<(), GenerateError> {
    let prompt = prompt(&args.prompt)?;
    let origins = super::origins(loaded, absent(args));
    let template = serve::files::template(&loaded.config)?;
    let proved = Proved {
        projector: None, // there are no pictures on a terminal
        ..origins.prove().map_err(Failure::from)?
    };
    llama::init(|why| {
        eprintln!("error: the engine died: {why}");
        signal_hook::low_level::exit(Exit::EngineDied.into())
    })
    .map_err(|error| Failure::Load(error.into()))?;
    // Whatever else the model may be served for.
    let files = proved.files();
    let plan = fit::fit_all(Kind::Chat, files, &loaded.config.engine)
        .map_err(|error| Failure::Load(error.into()))?;
    let model = load(
        files,
        plan,
        &loaded.config,
        &States::default(),
        template.as_deref(),
        &mut |_| true,
    )
    .map_err(Failure::Load)?;
    let Work::Generate { engine, chat, .. } = &model.work else {
        return Err(GenerateError::Silence); // it was planned to generate
    };
    let message = json!({"messages": [{"role": "user", "content": prompt}]});
    let rendered = (!args.raw).then(|| chat.render(&message)).transpose()?;
    let loras = serve::adapters::loras(&loaded.config.model.adapters, &proved);
    let mut job = job(
        args,
        &loaded.config.limits,
        &model,
        &prompt,
        rendered.as_ref(),
    );
    let adapters = loras.map_err(Failure::Load)?.usual(&job.prompt);
    job.adapters = adapters.unwrap_or_default(); // the scales were checked
    let events = engine.submit(job)?;
    let finished = print(events, rendered.as_ref())?;
    if finished.reason == Finish::Length {
        eprintln!("(cut after {} tokens)", finished.usage.completion_tokens);
    }
    Ok(())
}

fn absent(args: &Args) -> Absent {
    if args.fetch {
        Absent::Fetch
    } else {
        Absent::Refuse
    }
}

fn prompt(argument: &str) -> Result<String, GenerateError> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(GenerateError::Stdin)?;
    }
    if text.trim().is_empty() {
        Err(GenerateError::Empty)
    } else {
        Ok(text)
    }
}

fn job(
    args: &Args,
    limits: &Limits,
    model: &Loaded,
    prompt: &str,
    rendered: Option<&Rendered>,
) -> Job {
    let vocab = &model.weights;
    let text = rendered.map_or(prompt, |rendered| &rendered.prompt);
    let tokens = vocab.tokenize(text, true, rendered.is_some());
    let visible = rendered.map_or(&[][..], |rendered| &rendered.preserved);
    Job {
        prompt: tokens,
        media: Vec::new(),
        max_tokens: args.max_tokens.or(limits.max_tokens).unwrap_or(u32::MAX),
        shift: None,
        forgotten: 0,
        sampling: Sampling {
            temperature: args.temperature,
            seed: args.seed,
            ..Sampling::default()
        },
        grammar: rendered
            .and_then(|rendered| rendered.grammar.clone())
            .map(Grammar::Gbnf),
        stop: rendered.map_or_else(Vec::new, |rendered| rendered.stops.clone()),
        enough: Enough::default(),
        visible: visible
            .iter()
            .flat_map(|text| vocab.tokenize(text, false, true))
            .collect(),
        stop_tokens: Vec::new(),
        prediction: Vec::new(),
        ignore_eos: false,
        score_prompt: false,
        min_tokens: 0,
        logprobs: None,
        tenant: Some(0),
        adapters: Adapters::default(),
        claimant: Claimant::default(),
        queue_wait: Duration::MAX,
        deadline: Duration::MAX,
    }
}

/// Writes the answer to stdout as it comes, and a model's reasoning to stderr.
fn print(
    mut events: UnboundedReceiver<Event>,
    rendered: Option<&Rendered>,
) -> Result<Finished, GenerateError> {
    let mut parser = rendered.map(Parser::new).transpose()?;
    let mut out = io::stdout().lock();
    loop {
        let (deltas, finished) = match events.blocking_recv().ok_or(GenerateError::Silence)? {
            Event::Started { .. } | Event::Prompt(_) => continue,
            Event::Text(piece) => match &mut parser {
                Some(parser) => (parser.push(&piece.text), None),
                None => (
                    vec![Delta {
                        content: Some(piece.text),
                        ..Delta::default()
                    }],
                    None,
                ),
            },
            Event::End(end) => (
                parser.as_mut().map_or_else(Vec::new, Parser::finish),
                Some(end?),
            ),
        };
        for delta in deltas {
            if let Some(text) = delta.reasoning_content {
                eprint!("{text}");
            }
            let text = delta.content.unwrap_or_default();
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .map_err(GenerateError::Output)?;
        }
        if let Some(finished) = finished {
            writeln!(out).map_err(GenerateError::Output)?;
            return Ok(finished);
        }
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 100".into()),
    }
}

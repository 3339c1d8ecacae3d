//! `llm-server check`: whether a configuration is right, and what it comes to.

use std::{fmt::Write as _, process::ExitCode};

use super::configured::{Configured, Loaded};
use crate::{
    config::{AuthConfig, FlashAttention, GpuLayers, Load, Mtp, Speculate},
    report::size,
};

/// Checks a configuration and prints what it comes to. Nothing is loaded or opened.
///
/// Exit status 0: the configuration is right. 2: it is not; the message shows file, line and place,
/// and says what would be accepted.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub configured: Configured,
}

pub fn run(args: &Args) -> ExitCode {
    match args.configured.load() {
        Ok(loaded) => super::say(summary(&loaded).as_bytes()).into(),
        Err(error) => error.report(),
    }
}

/// Who guesses, if anybody does.
fn guesses(speculate: &Speculate) -> Option<String> {
    let draft = speculate.draft.as_ref().map(|name| format!("by {name}"));
    let mtp = match speculate.mtp {
        Mtp::Off => None,
        Mtp::On => Some("by the model's prediction layers".to_owned()),
        Mtp::Auto => Some("by the model's prediction layers, if its file has them".to_owned()),
    };
    let ngram = "from what was said before".to_owned();
    let ngram = speculate.ngram.then_some(ngram);
    let all: Vec<_> = [draft, mtp, ngram].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// What a configuration comes to, for people.
pub fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let (model, engine, limits) = (&config.model, &config.engine, &config.limits);
    let mut text = format!("{} is right\n", loaded.source);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("listen", config.listen.to_string());
    line("model", format!("{}, {}", model.name, weights(loaded)));
    if !model.aliases.is_empty() {
        line("aliases", model.aliases.join(", "));
    }
    if let Some(projector) = &model.projector {
        line("projector", projector.clone());
    }
    if !model.adapters.is_empty() {
        let adapters = model.adapters.iter();
        let adapters = adapters.map(|adapter| format!("{} × {}", adapter.name, adapter.scale));
        line("adapters", adapters.collect::<Vec<_>>().join(", "));
    }
    if let Some(template) = &model.chat_template {
        line("template", template.display().to_string());
    }
    line(
        "context",
        format!("{} tokens × {} sequences", engine.context, engine.parallel),
    );
    if let Some(guesses) = guesses(&engine.speculate) {
        line("guesses", guesses);
    }
    line(
        "KV cache",
        format!(
            "keys {}, values {}, flash attention {}",
            engine.kv.k.name(),
            engine.kv.v.name(),
            match engine.flash_attention {
                FlashAttention::Auto => "auto",
                FlashAttention::On => "on",
                FlashAttention::Off => "off",
            }
        ),
    );
    line(
        "threads",
        format!(
            "{} to generate, {} to read prompts",
            or(engine.threads, "auto"),
            or(engine.threads_batch, "as many")
        ),
    );
    line(
        "batch",
        format!("{} tokens a step, {} at once", engine.batch, engine.ubatch),
    );
    line(
        "memory",
        format!(
            "weights {}, layers on the GPU: {}",
            match engine.load {
                Load::Auto => "auto",
                Load::Mmap => "mapped",
                Load::None => "read",
                Load::Mlock => "mapped and locked",
                Load::Direct => "read past the page cache",
            },
            match engine.placement.gpu_layers {
                GpuLayers::Auto => "auto".to_owned(),
                GpuLayers::All => "all".to_owned(),
                GpuLayers::Count(layers) => layers.to_string(),
            }
        ),
    );
    line(
        "keys",
        match keys(&config.auth).as_slice() {
            [] => "none asked for".to_owned(),
            files => files.join(", "),
        },
    );
    line(
        "limits",
        format!(
            "{} requests waiting up to {:?}, running up to {:?}, answers up to {}, bodies up to {}",
            limits.queue,
            limits.queue_wait,
            limits.request,
            limits
                .max_tokens
                .map_or("the context".to_owned(), |tokens| format!(
                    "{tokens} tokens"
                )),
            size(limits.body_bytes),
        ),
    );
    line("log", config.log.level.clone());
    text
}

/// Where keys are read, and whose they are if that is said.
fn keys(auth: &AuthConfig) -> Vec<String> {
    let files = auth.key_files.iter().map(|file| file.display().to_string());
    let named = auth.keys.iter();
    let named = named.map(|owner| format!("{} ({})", owner.file.display(), owner.name));
    files.chain(named).collect()
}

fn weights(loaded: &Loaded) -> String {
    match (
        &loaded.model_file,
        loaded.lock.get(&loaded.config.model.name),
    ) {
        (Some(file), _) => format!("not pinned: {}", file.display()),
        (None, Some(entry)) => format!("{} pinned by {}", size(entry.size), lock_name(loaded)),
        (None, None) => "not pinned".to_owned(),
    }
}

fn lock_name(loaded: &Loaded) -> String {
    loaded
        .lock
        .file()
        .map_or("the built-in models.lock".to_owned(), |file| {
            file.display().to_string()
        })
}

fn or(number: Option<u32>, tag: &str) -> String {
    number.map_or(tag.to_owned(), |number| number.to_string())
}

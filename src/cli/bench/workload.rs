//! What is asked of a server: the four workloads with names, and any other size.

use serde::{Deserialize, Serialize};

use super::options::Measure;

/// The workloads with names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Workload {
    /// A question: 32 words, 64 tokens of answer.
    Short,
    /// A page: 512 words, 256 tokens of answer.
    Medium,
    /// A document: 4096 words, 256 tokens of answer.
    Long,
    /// A conversation of six turns, each 128 words and 128 tokens of answer; all earlier turns are sent again.
    MultiTurn,
}

/// One combination that is measured on its own; points of two reports are matched by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    /// `short`, `medium`, …; for sizes that were given one by one `custom`.
    pub(super) workload: String,
    /// Each question has one of these lengths, in words of about one token.
    pub(super) prompt_words: Vec<u32>,
    pub(super) answer: Answer,
    /// Questions of one conversation.
    pub(super) turns: u32,
    /// Clients at the same time.
    pub(super) concurrency: u32,
    /// Conversations of one run over all clients.
    pub(super) requests: u32,
    /// Share of the clients that hang up midway.
    pub(super) hangup: f64,
}

/// How many tokens an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Exactly(u32),
    UpTo(u32),
}

impl Workload {
    pub(super) const ALL: [Self; 4] = [Self::Short, Self::Medium, Self::Long, Self::MultiTurn];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
            Self::MultiTurn => "multi-turn",
        }
    }

    fn load(self) -> Load {
        let (words, tokens, turns) = match self {
            Self::Short => (32, 64, 1),
            Self::Medium => (512, 256, 1),
            Self::Long => (4096, 256, 1),
            Self::MultiTurn => (128, 128, 6),
        };
        Load {
            workload: self.name().to_owned(),
            prompt_words: vec![words],
            answer: Answer::Exactly(tokens),
            turns,
            concurrency: 1,
            requests: 1,
            hangup: 0.0,
        }
    }
}

/// Every combination that the options ask for.
pub(super) fn loads(options: &Measure) -> Vec<Load> {
    let sizes = if options.workloads {
        Workload::ALL.into_iter().map(Workload::load).collect()
    } else if options.workload.is_empty() {
        custom(options)
    } else {
        options.workload.iter().map(|it| it.load()).collect()
    };
    let with_clients = |load: &Load, clients: u32| Load {
        concurrency: clients,
        requests: options.requests.unwrap_or(clients),
        hangup: options.hangup,
        ..load.clone()
    };
    sizes
        .iter()
        .flat_map(|load| options.concurrency.iter().map(|&n| with_clients(load, n)))
        .collect()
}

fn custom(options: &Measure) -> Vec<Load> {
    let lengths = &options.prompt_tokens;
    let (lengths, answer) = if options.mixed {
        (vec![lengths.clone()], Answer::UpTo(options.max_tokens))
    } else {
        let each = lengths.iter().map(|&words| vec![words]).collect();
        (each, Answer::Exactly(options.max_tokens))
    };
    let load = |prompt_words| Load {
        prompt_words,
        answer,
        workload: "custom".to_owned(),
        ..Workload::Short.load()
    };
    lengths.into_iter().map(load).collect()
}

impl Load {
    /// Enough to tell it from the other loads of a report, such as `long` or `512+1024/128`.
    pub(super) fn name(&self) -> String {
        if self.workload != "custom" {
            return self.workload.clone();
        }
        let lengths: Vec<String> = self.prompt_words.iter().map(u32::to_string).collect();
        let (Answer::Exactly(answer) | Answer::UpTo(answer)) = self.answer;
        format!("{}/{answer}", lengths.join("+"))
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let s = if self.concurrency == 1 { "" } else { "s" };
        write!(f, "{}, {} client{s}", self.name(), self.concurrency)?;
        if self.requests != self.concurrency {
            write!(f, ", {} requests", self.requests)?;
        }
        if self.hangup > 0.0 {
            write!(f, ", {:.0} % hang up", self.hangup * 100.0)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(tokens) => write!(f, "{tokens}"),
            Self::UpTo(tokens) => write!(f, "up to {tokens}"),
        }
    }
}

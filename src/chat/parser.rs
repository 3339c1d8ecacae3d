//! One answer as it grows: what of it is reasoning, content and tool calls, reported once and in order.
//!
//! llama.cpp's parsers have no memory: each reading starts at the answer's first byte. Three rules keep that
//! cheap and safe: a format that is content and nothing else is passed through; past [`EVERY_TIME_BYTES`] a
//! reading waits until readings take at most one part in [`SHARE`] of the time; and once no continuation can
//! fit the format, all that was not reported yet, and all that follows, is content.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{
    ChatError, Rendered,
    delta::Delta,
    format::Format,
    internal,
    shim::{Failure, Reader},
};

/// Up to this length every push is read at once.
const EVERY_TIME_BYTES: usize = 8 * 1024;

/// Beyond it, a reading that took `t` is followed by a rest of `SHARE * t`.
const SHARE: u32 = 16;

/// Brackets open at once beyond which a text is not read any more: llama.cpp's parser calls itself for each.
const MAX_DEPTH: u32 = 256;

/// Reads one answer as it grows.
pub struct Parser {
    state: State,
    /// The answer so far; stays empty where it is passed through.
    text: String,
    /// Bytes of it known to be the beginning of something that fits the format.
    fitting: usize,
    /// Bytes of it that all deltas so far stand for.
    taken: usize,
    /// What the last of these belong to.
    inside: Inside,
    depth: Depth,
    pace: Pace,
    thinking_start: String,
    thinking_ends: Vec<String>,
}

enum State {
    Reading(Reader),
    /// Content from here on.
    Passing,
}

/// The answer of `shim_parser_read`.
#[derive(Deserialize)]
struct Reading {
    state: Fit,
    deltas: Vec<Delta>,
    taken: usize,
    inside: Inside,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Fit {
    Refused,
    Open,
    Whole,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Inside {
    Reasoning,
    Content,
    ToolCall,
    #[serde(rename = "")]
    Nothing,
}

impl Parser {
    pub fn new(rendered: &Rendered) -> Result<Self, ChatError> {
        let mut format = Format::deserialize(&rendered.parser).map_err(|e| internal(&e))?;
        // Some families let a call end the reasoning: its mark opens something and stays.
        format.thinking_ends.retain(|end| !rendered.is_trigger(end));
        let state = if format.is_content_only() {
            State::Passing
        } else {
            let reader = Reader::new(rendered.parser.to_string());
            State::Reading(reader.map_err(|failure| {
                let (Failure::Caller(why) | Failure::Internal(why)) = failure;
                ChatError::Internal(why)
            })?)
        };
        Ok(Self {
            state,
            text: String::new(),
            fitting: 0,
            taken: 0,
            inside: Inside::Nothing,
            depth: Depth::default(),
            pace: Pace::default(),
            thinking_start: format.thinking_start,
            thinking_ends: format.thinking_ends,
        })
    }

    /// Appends generated text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        if text.is_empty() {
            return Vec::new();
        }
        if matches!(self.state, State::Passing) {
            return vec![Delta::content(text)];
        }
        self.text.push_str(text);
        self.depth.follow(text);
        if self.text.len() > EVERY_TIME_BYTES && self.pace.is_resting() {
            return Vec::new();
        }
        self.advance()
    }

    /// The answer is complete: what was held back. Text that does not parse becomes content.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut deltas = self.advance();
        if matches!(self.state, State::Reading(_)) {
            self.state = State::Passing;
            deltas.extend(self.held_back());
        }
        deltas
    }

    /// Reads the whole text; where it stops to fit, reports up to there and gives the rest as content.
    fn advance(&mut self) -> Vec<Delta> {
        let State::Reading(reader) = &mut self.state else {
            return Vec::new();
        };
        let began = Instant::now();
        let mut deltas = Vec::new();
        // Everything up to `fitting` fits, nothing from `refused` on does. Fitting is lost once and for
        // all, so halving the distance finds where, however the text was cut into pushes.
        let mut refused = self.text.len() + 1;
        let mut next = self.text.len();
        if self.depth.is_too_deep() {
            refused = self.fitting + 1;
            next = self.fitting;
        }
        while next > self.fitting {
            match reader.read::<Reading>(&self.text[..next]) {
                Ok(reading) if reading.state != Fit::Refused => {
                    self.fitting = next;
                    if reading.taken >= self.taken {
                        self.taken = reading.taken;
                        self.inside = reading.inside;
                    }
                    deltas.extend(reading.deltas);
                }
                Ok(_) => refused = next,
                Err(Failure::Caller(why) | Failure::Internal(why)) => {
                    tracing::error!(why, "an answer could not be parsed");
                    refused = next;
                }
            }
            if self.fitting == self.text.len() {
                break;
            }
            let middle = self.fitting + (refused - self.fitting) / 2;
            next = self.text.floor_char_boundary(middle);
            if next <= self.fitting {
                next = self.text.ceil_char_boundary(self.fitting + 1);
            }
            if next >= refused {
                break;
            }
        }
        if self.fitting < self.text.len() {
            self.state = State::Passing;
            deltas.extend(self.unfitting());
        }
        self.pace.read_for(began.elapsed());
        deltas
    }

    /// What is left of a text that does not fit, as content.
    fn unfitting(&self) -> Option<Delta> {
        let rest = self.after_reasoning();
        (!rest.trim().is_empty()).then(|| Delta::content(rest))
    }

    /// What the format still waited with when the answer ended: half of a mark that turned out to be text.
    fn held_back(&self) -> Option<Delta> {
        let rest = self.untaken();
        if rest.trim().is_empty() {
            return None;
        }
        match self.inside {
            // The end of a call whose arguments are out: markup.
            Inside::ToolCall => None,
            Inside::Reasoning => {
                let after = self.after_reasoning();
                if after.len() == rest.len() {
                    Some(Delta::reasoning(rest))
                } else {
                    (!after.trim().is_empty()).then(|| Delta::content(after))
                }
            }
            Inside::Nothing if rest.trim() == self.thinking_start => None,
            Inside::Content | Inside::Nothing => Some(Delta::content(rest)),
        }
    }

    fn untaken(&self) -> &str {
        &self.text[self.text.floor_char_boundary(self.taken)..]
    }

    /// What is not reported yet, without the mark that ended the reasoning.
    fn after_reasoning(&self) -> &str {
        let rest = self.untaken();
        if self.inside != Inside::Reasoning {
            return rest;
        }
        self.thinking_ends
            .iter()
            .find_map(|end| rest.trim_start().strip_prefix(end.as_str()))
            .map_or(rest, str::trim_start)
    }
}

/// How deep the brackets of a text are nested, at most. Brackets in strings count too: an upper bound.
#[derive(Default)]
struct Depth {
    now: u32,
    most: u32,
}

impl Depth {
    fn follow(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                b'[' | b'{' => {
                    self.now = self.now.saturating_add(1);
                    self.most = self.most.max(self.now);
                }
                b']' | b'}' => self.now = self.now.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn is_too_deep(&self) -> bool {
        self.most > MAX_DEPTH
    }
}

/// When the next reading of a long text is due.
#[derive(Default)]
struct Pace {
    rest_until: Option<Instant>,
}

impl Pace {
    fn read_for(&mut self, cost: Duration) {
        self.rest_until = Some(Instant::now() + cost * SHARE);
    }

    fn is_resting(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }
}

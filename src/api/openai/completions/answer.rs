//! A text completion on the wire, in chunks or whole.

use crate::{
    api::{
        body::json,
        openai::{
            params::StreamUsage,
            wire::{ColumnLogprobs, Head, Timings, UsageBody, finish_reason},
        },
        reply::Wording,
    },
    engine::{Finished, Piece, Scored, Usage},
};

/// Appends `{"index":…,"text":…,"logprobs":…,"finish_reason":…}`.
fn write_choice(
    out: &mut Vec<u8>,
    index: usize,
    text: &str,
    logprobs: Option<&ColumnLogprobs<'_>>,
    finish: Option<&str>,
) {
    out.extend_from_slice(b"{\"index\":");
    json(out, &index);
    out.extend_from_slice(b",\"text\":");
    json(out, text);
    out.extend_from_slice(b",\"logprobs\":");
    json(out, &logprobs);
    out.extend_from_slice(b",\"finish_reason\":");
    json(out, &finish);
    out.push(b'}');
}

fn columns(scored: &[Scored], offset: usize) -> Option<ColumnLogprobs<'_>> {
    (!scored.is_empty()).then(|| ColumnLogprobs::new(scored, offset))
}

pub(super) struct Chunks {
    /// `data: {…,"choices":[`
    opening: Vec<u8>,
    usage: StreamUsage,
    choices: Vec<Sent>,
}

struct Sent {
    echo: String,
    /// Characters sent.
    chars: usize,
}

impl Chunks {
    pub(super) fn new(head: &Head, echo: Vec<String>, usage: StreamUsage) -> Self {
        let mut opening = b"data: ".to_vec();
        opening.append(&mut head.opening());
        let sent = |echo| Sent { echo, chars: 0 };
        Self {
            opening,
            usage,
            choices: echo.into_iter().map(sent).collect(),
        }
    }

    fn finish_chunk(&self, so_far: Usage, out: &mut Vec<u8>) {
        match self.usage {
            StreamUsage::Never => {}
            StreamUsage::AtEnd => out.extend_from_slice(b",\"usage\":null"),
            StreamUsage::Throughout => {
                out.extend_from_slice(b",\"usage\":");
                json(out, &UsageBody::new(so_far, 0));
            }
        }
        out.extend_from_slice(b"}\n\n");
    }
}

impl Wording for Chunks {
    fn open(&mut self, choice: usize, _: Usage, out: &mut Vec<u8>) {
        let echo = std::mem::take(&mut self.choices[choice].echo);
        if !echo.is_empty() {
            let piece = Piece {
                text: echo,
                ..Piece::default()
            };
            self.text(choice, piece, Usage::default(), out);
        }
    }

    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>) {
        if piece.text.is_empty() && piece.tokens.is_empty() {
            return;
        }
        out.extend_from_slice(&self.opening);
        let logprobs = columns(&piece.tokens, self.choices[choice].chars);
        write_choice(out, choice, &piece.text, logprobs.as_ref(), None);
        out.push(b']');
        self.choices[choice].chars += piece.text.chars().count();
        self.finish_chunk(so_far, out);
    }

    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.opening);
        let reason = finish_reason(&finished.reason);
        write_choice(out, choice, "", None, Some(reason));
        out.extend_from_slice(b"],\"timings\":");
        json(out, &Timings::new(finished));
        self.finish_chunk(so_far, out);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        if self.usage != StreamUsage::Never {
            out.extend_from_slice(&self.opening);
            out.extend_from_slice(b"],\"usage\":");
            json(out, &UsageBody::new(total, 0));
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

pub(super) struct Whole {
    opening: Vec<u8>,
    choices: Vec<Answer>,
    timings: Option<Timings>,
}

#[derive(Default)]
struct Answer {
    text: String,
    scored: Vec<Scored>,
    reason: Option<&'static str>,
}

impl Whole {
    pub(super) fn new(head: &Head, echo: Vec<String>) -> Self {
        let answer = |text| Answer {
            text,
            ..Answer::default()
        };
        Self {
            opening: head.opening(),
            choices: echo.into_iter().map(answer).collect(),
            timings: None,
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, mut piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let answer = &mut self.choices[choice];
        answer.text.push_str(&piece.text);
        answer.scored.append(&mut piece.tokens);
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        self.choices[choice].reason = Some(finish_reason(&finished.reason));
        self.timings = Some(Timings::new(finished));
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        out.append(&mut self.opening);
        for (index, answer) in self.choices.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let logprobs = columns(&answer.scored, 0);
            write_choice(out, index, &answer.text, logprobs.as_ref(), answer.reason);
        }
        out.extend_from_slice(b"],\"usage\":");
        json(out, &UsageBody::new(total, 0));
        out.extend_from_slice(b",\"timings\":");
        json(out, &self.timings);
        out.push(b'}');
    }
}

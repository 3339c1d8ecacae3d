//! A text completion on the wire, in chunks or whole.

use crate::{
    api::{
        body::json,
        openai::{
            params::StreamUsage,
            wire::{ColumnLogprobs, First, Head, Timings, UsageBody, chars, finish_reason},
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

fn columns<'a>(
    first: Option<&'a First>,
    scored: &'a [Scored],
    offset: usize,
) -> Option<ColumnLogprobs<'a>> {
    let any = first.is_some() || !scored.is_empty();
    any.then(|| ColumnLogprobs::new(first, scored, offset))
}

/// What an answer begins with.
#[derive(Default)]
pub(super) struct Echo {
    pub(super) text: String,
    /// Where the prompt's log-probabilities are wanted.
    pub(super) first: Option<First>,
}

pub(super) struct Chunks {
    /// `data: {…,"choices":[`
    opening: Vec<u8>,
    usage: StreamUsage,
    choices: Vec<Sent>,
}

struct Sent {
    echo: Echo,
    /// The prompt's tokens after its first.
    prompt: Vec<Scored>,
    /// Whether the answer tells of every token, so also of the one that ends it.
    tells_last: bool,
    /// Characters that begin in the tokens told. Text goes out earlier than a token that ends within a character.
    chars: usize,
}

impl Chunks {
    pub(super) fn new(head: &Head, echo: Vec<Echo>, usage: StreamUsage) -> Self {
        let mut opening = b"data: ".to_vec();
        opening.append(&mut head.opening());
        let sent = |echo: Echo| Sent {
            tells_last: echo.first.is_some(),
            echo,
            prompt: Vec::new(),
            chars: 0,
        };
        Self {
            opening,
            usage,
            choices: echo.into_iter().map(sent).collect(),
        }
    }

    fn say(
        &mut self,
        choice: usize,
        text: &str,
        (first, scored): (Option<&First>, &[Scored]),
        so_far: Usage,
        out: &mut Vec<u8>,
    ) {
        if text.is_empty() && first.is_none() && scored.is_empty() {
            return;
        }
        out.extend_from_slice(&self.opening);
        let logprobs = columns(first, scored, self.choices[choice].chars);
        write_choice(out, choice, text, logprobs.as_ref(), None);
        out.push(b']');
        self.choices[choice].chars += first.map_or(0, |first| first.chars)
            + scored
                .iter()
                .map(|token| chars(&token.bytes))
                .sum::<usize>();
        self.finish_chunk(so_far, out);
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
    fn open(&mut self, choice: usize, so_far: Usage, out: &mut Vec<u8>) {
        let Echo { text, first } = std::mem::take(&mut self.choices[choice].echo);
        let prompt = std::mem::take(&mut self.choices[choice].prompt);
        self.say(choice, &text, (first.as_ref(), &prompt), so_far, out);
    }

    fn prompt(&mut self, choice: usize, mut scored: Vec<Scored>) {
        self.choices[choice].prompt.append(&mut scored);
    }

    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>) {
        self.say(choice, &piece.text, (None, &piece.tokens), so_far, out);
    }

    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>) {
        if self.choices[choice].tells_last {
            self.say(choice, "", (None, finished.last.as_slice()), so_far, out);
        }
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
    pick: Pick,
    timings: Option<Timings>,
}

/// Which of the answers to each prompt are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pick {
    /// Answers generated.
    pub(super) of: usize,
    /// Answers given: those whose tokens have the highest log-probability on average.
    pub(super) best: usize,
    /// Whether their log-probabilities are told.
    pub(super) tells: bool,
}

#[derive(Default)]
struct Answer {
    text: String,
    first: Option<First>,
    scored: Vec<Scored>,
    /// Of the tokens that were generated, the last one included.
    logprobs: f64,
    tokens: u32,
    reason: Option<&'static str>,
}

impl Answer {
    fn count(&mut self, token: &Scored) {
        self.logprobs += f64::from(token.logprob);
        self.tokens += 1;
    }

    fn mean(&self) -> f64 {
        self.logprobs / f64::from(self.tokens.max(1))
    }
}

impl Whole {
    pub(super) fn new(head: &Head, echo: Vec<Echo>, pick: Pick) -> Self {
        let answer = |Echo { text, first }| Answer {
            text,
            first,
            ..Answer::default()
        };
        Self {
            opening: head.opening(),
            choices: echo.into_iter().map(answer).collect(),
            pick,
            timings: None,
        }
    }

    /// The answers that are given, the best to each prompt first.
    fn picked(&self) -> impl Iterator<Item = &Answer> {
        let Pick { of, best, .. } = self.pick;
        self.choices.chunks(of).flat_map(move |answers| {
            let mut answers: Vec<_> = answers.iter().collect();
            if best < of {
                answers.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
            }
            answers.truncate(best);
            answers
        })
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn prompt(&mut self, choice: usize, mut scored: Vec<Scored>) {
        self.choices[choice].scored.append(&mut scored);
    }

    fn text(&mut self, choice: usize, mut piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let answer = &mut self.choices[choice];
        answer.text.push_str(&piece.text);
        piece.tokens.iter().for_each(|token| answer.count(token));
        if self.pick.tells {
            answer.scored.append(&mut piece.tokens);
        }
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        let answer = &mut self.choices[choice];
        if let Some(last) = &finished.last {
            answer.count(last);
            // Whoever reads all of a prompt's tokens counts on one for each that was generated.
            if answer.first.is_some() {
                answer.scored.push(last.clone());
            }
        }
        answer.reason = Some(finish_reason(&finished.reason));
        self.timings = Some(Timings::new(finished));
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        let mut opening = std::mem::take(&mut self.opening);
        out.append(&mut opening);
        for (index, answer) in self.picked().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let logprobs = columns(answer.first.as_ref(), &answer.scored, 0);
            write_choice(out, index, &answer.text, logprobs.as_ref(), answer.reason);
        }
        out.extend_from_slice(b"],\"usage\":");
        json(out, &UsageBody::new(total, 0));
        out.extend_from_slice(b",\"timings\":");
        json(out, &self.timings);
        out.push(b'}');
    }
}

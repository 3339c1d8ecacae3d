//! A streamed answer with its times, and how else a request may end.

use std::time::{Duration, Instant};

use super::{
    request::{Ask, HangUp},
    stream::{self, Events, Usage},
};

/// What became of a request.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Answered(Sample),
    /// The client hung up on purpose.
    HungUp,
    /// A status other than 200, and the first line of what was said with it.
    Refused(u16, String),
    /// No answer, a cut answer, or an error inside the stream.
    Broken(String),
}

/// The times of one whole answer.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// From sending to the first chunk with text.
    pub(super) first: Duration,
    /// From the first chunk with text to the end of generation.
    pub(super) generation: Duration,
    /// Between neighbouring chunks with text.
    pub(super) gaps: Vec<Duration>,
    pub(super) usage: Usage,
    pub(super) counted_by: Counter,
    /// Which question of its conversation it answers, from 1.
    pub(super) turn: u32,
    pub(super) text: String,
}

/// Who counted the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counter {
    /// `usage` of the server.
    Server,
    /// The server sends no `usage`: words of the prompt and events with text stand for tokens.
    Client,
}

/// Reads to the end, or until the client hangs up. `Err`: what was wrong with the stream.
pub(super) fn read<R: std::io::BufRead>(
    events: Events<R>,
    ask: &Ask,
    begun: Instant,
) -> Result<Outcome, String> {
    let mut arrivals = Vec::new();
    let mut text = String::new();
    let mut ended = None;
    let mut usage = None;
    for event in events {
        let event = event.map_err(|e| format!("{e}, after {} events with text", arrivals.len()))?;
        let chunk = stream::chunk(&event)?;
        let now = Instant::now();
        if chunk.text {
            arrivals.push(now);
            text.push_str(&chunk.content);
            if ask.hang_up == HangUp::Chunks(count(arrivals.len())) {
                return Ok(Outcome::HungUp);
            }
        }
        if chunk.finished {
            ended = Some(now);
        }
        usage = chunk.usage.or(usage);
    }
    let ended = ended.ok_or("the stream has no finish_reason")?;
    // An answer may have no text at all (its tokens hold none): then all of it was the first token.
    let first = arrivals.first().copied().unwrap_or(ended);
    let (usage, counted_by) = match usage {
        Some(usage) => (usage, Counter::Server),
        None => (ask.counted(arrivals.len()), Counter::Client),
    };
    Ok(Outcome::Answered(Sample {
        first: first - begun,
        generation: ended - first,
        gaps: arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect(),
        usage,
        counted_by,
        turn: count(ask.said.len().div_ceil(2)),
        text,
    }))
}

impl Ask {
    /// As near to `usage` as a client can come.
    fn counted(&self, events: usize) -> Usage {
        let words = |text: &String| text.split_whitespace().count();
        Usage {
            prompt_tokens: count(self.said.iter().map(words).sum()),
            completion_tokens: count(events),
            cached_tokens: 0,
        }
    }
}

fn count(things: usize) -> u32 {
    u32::try_from(things).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = concat!(
        "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"b\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n",
        "data: [DONE]\n\n",
    );

    fn outcome(text: &str, hang_up: HangUp) -> Result<Outcome, String> {
        let ask = Ask {
            said: vec!["one two".to_owned(), "three".to_owned(), "four".to_owned()],
            max_tokens: 2,
            hang_up,
        };
        read(Events::new(text.as_bytes()), &ask, Instant::now())
    }

    fn sample(text: &str) -> Sample {
        match outcome(text, HangUp::Never) {
            Ok(Outcome::Answered(sample)) => sample,
            other => panic!("not answered: {other:?}"),
        }
    }

    #[test]
    fn a_whole_answer_has_one_gap_less_than_events_with_text() {
        let sample = sample(ANSWER);
        assert_eq!(sample.gaps.len(), 1);
        assert_eq!(sample.usage.completion_tokens, 3);
        assert_eq!(sample.counted_by, Counter::Server);
        assert_eq!((sample.text.as_str(), sample.turn), ("ab", 2));
    }

    #[test]
    fn the_client_hangs_up_after_the_chunk_it_said() {
        let outcome = outcome(ANSWER, HangUp::Chunks(2));
        assert!(matches!(outcome, Ok(Outcome::HungUp)));
    }

    #[test]
    fn without_usage_the_client_counts_words_and_events() {
        let sample = sample(&ANSWER.replace("\"usage\"", "\"other\""));
        assert_eq!(sample.counted_by, Counter::Client);
        assert_eq!(sample.usage.prompt_tokens, 4);
        assert_eq!(sample.usage.completion_tokens, 2);
    }

    #[test]
    fn an_answer_without_an_end_is_broken() {
        assert!(outcome(&ANSWER.replace("\"length\"", "null"), HangUp::Never).is_err());
        let cut = &ANSWER[..ANSWER.len() - 20];
        assert!(outcome(cut, HangUp::Never).is_err());
    }
}

//! An answer in Ollama's words: a line of JSON for each piece of it, or one object.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json as value};

use crate::{
    api::{
        body::json,
        error::ApiError,
        moment,
        reply::Wording,
        turn::{Message, Part, Reader},
    },
    chat::{Delta, ToolCallDelta},
    engine::{Alternative, Finish, Finished, Piece, Scored, Usage},
};

use super::{context::Context, errors};

/// Which endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Chat,
    Generate,
}

impl Style {
    /// The field that the prompt came from.
    pub(super) fn param(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Generate => "prompt",
        }
    }
}

/// Where content, thoughts and calls come from.
pub(super) enum Source {
    Parsed(Box<Reader>),
    /// All that is generated is content.
    Plain,
}

impl Source {
    fn read(&mut self, piece: Piece) -> Vec<Part> {
        match self {
            Self::Parsed(reader) => reader.read(piece),
            Self::Plain => vec![Part {
                delta: Delta {
                    content: Some(piece.text),
                    ..Delta::default()
                },
                scored: piece.tokens,
            }],
        }
    }

    fn finish(&mut self) -> Vec<Part> {
        match self {
            Self::Parsed(reader) => reader.finish(),
            Self::Plain => Vec::new(),
        }
    }
}

/// Who speaks.
pub(super) struct Voice {
    model: String,
    style: Style,
    /// When the request came.
    began: Instant,
    context: Option<Context>,
}

/// What one object says.
#[derive(Default)]
struct Words<'a> {
    content: &'a str,
    thinking: &'a str,
    calls: Vec<Value>,
    scored: &'a [Scored],
}

impl Voice {
    /// `age`: of the request. `context`: where the answer is to tell one.
    pub(super) fn new(
        model: String,
        style: Style,
        age: Duration,
        context: Option<Context>,
    ) -> Self {
        let now = Instant::now();
        Self {
            model,
            style,
            began: now.checked_sub(age).unwrap_or(now),
            context,
        }
    }

    fn hear(&mut self, text: &str) {
        if let Some(context) = &mut self.context {
            context.hear(text);
        }
    }

    fn say(&self, words: Words<'_>) -> Map<String, Value> {
        let mut said = Map::new();
        said.insert("model".to_owned(), self.model.as_str().into());
        said.insert("created_at".to_owned(), moment::now().into());
        let mut inner = Map::new();
        let (outer, content) = match self.style {
            Style::Chat => {
                inner.insert("role".to_owned(), "assistant".into());
                (&mut inner, "content")
            }
            Style::Generate => (&mut said, "response"),
        };
        outer.insert(content.to_owned(), words.content.into());
        if !words.thinking.is_empty() {
            outer.insert("thinking".to_owned(), words.thinking.into());
        }
        if !words.calls.is_empty() {
            outer.insert("tool_calls".to_owned(), words.calls.into());
        }
        if self.style == Style::Chat {
            said.insert("message".to_owned(), inner.into());
        }
        said.insert("done".to_owned(), false.into());
        if !words.scored.is_empty() {
            said.insert("logprobs".to_owned(), logprobs(words.scored));
        }
        said
    }

    /// Adds what is known at the end. Durations are nanoseconds.
    fn end(&self, said: &mut Map<String, Value>, finished: &Finished) {
        let Finished {
            reason,
            usage,
            times,
            ..
        } = finished;
        let reason = match reason {
            Finish::Eos | Finish::StopString(_) => "stop",
            Finish::Length => "length",
        };
        let end = value!({
            "done": true,
            "done_reason": reason,
            "total_duration": nanos(self.began.elapsed()),
            // The model is there; what takes time before the prompt is the wait for a sequence.
            "load_duration": nanos(times.queued),
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": nanos(times.prefill),
            "eval_count": usage.completion_tokens,
            "eval_duration": nanos(times.decode),
        });
        if let Value::Object(end) = end {
            said.extend(end);
        }
        if let Some(context) = &self.context {
            said.insert("context".to_owned(), context.tokens().into());
        }
    }
}

/// Calls with their arguments as objects. What is no JSON object, because the answer broke off, is told as text.
fn calls(message: &Message) -> (Vec<Value>, String) {
    let mut told = Vec::new();
    let mut broken = String::new();
    for call in &message.tool_calls {
        let ToolCallDelta {
            index,
            id,
            function,
            ..
        } = call;
        let arguments = match function.arguments.trim() {
            "" => "{}",
            text => text,
        };
        match serde_json::from_str::<Map<String, Value>>(arguments) {
            Ok(arguments) => told.push(value!({
                "id": id,
                "function": {"index": index, "name": function.name, "arguments": arguments},
            })),
            Err(_) => broken.push_str(&function.arguments),
        }
    }
    (told, broken)
}

fn logprobs(scored: &[Scored]) -> Value {
    let entry = |bytes: &[u8], logprob: f32| {
        value!({
            "token": String::from_utf8_lossy(bytes),
            // JSON has no infinity.
            "logprob": logprob.max(f32::MIN),
            "bytes": bytes,
        })
    };
    let tokens = scored.iter().map(|scored| {
        let mut token = entry(&scored.bytes, scored.logprob);
        if !scored.top.is_empty() {
            let other = |other: &Alternative| entry(&other.bytes, other.logprob);
            token["top_logprobs"] = scored.top.iter().map(other).collect();
        }
        token
    });
    tokens.collect()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) struct Lines {
    voice: Voice,
    source: Source,
    /// Calls are sent whole, at the end.
    message: Message,
}

impl Lines {
    pub(super) fn new(voice: Voice, source: Source) -> Self {
        Self {
            voice,
            source,
            message: Message::default(),
        }
    }

    fn parts(&mut self, parts: Vec<Part>, out: &mut Vec<u8>) {
        for mut part in parts {
            let words = Words {
                content: part.delta.content.as_deref().unwrap_or_default(),
                thinking: part.delta.reasoning_content.as_deref().unwrap_or_default(),
                calls: Vec::new(),
                scored: &part.scored,
            };
            if !(words.content.is_empty() && words.thinking.is_empty() && words.scored.is_empty()) {
                write(out, &self.voice.say(words));
            }
            (part.delta.content, part.delta.reasoning_content) = (None, None);
            part.scored = Vec::new();
            self.message.append(vec![part]);
        }
    }
}

impl Wording for Lines {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";
    // White space before the next line's object. An empty line would be taken for a broken one.
    const SIGN_OF_LIFE: &'static [u8] = b" ";

    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, _: usize, piece: Piece, _: Usage, out: &mut Vec<u8>) {
        self.voice.hear(&piece.text);
        let parts = self.source.read(piece);
        self.parts(parts, out);
    }

    fn end(&mut self, _: usize, finished: &Finished, _: Usage, out: &mut Vec<u8>) {
        let parts = self.source.finish();
        self.parts(parts, out);
        let (calls, broken) = calls(&self.message);
        if !(calls.is_empty() && broken.is_empty()) {
            let words = Words {
                content: &broken,
                calls,
                ..Words::default()
            };
            write(out, &self.voice.say(words));
        }
        let mut last = self.voice.say(Words::default());
        self.voice.end(&mut last, finished);
        write(out, &last);
    }

    fn close(&mut self, _: Usage, _: &mut Vec<u8>) {}

    fn broken(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        json(out, &errors::Body::from(error));
        out.push(b'\n');
    }
}

fn write(out: &mut Vec<u8>, line: &Map<String, Value>) {
    json(out, line);
    out.push(b'\n');
}

pub(super) struct Whole {
    voice: Voice,
    source: Source,
    message: Message,
    answer: Map<String, Value>,
}

impl Whole {
    pub(super) fn new(voice: Voice, source: Source) -> Self {
        Self {
            voice,
            source,
            message: Message::default(),
            answer: Map::new(),
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, _: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        self.voice.hear(&piece.text);
        self.message.append(self.source.read(piece));
    }

    fn end(&mut self, _: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        self.message.append(self.source.finish());
        let (calls, broken) = calls(&self.message);
        self.message.content.push_str(&broken);
        self.answer = self.voice.say(Words {
            content: &self.message.content,
            thinking: &self.message.reasoning,
            calls,
            scored: &self.message.scored,
        });
        self.voice.end(&mut self.answer, finished);
    }

    fn close(&mut self, _: Usage, out: &mut Vec<u8>) {
        json(out, &self.answer);
    }
}

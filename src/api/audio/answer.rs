//! A transcription on the wire: JSON, plain text, or OpenAI's events `transcript.text.delta` and `.done`.

use serde::Serialize;

use crate::{
    api::{
        body::json,
        openai::wire::{ChatLogprob, ChatLogprobs},
        reply::Wording,
        turn::{Message, Part, Reader},
    },
    engine::{Finished, Job, Piece, Scored, Usage},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    Json,
    Text,
}

/// What is known before anything is said.
pub(super) struct Head {
    /// Tokens that stand for the sound.
    audio_tokens: u32,
}

impl Head {
    pub(super) fn new(jobs: &[Job]) -> Self {
        let media = jobs.iter().flat_map(|job| &job.media);
        let rows: usize = media.map(|placed| placed.image.rows()).sum();
        Self {
            audio_tokens: u32::try_from(rows).unwrap_or(u32::MAX),
        }
    }

    fn usage(&self, total: Usage) -> UsageBody {
        UsageBody {
            r#type: "tokens",
            input_tokens: total.prompt_tokens,
            input_token_details: InputDetails {
                audio_tokens: self.audio_tokens,
                text_tokens: total.prompt_tokens.saturating_sub(self.audio_tokens),
                cached_tokens: total.cached_tokens,
            },
            output_tokens: total.completion_tokens,
            total_tokens: total.prompt_tokens + total.completion_tokens,
        }
    }
}

#[derive(Serialize)]
struct UsageBody {
    r#type: &'static str,
    input_tokens: u32,
    input_token_details: InputDetails,
    output_tokens: u32,
    total_tokens: u32,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the wire")]
struct InputDetails {
    audio_tokens: u32,
    text_tokens: u32,
    cached_tokens: u32,
}

/// The whole text, or the last event.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<ChatLogprob<'a>>>,
    usage: UsageBody,
}

#[derive(Serialize)]
struct Said<'a> {
    r#type: &'static str,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<ChatLogprob<'a>>>,
}

pub(super) struct Whole {
    head: Head,
    voice: Voice,
    readers: Vec<Reader>,
    message: Message,
}

impl Whole {
    pub(super) fn new(head: Head, voice: Voice, readers: Vec<Reader>) -> Self {
        Self {
            head,
            voice,
            readers,
            message: Message::default(),
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.message.append(parts);
    }

    fn end(&mut self, choice: usize, _: &Finished, _: Usage, _: &mut Vec<u8>) {
        let parts = self.readers[choice].finish();
        self.message.append(parts);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        let text = &self.message.content;
        match self.voice {
            Voice::Json => json(
                out,
                &Done {
                    r#type: None,
                    text,
                    logprobs: logprobs(&self.message.scored),
                    usage: self.head.usage(total),
                },
            ),
            Voice::Text => {
                out.extend_from_slice(text.as_bytes());
                out.push(b'\n');
            }
        }
    }
}

pub(super) struct Events {
    head: Head,
    readers: Vec<Reader>,
    message: Message,
}

impl Events {
    pub(super) fn new(head: Head, readers: Vec<Reader>) -> Self {
        Self {
            head,
            readers,
            message: Message::default(),
        }
    }

    fn parts(&mut self, parts: Vec<Part>, out: &mut Vec<u8>) {
        for Part { delta, scored } in &parts {
            let Some(text) = delta.content.as_deref().filter(|text| !text.is_empty()) else {
                continue;
            };
            event(
                out,
                &Said {
                    r#type: "transcript.text.delta",
                    delta: text,
                    logprobs: logprobs(scored),
                },
            );
        }
        self.message.append(parts);
    }
}

impl Wording for Events {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.parts(parts, out);
    }

    fn end(&mut self, choice: usize, _: &Finished, _: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].finish();
        self.parts(parts, out);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        event(
            out,
            &Done {
                r#type: Some("transcript.text.done"),
                text: &self.message.content,
                logprobs: logprobs(&self.message.scored),
                usage: self.head.usage(total),
            },
        );
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

fn event(out: &mut Vec<u8>, value: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    json(out, value);
    out.extend_from_slice(b"\n\n");
}

/// A list of tokens: a chat's has an object around it.
fn logprobs(scored: &[Scored]) -> Option<Vec<ChatLogprob<'_>>> {
    (!scored.is_empty()).then(|| ChatLogprobs::new(scored).content)
}

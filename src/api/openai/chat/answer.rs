//! A chat answer on the wire, in chunks or whole.

use serde::Serialize;
use serde_json::json;

use super::reader::{Part, Reader};
use crate::{
    api::{
        openai::{
            params::StreamUsage,
            wire::{self, ChatLogprobs, Head, Timings, UsageBody, finish_reason},
        },
        reply::Wording,
    },
    chat::{Delta, ToolCallDelta},
    engine::{Finished, Piece, Scored, Usage},
};

pub(super) struct Chunks {
    /// `data: {…,"choices":[`
    opening: Vec<u8>,
    usage: StreamUsage,
    readers: Vec<Reader>,
}

#[derive(Serialize)]
struct FirstDelta {
    role: &'static str,
    content: &'static str,
}

impl Chunks {
    pub(super) fn new(head: &Head, readers: Vec<Reader>, usage: StreamUsage) -> Self {
        let mut opening = b"data: ".to_vec();
        opening.append(&mut head.opening());
        Self {
            opening,
            usage,
            readers,
        }
    }

    /// Written by hand around the delta: this runs for every token.
    fn begin_chunk(
        &self,
        out: &mut Vec<u8>,
        choice: usize,
        delta: &impl Serialize,
        scored: &[Scored],
        finish: Option<&str>,
    ) {
        out.extend_from_slice(&self.opening);
        out.extend_from_slice(b"{\"index\":");
        wire::json(out, &choice);
        out.extend_from_slice(b",\"delta\":");
        wire::json(out, delta);
        out.extend_from_slice(b",\"logprobs\":");
        wire::json(out, &logprobs(scored));
        out.extend_from_slice(b",\"finish_reason\":");
        wire::json(out, &finish);
        out.extend_from_slice(b"}]");
    }

    fn end_chunk(&self, so_far: Usage, out: &mut Vec<u8>) {
        match self.usage {
            StreamUsage::Never => {}
            StreamUsage::AtEnd => out.extend_from_slice(b",\"usage\":null"),
            StreamUsage::Throughout => {
                out.extend_from_slice(b",\"usage\":");
                wire::json(out, &UsageBody::new(so_far, reasoning(&self.readers)));
            }
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn parts(&self, choice: usize, parts: &[Part], so_far: Usage, out: &mut Vec<u8>) {
        for Part { delta, scored } in parts {
            self.begin_chunk(out, choice, delta, scored, None);
            self.end_chunk(so_far, out);
        }
    }
}

impl Wording for Chunks {
    fn open(&mut self, choice: usize, out: &mut Vec<u8>) {
        let first = FirstDelta {
            role: "assistant",
            content: "",
        };
        self.begin_chunk(out, choice, &first, &[], None);
        self.end_chunk(Usage::default(), out);
    }

    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.parts(choice, &parts, so_far, out);
    }

    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].finish();
        self.parts(choice, &parts, so_far, out);
        let reason = self.readers[choice].finish_reason(finish_reason(&finished.reason));
        self.begin_chunk(out, choice, &Delta::default(), &[], Some(reason));
        out.extend_from_slice(b",\"timings\":");
        wire::json(out, &Timings::new(finished));
        self.end_chunk(so_far, out);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        if self.usage != StreamUsage::Never {
            out.extend_from_slice(&self.opening);
            out.extend_from_slice(b"],\"usage\":");
            wire::json(out, &UsageBody::new(total, reasoning(&self.readers)));
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

pub(super) struct Whole {
    opening: Vec<u8>,
    readers: Vec<Reader>,
    messages: Vec<Message>,
    timings: Option<Timings>,
}

/// An answer put together from its fragments.
#[derive(Default)]
struct Message {
    content: String,
    reasoning: String,
    tool_calls: Vec<ToolCallDelta>,
    scored: Vec<Scored>,
    reason: Option<&'static str>,
}

impl Whole {
    pub(super) fn new(head: &Head, readers: Vec<Reader>) -> Self {
        Self {
            opening: head.opening(),
            messages: readers.iter().map(|_| Message::default()).collect(),
            readers,
            timings: None,
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.messages[choice].append(parts);
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        let reader = &mut self.readers[choice];
        let message = &mut self.messages[choice];
        message.append(reader.finish());
        message.reason = Some(reader.finish_reason(finish_reason(&finished.reason)));
        self.timings = Some(Timings::new(finished));
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        out.append(&mut self.opening);
        for (index, message) in self.messages.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            wire::json(
                out,
                &json!({
                    "index": index,
                    "message": message.body(),
                    "logprobs": logprobs(&message.scored),
                    "finish_reason": message.reason,
                }),
            );
        }
        out.extend_from_slice(b"],\"usage\":");
        wire::json(out, &UsageBody::new(total, reasoning(&self.readers)));
        out.extend_from_slice(b",\"timings\":");
        wire::json(out, &self.timings);
        out.push(b'}');
    }
}

impl Message {
    fn append(&mut self, parts: Vec<Part>) {
        for Part { delta, mut scored } in parts {
            self.content
                .push_str(delta.content.as_deref().unwrap_or_default());
            let reasoning = delta.reasoning_content.as_deref();
            self.reasoning.push_str(reasoning.unwrap_or_default());
            self.scored.append(&mut scored);
            for call in delta.tool_calls {
                let known = |known: &&mut ToolCallDelta| known.index == call.index;
                match self.tool_calls.iter_mut().find(known) {
                    Some(known) => known.function.arguments.push_str(&call.function.arguments),
                    None => self.tool_calls.push(call),
                }
            }
        }
    }

    fn body(&self) -> serde_json::Value {
        let only_calls = self.content.is_empty() && !self.tool_calls.is_empty();
        let mut body = json!({
            "role": "assistant",
            "content": (!only_calls).then_some(&self.content),
            "refusal": null,
        });
        if !self.reasoning.is_empty() {
            body["reasoning_content"] = self.reasoning.as_str().into();
        }
        if !self.tool_calls.is_empty() {
            let call = |call: &ToolCallDelta| {
                json!({
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": call.function.arguments,
                    },
                })
            };
            body["tool_calls"] = self.tool_calls.iter().map(call).collect();
        }
        body
    }
}

fn logprobs(scored: &[Scored]) -> Option<ChatLogprobs<'_>> {
    (!scored.is_empty()).then(|| ChatLogprobs::new(scored))
}

fn reasoning(readers: &[Reader]) -> u32 {
    readers.iter().map(Reader::reasoning_tokens).sum()
}

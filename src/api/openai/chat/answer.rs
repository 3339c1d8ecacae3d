//! A chat answer on the wire, in chunks or whole.

use serde::Serialize;
use serde_json::{Value, json as value};

use super::functions::Offer;
use crate::{
    api::{
        body::json,
        openai::{
            params::StreamUsage,
            wire::{ChatLogprobs, Head, Timings, UsageBody, finish_reason},
        },
        reply::Wording,
        turn::{Message, Part, Reader},
    },
    chat::{Delta, FunctionDelta, ToolCallDelta},
    engine::{Finished, Piece, Scored, Usage},
};

pub(super) struct Chunks {
    /// `data: {…,"choices":[`
    opening: Vec<u8>,
    usage: StreamUsage,
    readers: Vec<Reader>,
    offer: Offer,
}

#[derive(Serialize)]
struct FirstDelta {
    role: &'static str,
    content: &'static str,
}

/// Clients look for reasoning under one name or the other.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(flatten)]
    delta: &'a Delta,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
}

/// The same where functions are called in the old way.
#[derive(Serialize)]
struct SaidOnce<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<&'a FunctionDelta>,
}

impl Chunks {
    pub(super) fn new(head: &Head, readers: Vec<Reader>, usage: StreamUsage, offer: Offer) -> Self {
        let mut opening = b"data: ".to_vec();
        opening.append(&mut head.opening());
        Self {
            opening,
            usage,
            readers,
            offer,
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
        json(out, &choice);
        out.extend_from_slice(b",\"delta\":");
        json(out, delta);
        out.extend_from_slice(b",\"logprobs\":");
        json(out, &logprobs(scored));
        out.extend_from_slice(b",\"finish_reason\":");
        json(out, &finish);
        out.extend_from_slice(b"}]");
    }

    fn end_chunk(&self, so_far: Usage, out: &mut Vec<u8>) {
        match self.usage {
            StreamUsage::Never => {}
            StreamUsage::AtEnd => out.extend_from_slice(b",\"usage\":null"),
            StreamUsage::Throughout => {
                out.extend_from_slice(b",\"usage\":");
                json(out, &UsageBody::new(so_far, reasoning(&self.readers)));
            }
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn parts(&self, choice: usize, parts: &[Part], so_far: Usage, out: &mut Vec<u8>) {
        for Part { delta, scored } in parts {
            let reasoning = delta.reasoning_content.as_deref();
            match self.offer {
                Offer::Tools => {
                    let said = Said { delta, reasoning };
                    self.begin_chunk(out, choice, &said, scored, None);
                }
                Offer::Functions => {
                    // An answer calls one.
                    let mut calls = delta.tool_calls.iter().filter(|call| call.index == 0);
                    let said = SaidOnce {
                        reasoning_content: reasoning,
                        reasoning,
                        content: delta.content.as_deref(),
                        function_call: calls.next().map(|call| &call.function),
                    };
                    self.begin_chunk(out, choice, &said, scored, None);
                }
            }
            self.end_chunk(so_far, out);
        }
    }
}

impl Wording for Chunks {
    fn open(&mut self, choice: usize, so_far: Usage, out: &mut Vec<u8>) {
        let first = FirstDelta {
            role: "assistant",
            content: "",
        };
        self.begin_chunk(out, choice, &first, &[], None);
        self.end_chunk(so_far, out);
    }

    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.parts(choice, &parts, so_far, out);
    }

    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>) {
        let parts = self.readers[choice].finish();
        self.parts(choice, &parts, so_far, out);
        let reason = self.readers[choice].finish_reason(finish_reason(&finished.reason));
        let reason = worded(reason, self.offer);
        self.begin_chunk(out, choice, &Delta::default(), &[], Some(reason));
        out.extend_from_slice(b",\"timings\":");
        json(out, &Timings::new(finished));
        self.end_chunk(so_far, out);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        if self.usage != StreamUsage::Never {
            out.extend_from_slice(&self.opening);
            out.extend_from_slice(b"],\"usage\":");
            json(out, &UsageBody::new(total, reasoning(&self.readers)));
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

pub(super) struct Whole {
    opening: Vec<u8>,
    readers: Vec<Reader>,
    messages: Vec<Message>,
    reasons: Vec<&'static str>,
    timings: Option<Timings>,
    offer: Offer,
}

impl Whole {
    pub(super) fn new(head: &Head, readers: Vec<Reader>, offer: Offer) -> Self {
        Self {
            opening: head.opening(),
            messages: readers.iter().map(|_| Message::default()).collect(),
            reasons: vec![""; readers.len()],
            readers,
            timings: None,
            offer,
        }
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        let parts = self.readers[choice].read(piece);
        self.messages[choice].append(parts);
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        let reader = &mut self.readers[choice];
        let message = &mut self.messages[choice];
        message.append(reader.finish());
        let reason = reader.finish_reason(finish_reason(&finished.reason));
        self.reasons[choice] = worded(reason, self.offer);
        self.timings = Some(Timings::new(finished));
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        out.append(&mut self.opening);
        for (index, (message, reason)) in self.messages.iter().zip(&self.reasons).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json(
                out,
                &value!({
                    "index": index,
                    "message": body(message, self.offer),
                    "logprobs": logprobs(&message.scored),
                    "finish_reason": reason,
                }),
            );
        }
        out.extend_from_slice(b"],\"usage\":");
        json(out, &UsageBody::new(total, reasoning(&self.readers)));
        out.extend_from_slice(b",\"timings\":");
        json(out, &self.timings);
        out.push(b'}');
    }
}

/// The reason to end with a call has its own name in the old way.
fn worded(reason: &'static str, offer: Offer) -> &'static str {
    match (reason, offer) {
        ("tool_calls", Offer::Functions) => "function_call",
        _ => reason,
    }
}

fn body(message: &Message, offer: Offer) -> Value {
    let only_calls = message.content.is_empty() && !message.tool_calls.is_empty();
    let mut body = value!({
        "role": "assistant",
        "content": (!only_calls).then_some(&message.content),
        "refusal": null,
    });
    if !message.reasoning.is_empty() {
        // Clients look for one or the other.
        body["reasoning_content"] = message.reasoning.as_str().into();
        body["reasoning"] = message.reasoning.as_str().into();
    }
    if offer == Offer::Functions {
        if let Some(ToolCallDelta { function, .. }) = message.tool_calls.first() {
            body["function_call"] = value!({
                "name": function.name,
                "arguments": function.arguments,
            });
        }
    } else if !message.tool_calls.is_empty() {
        let call = |call: &ToolCallDelta| {
            value!({
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.arguments,
                },
            })
        };
        body["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    body
}

fn logprobs(scored: &[Scored]) -> Option<ChatLogprobs<'_>> {
    (!scored.is_empty()).then(|| ChatLogprobs::new(scored))
}

fn reasoning(readers: &[Reader]) -> u32 {
    readers.iter().map(Reader::reasoning_tokens).sum()
}

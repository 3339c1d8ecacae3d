//! A response as a stream of events, each with its number and its place in the output.

use serde::Serialize;

use super::{
    answer::Answer,
    output::{Content, Item, Listener, ShownPart},
    resource::{Snapshot, Status},
};
use crate::{
    api::{
        body::json,
        error::ApiError,
        openai::wire::{ChatLogprob, ChatLogprobs},
        reply::Wording,
    },
    engine::{Finished, Piece, Scored, Usage},
};

pub(super) struct Events {
    answer: Answer,
    written: u64,
}

/// Writes events behind each other.
struct Writer<'a> {
    written: &'a mut u64,
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// `fields`: a struct with at least one field.
    fn event(&mut self, name: &str, fields: &impl Serialize) {
        let out = &mut *self.out;
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        json(out, &*self.written);
        *self.written += 1;
        let brace = out.len();
        json(out, fields);
        if let Some(brace) = out.get_mut(brace) {
            *brace = b',';
        }
        out.extend_from_slice(b"\n\n");
    }

    fn snapshot(&mut self, name: &str, response: Snapshot<'_>) {
        #[derive(Serialize)]
        struct Fields<'a> {
            response: Snapshot<'a>,
        }
        self.event(name, &Fields { response });
    }
}

#[derive(Serialize)]
struct OfItem<T> {
    output_index: usize,
    item: T,
}

#[derive(Serialize)]
struct OfPart<'a, T> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct NewPart<'a> {
    part: ShownPart<'a>,
}

#[derive(Serialize)]
struct TextDelta<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    delta: &'a str,
    logprobs: Vec<ChatLogprob<'a>>,
}

#[derive(Serialize)]
struct WholeText<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<ChatLogprob<'a>>>,
}

#[derive(Serialize)]
struct ReasoningDelta<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    delta: &'a str,
}

#[derive(Serialize)]
struct ArgumentsDelta<'a> {
    item_id: &'a str,
    output_index: usize,
    delta: &'a str,
}

#[derive(Serialize)]
struct WholeArguments<'a> {
    item_id: &'a str,
    output_index: usize,
    name: &'a str,
    arguments: &'a str,
}

impl Listener for Writer<'_> {
    fn added(&mut self, output_index: usize, item: &Item) {
        let fields = OfItem {
            output_index,
            item: item.empty(),
        };
        self.event("response.output_item.added", &fields);
        let part = match item.content {
            Content::Reasoning(_) => ShownPart::ReasoningText { text: "" },
            Content::Message { .. } => ShownPart::text("", &[]),
            Content::Call(_) => return,
        };
        let fields = of_part(output_index, item, NewPart { part });
        self.event("response.content_part.added", &fields);
    }

    fn grew(&mut self, output_index: usize, item: &Item, delta: &str, scored: &[Scored]) {
        let item_id = &item.id;
        match item.content {
            Content::Reasoning(_) => {
                let fields = ReasoningDelta {
                    item_id,
                    output_index,
                    content_index: 0,
                    delta,
                };
                self.event("response.reasoning_text.delta", &fields);
            }
            Content::Message { .. } => {
                let fields = TextDelta {
                    item_id,
                    output_index,
                    content_index: 0,
                    delta,
                    logprobs: ChatLogprobs::new(scored).content,
                };
                self.event("response.output_text.delta", &fields);
            }
            Content::Call(_) => {
                let fields = ArgumentsDelta {
                    item_id,
                    output_index,
                    delta,
                };
                self.event("response.function_call_arguments.delta", &fields);
            }
        }
    }

    fn done(&mut self, output_index: usize, item: &Item) {
        match &item.content {
            Content::Reasoning(text) => {
                let whole = WholeText {
                    text,
                    logprobs: None,
                };
                self.event(
                    "response.reasoning_text.done",
                    &of_part(output_index, item, whole),
                );
                let part = ShownPart::ReasoningText { text };
                let fields = of_part(output_index, item, NewPart { part });
                self.event("response.content_part.done", &fields);
            }
            Content::Message { text, scored } => {
                let whole = WholeText {
                    text,
                    logprobs: Some(ChatLogprobs::new(scored).content),
                };
                self.event(
                    "response.output_text.done",
                    &of_part(output_index, item, whole),
                );
                let part = ShownPart::text(text, scored);
                let fields = of_part(output_index, item, NewPart { part });
                self.event("response.content_part.done", &fields);
            }
            Content::Call(call) => {
                let fields = WholeArguments {
                    item_id: &item.id,
                    output_index,
                    name: &call.name,
                    arguments: &call.arguments,
                };
                self.event("response.function_call_arguments.done", &fields);
            }
        }
        self.event("response.output_item.done", &OfItem { output_index, item });
    }
}

/// Every item has one part.
fn of_part<T>(output_index: usize, item: &Item, what: T) -> OfPart<'_, T> {
    OfPart {
        item_id: &item.id,
        output_index,
        content_index: 0,
        what,
    }
}

impl Events {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, written: 0 }
    }
}

impl Wording for Events {
    fn open(&mut self, _: usize, _: Usage, out: &mut Vec<u8>) {
        let mut writer = Writer {
            written: &mut self.written,
            out,
        };
        writer.snapshot("response.created", self.answer.snapshot(None));
        writer.snapshot("response.in_progress", self.answer.snapshot(None));
    }

    fn text(&mut self, _: usize, piece: Piece, _: Usage, out: &mut Vec<u8>) {
        let mut writer = Writer {
            written: &mut self.written,
            out,
        };
        self.answer.read(piece, &mut writer);
    }

    fn end(&mut self, _: usize, finished: &Finished, _: Usage, out: &mut Vec<u8>) {
        let mut writer = Writer {
            written: &mut self.written,
            out,
        };
        self.answer.end(finished, &mut writer);
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        let mut writer = Writer {
            written: &mut self.written,
            out,
        };
        let name = match self.answer.status() {
            Status::Incomplete => "response.incomplete",
            Status::InProgress | Status::Completed | Status::Failed => "response.completed",
        };
        writer.snapshot(name, self.answer.snapshot(Some(total)));
        self.answer.keep(total);
    }

    /// What was sent so far stays in `output`.
    fn broken(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        if self.written == 0 {
            self.open(0, Usage::default(), out);
        }
        self.answer.fail(error);
        let mut writer = Writer {
            written: &mut self.written,
            out,
        };
        writer.snapshot("response.failed", self.answer.snapshot(None));
    }
}

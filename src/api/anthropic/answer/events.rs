//! An answer as a stream of named events.

use serde::Serialize;
use serde_json::json as value;

use super::{
    UsageBody, Voice,
    sequence::{Change, Kind, Sequence},
};
use crate::{
    api::{
        anthropic::{errors, request::Display},
        body::json,
        error::ApiError,
        reply::Wording,
        turn::Reader,
    },
    engine::{Finished, Piece, Usage},
};

pub(in crate::api::anthropic) struct Events {
    voice: Voice,
    readers: Vec<Reader>,
    sequence: Sequence,
    /// The present block, counted from 0.
    index: usize,
    kind: Kind,
}

impl Events {
    pub(in crate::api::anthropic) fn new(voice: Voice, readers: Vec<Reader>) -> Self {
        Self {
            voice,
            readers,
            sequence: Sequence::default(),
            index: 0,
            kind: Kind::Text,
        }
    }

    fn change(&mut self, change: Change, out: &mut Vec<u8>) {
        match change {
            Change::Begin(kind) => {
                let name = "content_block_start";
                let block = Voice::block(&kind);
                event(
                    out,
                    name,
                    &value!({"type": name, "index": self.index, "content_block": block}),
                );
                self.kind = kind;
            }
            Change::More(text) => match self.kind {
                Kind::Thinking if self.voice.display == Display::Omitted => {}
                Kind::Thinking => self.delta("thinking_delta", "thinking", &text, out),
                Kind::Text => self.delta("text_delta", "text", &text, out),
                Kind::ToolUse { .. } => self.delta("input_json_delta", "partial_json", &text, out),
            },
            Change::End => {
                if let Kind::Thinking = self.kind {
                    let signature = self.voice.fingerprint.clone();
                    self.delta("signature_delta", "signature", &signature, out);
                }
                let name = "content_block_stop";
                event(out, name, &value!({"type": name, "index": self.index}));
                self.index += 1;
            }
        }
    }

    /// Written by hand: this runs for every token.
    fn delta(&self, kind: &str, field: &str, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        );
        json(out, &self.index);
        for piece in [",\"delta\":{\"type\":\"", kind, "\",\"", field, "\":"] {
            out.extend_from_slice(piece.as_bytes());
        }
        json(out, text);
        out.extend_from_slice(b"}}\n\n");
    }
}

impl Wording for Events {
    const SIGN_OF_LIFE: &'static [u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

    fn open(&mut self, _: usize, so_far: Usage, out: &mut Vec<u8>) {
        let usage = UsageBody::new(so_far, &self.readers);
        let message = self.voice.message(&[], None, &usage);
        let name = "message_start";
        event(out, name, &value!({"type": name, "message": message}));
    }

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, out: &mut Vec<u8>) {
        for part in self.readers[choice].read(piece) {
            for change in self.sequence.take(part.delta) {
                self.change(change, out);
            }
        }
    }

    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>) {
        for part in self.readers[choice].finish() {
            for change in self.sequence.take(part.delta) {
                self.change(change, out);
            }
        }
        for change in self.sequence.finish() {
            self.change(change, out);
        }
        let stop = self.voice.stop(&finished.reason, &self.sequence);
        let name = "message_delta";
        let delta = value!({"stop_reason": stop.reason, "stop_sequence": stop.sequence});
        let usage = UsageBody::new(so_far, &self.readers);
        event(
            out,
            name,
            &value!({"type": name, "delta": delta, "usage": usage}),
        );
    }

    fn close(&mut self, _: Usage, out: &mut Vec<u8>) {
        event(out, "message_stop", &value!({"type": "message_stop"}));
    }

    fn broken(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        error.log();
        event(
            out,
            "error",
            &errors::Body::new(error, &self.voice.request_id),
        );
    }
}

fn event(out: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    for piece in ["event: ", name, "\ndata: "] {
        out.extend_from_slice(piece.as_bytes());
    }
    json(out, data);
    out.extend_from_slice(b"\n\n");
}

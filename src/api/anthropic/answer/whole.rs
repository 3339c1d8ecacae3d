//! An answer as one message.

use serde_json::{Map, Value};

use super::{
    Stop, UsageBody, Voice,
    sequence::{Change, Kind, Sequence},
};
use crate::{
    api::{anthropic::request::Display, body::json, reply::Wording, turn::Reader},
    engine::{Finished, Piece, Usage},
};

pub(in crate::api::anthropic) struct Whole {
    voice: Voice,
    readers: Vec<Reader>,
    sequence: Sequence,
    blocks: Vec<(Kind, String)>,
    stop: Option<Stop>,
}

impl Whole {
    pub(in crate::api::anthropic) fn new(voice: Voice, readers: Vec<Reader>) -> Self {
        Self {
            voice,
            readers,
            sequence: Sequence::default(),
            blocks: Vec::new(),
            stop: None,
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Begin(kind) => self.blocks.push((kind, String::new())),
            Change::More(more) => {
                if let Some((_, text)) = self.blocks.last_mut() {
                    text.push_str(&more);
                }
            }
            Change::End => {}
        }
    }

    fn block(&self, kind: &Kind, text: &str) -> Value {
        let mut block = Voice::block(kind);
        match kind {
            Kind::Thinking => {
                if self.voice.display == Display::Shown {
                    block["thinking"] = text.into();
                }
                block["signature"] = self.voice.fingerprint.as_str().into();
            }
            Kind::Text => block["text"] = text.into(),
            // What max_tokens cut short is no JSON; the stop reason says so.
            Kind::ToolUse { .. } => {
                let input: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
                block["input"] = input.into();
            }
        }
        block
    }
}

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, choice: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        for part in self.readers[choice].read(piece) {
            for change in self.sequence.take(part.delta) {
                self.change(change);
            }
        }
    }

    fn end(&mut self, choice: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        for part in self.readers[choice].finish() {
            for change in self.sequence.take(part.delta) {
                self.change(change);
            }
        }
        for change in self.sequence.finish() {
            self.change(change);
        }
        self.stop = Some(self.voice.stop(&finished.reason, &self.sequence));
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        let blocks = self.blocks.iter();
        let content: Vec<_> = blocks.map(|(kind, text)| self.block(kind, text)).collect();
        let usage = UsageBody::new(total, &self.readers);
        json(
            out,
            &self.voice.message(&content, self.stop.as_ref(), &usage),
        );
    }
}

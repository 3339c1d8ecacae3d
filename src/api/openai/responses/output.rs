//! The output of a response as it grows: reasoning, messages and calls, one item after the other.

use serde::{Serialize, Serializer};

use super::{id, resource::Status, tools::Spaces};
use crate::{
    api::{
        openai::wire::{ChatLogprob, ChatLogprobs},
        turn::Part,
    },
    chat::ToolCallDelta,
    engine::Scored,
};

/// Hears what happens to the items.
pub(super) trait Listener {
    /// An item begins, empty.
    fn added(&mut self, at: usize, item: &Item);
    /// Something was appended to it: `scored` are its tokens, when log-probabilities are wanted.
    fn grew(&mut self, at: usize, item: &Item, text: &str, scored: &[Scored]);
    /// It is complete, or cut off.
    fn done(&mut self, at: usize, item: &Item);
}

/// Nobody listens.
impl Listener for () {
    fn added(&mut self, _: usize, _: &Item) {}
    fn grew(&mut self, _: usize, _: &Item, _: &str, _: &[Scored]) {}
    fn done(&mut self, _: usize, _: &Item) {}
}

pub(super) struct Item {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) content: Content,
}

pub(super) enum Content {
    Reasoning(String),
    Message { text: String, scored: Vec<Scored> },
    Call(Call),
}

pub(super) struct Call {
    /// Among the calls of this answer.
    index: u32,
    /// What the function's output refers to.
    id: String,
    namespace: Option<String>,
    pub(super) name: String,
    pub(super) arguments: String,
}

#[derive(Default)]
pub(super) struct Output {
    pub(super) items: Vec<Item>,
}

impl Output {
    pub(super) fn append(&mut self, part: &Part, spaces: &Spaces, listener: &mut impl Listener) {
        let Part { delta, scored } = part;
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(text) = some(&delta.reasoning_content) {
            let is_it = |content: &Content| matches!(content, Content::Reasoning(_));
            self.turn_to(is_it, "rs", || Content::Reasoning(String::new()), listener);
            self.grow(&text, &[], listener);
        }
        if let Some(text) = some(&delta.content) {
            self.begin_message(listener);
            self.grow(&text, scored, listener);
        }
        for call in &delta.tool_calls {
            let is_it = |content: &Content| matches!(content, Content::Call(known) if known.index == call.index);
            self.turn_to(is_it, "fc", || Content::Call(begun(call, spaces)), listener);
            if !call.function.arguments.is_empty() {
                self.grow(&call.function.arguments, &[], listener);
            }
        }
    }

    /// Nothing follows. An answer that said nothing is an empty message.
    pub(super) fn end(&mut self, status: Status, listener: &mut impl Listener) {
        if self.items.is_empty() {
            self.begin_message(listener);
        }
        self.close(status, listener);
    }

    fn begin_message(&mut self, listener: &mut impl Listener) {
        let empty = || Content::Message {
            text: String::new(),
            scored: Vec::new(),
        };
        let is_it = |content: &Content| matches!(content, Content::Message { .. });
        self.turn_to(is_it, "msg", empty, listener);
    }

    /// Makes the last item one that `is_it`.
    fn turn_to(
        &mut self,
        is_it: impl Fn(&Content) -> bool,
        prefix: &str,
        begin: impl FnOnce() -> Content,
        listener: &mut impl Listener,
    ) {
        if self.items.last().is_some_and(|item| is_it(&item.content)) {
            return;
        }
        self.close(Status::Completed, listener);
        let item = Item {
            id: id(prefix),
            status: Status::InProgress,
            content: begin(),
        };
        listener.added(self.items.len(), &item);
        self.items.push(item);
    }

    fn grow(&mut self, text: &str, scored: &[Scored], listener: &mut impl Listener) {
        let at = self.items.len().saturating_sub(1);
        if let Some(item) = self.items.last_mut() {
            match &mut item.content {
                Content::Reasoning(so_far) => so_far.push_str(text),
                Content::Message {
                    text: so_far,
                    scored: all,
                } => {
                    so_far.push_str(text);
                    all.extend_from_slice(scored);
                }
                Content::Call(call) => call.arguments.push_str(text),
            }
            listener.grew(at, item, text, scored);
        }
    }

    fn close(&mut self, status: Status, listener: &mut impl Listener) {
        let at = self.items.len().saturating_sub(1);
        if let Some(item) = self.items.last_mut() {
            item.status = status;
            listener.done(at, item);
        }
    }
}

fn begun(call: &ToolCallDelta, spaces: &Spaces) -> Call {
    let offered = call.function.name.clone().unwrap_or_default();
    let (namespace, name) = spaces.split(&offered);
    Call {
        index: call.index,
        id: call.id.clone().unwrap_or_else(|| id("call")),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        arguments: String::new(),
    }
}

/// As it stands in `output`, and in the event that ends the item.
impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown(self.status, &self.content).serialize(serializer)
    }
}

impl Item {
    /// As it stands in the event that begins it.
    pub(super) fn empty(&self) -> impl Serialize {
        match &self.content {
            Content::Reasoning(_) => Shown::Reasoning {
                id: &self.id,
                status: self.status,
                summary: [],
                content: Vec::new(),
            },
            Content::Message { .. } => Shown::Message {
                id: &self.id,
                status: self.status,
                role: "assistant",
                content: Vec::new(),
            },
            Content::Call(_) => self.shown(self.status, &self.content),
        }
    }

    fn shown<'a>(&'a self, status: Status, content: &'a Content) -> Shown<'a> {
        let id = &self.id;
        match content {
            Content::Reasoning(text) => Shown::Reasoning {
                id,
                status,
                summary: [],
                content: vec![ShownPart::ReasoningText { text }],
            },
            Content::Message { text, scored } => Shown::Message {
                id,
                status,
                role: "assistant",
                content: vec![ShownPart::text(text, scored)],
            },
            Content::Call(call) => Shown::FunctionCall {
                id,
                status,
                call_id: &call.id,
                namespace: call.namespace.as_deref(),
                name: &call.name,
                arguments: &call.arguments,
            },
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Shown<'a> {
    Reasoning {
        id: &'a str,
        status: Status,
        summary: [(); 0],
        content: Vec<ShownPart<'a>>,
    },
    Message {
        id: &'a str,
        status: Status,
        role: &'static str,
        content: Vec<ShownPart<'a>>,
    },
    FunctionCall {
        id: &'a str,
        status: Status,
        call_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'a str>,
        name: &'a str,
        arguments: &'a str,
    },
}

/// A part of an item's content.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ShownPart<'a> {
    ReasoningText {
        text: &'a str,
    },
    OutputText {
        text: &'a str,
        annotations: [(); 0],
        logprobs: Vec<ChatLogprob<'a>>,
    },
}

impl<'a> ShownPart<'a> {
    pub(super) fn text(text: &'a str, scored: &'a [Scored]) -> Self {
        Self::OutputText {
            text,
            annotations: [],
            logprobs: ChatLogprobs::new(scored).content,
        }
    }
}

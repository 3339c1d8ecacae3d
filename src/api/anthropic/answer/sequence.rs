//! Divides what the model says into content blocks, which follow one another.

use crate::{
    api::{anthropic::blocks::outward, random},
    chat::{Delta, ToolCallDelta},
};

/// What happens next to the answer's blocks. Only one is open at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Begin(Kind),
    More(String),
    End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Thinking,
    Text,
    ToolUse { id: String, name: String },
}

#[derive(Default)]
pub(super) struct Sequence {
    open: Option<Part>,
    /// Space that stands for nothing unless more comes after it.
    held: Option<(Part, String)>,
    has_begun: bool,
    has_called: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Thinking,
    Text,
    Call(u32),
}

impl Sequence {
    pub(super) fn has_called(&self) -> bool {
        self.has_called
    }

    pub(super) fn take(&mut self, delta: Delta) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(text) = delta.reasoning_content {
            self.say(Part::Thinking, text, &mut changes);
        }
        if let Some(text) = delta.content {
            self.say(Part::Text, text, &mut changes);
        }
        for call in delta.tool_calls {
            self.call(call, &mut changes);
        }
        changes
    }

    /// Closes what is open. An answer that is nothing but space is that.
    pub(super) fn finish(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some((part, space)) = self.held.take()
            && !self.has_begun
        {
            self.begin(part, &mut changes);
            changes.push(Change::More(space));
        }
        if self.open.take().is_some() {
            changes.push(Change::End);
        }
        changes
    }

    fn say(&mut self, part: Part, text: String, changes: &mut Vec<Change>) {
        if text.is_empty() {
            return;
        }
        if self.open == Some(part) {
            changes.push(Change::More(text));
            return;
        }
        let mut all = match self.held.take() {
            Some((of, space)) if of == part => space,
            _ => String::new(),
        };
        all.push_str(&text);
        // A line between reasoning and a call is no block.
        if all.trim().is_empty() {
            self.held = Some((part, all));
            return;
        }
        self.begin(part, changes);
        changes.push(Change::More(all));
    }

    fn call(&mut self, call: ToolCallDelta, changes: &mut Vec<Change>) {
        let part = Part::Call(call.index);
        if let Some(name) = call.function.name {
            let id = call.id.as_deref().and_then(outward);
            let id = id.unwrap_or_else(|| format!("toolu_{:016x}{:016x}", random(), random()));
            self.held = None;
            self.has_called = true;
            self.close(changes);
            self.open = Some(part);
            self.has_begun = true;
            changes.push(Change::Begin(Kind::ToolUse { id, name }));
        }
        // Calls come one after the other, each with its name first.
        if self.open == Some(part) && !call.function.arguments.is_empty() {
            changes.push(Change::More(call.function.arguments));
        }
    }

    fn begin(&mut self, part: Part, changes: &mut Vec<Change>) {
        self.close(changes);
        self.open = Some(part);
        self.has_begun = true;
        changes.push(Change::Begin(match part {
            Part::Thinking => Kind::Thinking,
            Part::Text | Part::Call(_) => Kind::Text,
        }));
    }

    fn close(&mut self, changes: &mut Vec<Change>) {
        if self.open.take().is_some() {
            changes.push(Change::End);
        }
    }
}

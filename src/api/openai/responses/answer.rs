//! One answer, whole or streamed: what the model has said, what that comes to, and how it is kept.

use std::sync::Arc;

use super::{
    now,
    output::{Listener, Output},
    request::{Asked, Keeping},
    resource::{Error, IncompleteDetails, Resource, Snapshot, Status, UsageBody},
    store::Kept,
    tools::Spaces,
};
use crate::{
    api::{App, body::json, error::ApiError, reply::Wording, turn::Reader},
    engine::{Finish, Finished, Piece, Usage},
};

pub(super) struct Answer {
    resource: Resource,
    spaces: Spaces,
    reader: Reader,
    output: Output,
    status: Status,
    /// Seconds since the epoch.
    completed_at: Option<u64>,
    error: Option<ApiError>,
    keeping: Option<(Keeping, Owner)>,
}

/// Whose answer it is, and where it is kept.
pub(super) struct Owner {
    pub(super) app: Arc<App>,
    pub(super) tenant: u64,
}

impl Answer {
    /// Without an owner nothing is kept.
    pub(super) fn new(asked: Asked, reader: Reader, owner: Option<Owner>) -> Self {
        Self {
            resource: asked.resource,
            spaces: asked.spaces,
            reader,
            output: Output::default(),
            status: Status::InProgress,
            completed_at: None,
            error: None,
            keeping: asked.keeping.zip(owner),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    pub(super) fn read(&mut self, piece: Piece, listener: &mut impl Listener) {
        for part in self.reader.read(piece) {
            self.output.append(&part, &self.spaces, listener);
        }
    }

    pub(super) fn end(&mut self, finished: &Finished, listener: &mut impl Listener) {
        for part in self.reader.finish() {
            self.output.append(&part, &self.spaces, listener);
        }
        self.status = match finished.reason {
            Finish::Eos | Finish::StopString(_) => Status::Completed,
            Finish::Length => Status::Incomplete,
        };
        if self.status == Status::Completed {
            self.completed_at = Some(now());
        }
        self.output.end(self.status, listener);
    }

    pub(super) fn fail(&mut self, error: &ApiError) {
        self.status = Status::Failed;
        self.error = Some(error.clone());
    }

    /// `usage`: once it is known.
    pub(super) fn snapshot(&self, usage: Option<Usage>) -> Snapshot<'_> {
        let reason = "max_output_tokens";
        Snapshot {
            resource: &self.resource,
            status: self.status,
            completed_at: self.completed_at,
            error: self.error.as_ref().map(|error| Error {
                code: error.name(),
                message: error.to_string(),
            }),
            incomplete_details: (self.status == Status::Incomplete)
                .then_some(IncompleteDetails { reason }),
            output: &self.output.items,
            usage: usage.map(|usage| UsageBody::new(usage, self.reader.reasoning_tokens())),
        }
    }

    /// Keeps the answer, if it may be.
    pub(super) fn keep(&mut self, usage: Usage) {
        let Some((keeping, Owner { app, tenant })) = self.keeping.take() else {
            return;
        };
        let mut resource = Vec::new();
        json(&mut resource, &self.snapshot(Some(usage)));
        let mut output = Vec::new();
        json(&mut output, &self.output.items);
        let Keeping {
            input,
            mut items,
            previous,
        } = keeping;
        items.extend(self.output.items.iter().map(|item| item.id.clone()));
        app.responses.put(
            tenant,
            Kept {
                id: self.resource.id.clone(),
                resource,
                input,
                output,
                previous,
                items,
            },
        );
    }
}

/// The answer as one document.
pub(super) struct Whole(pub(super) Answer);

impl Wording for Whole {
    fn open(&mut self, _: usize, _: Usage, _: &mut Vec<u8>) {}

    fn text(&mut self, _: usize, piece: Piece, _: Usage, _: &mut Vec<u8>) {
        self.0.read(piece, &mut ());
    }

    fn end(&mut self, _: usize, finished: &Finished, _: Usage, _: &mut Vec<u8>) {
        self.0.end(finished, &mut ());
    }

    fn close(&mut self, total: Usage, out: &mut Vec<u8>) {
        json(out, &self.0.snapshot(Some(total)));
        self.0.keep(total);
    }
}

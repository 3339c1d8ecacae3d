//! Writes requests and their answers down, where the configuration asks for it, so that they can be replayed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use super::{App, record::Record};
use crate::replay::{
    Answer, Entry,
    answer::{with_lora, with_seed},
};

/// What a request was answered with beside what it says itself, told by its endpoint.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) seed: u32,
    /// Adapters' scales, as `lora` takes them; empty: there are no adapters.
    pub(super) lora: Vec<Value>,
}

/// Answers that wait to be written; more are left out.
const WAITING: usize = 256;
/// Longer answers are not recorded.
const MOST_BYTES: usize = 64 << 20;

/// A file to which answered requests are appended, one JSON line each.
#[derive(Debug, Clone)]
pub struct Tape(mpsc::SyncSender<Take>);

/// A request and its answer, as they were sent.
#[derive(Debug)]
struct Take {
    id: String,
    route: String,
    fingerprint: String,
    chosen: Chosen,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Tape {
    /// Opens the file, which only its owner may read: it holds what clients said.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let (send, takes) = mpsc::sync_channel(WAITING);
        thread::Builder::new()
            .name("tape".into())
            .spawn(move || write_all(file, &takes))?;
        Ok(Self(send))
    }
}

fn write_all(mut file: File, takes: &mpsc::Receiver<Take>) {
    while let Ok(take) = takes.recv() {
        let written =
            line(take).and_then(|line| append(&mut file, &line).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "a request could not be recorded");
        }
    }
}

/// All of the line or nothing: the next one must not be glued to what a full disk took of this one.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(line).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}

fn line(take: Take) -> Result<Vec<u8>, String> {
    let request = serde_json::from_slice(&take.request).map_err(|error| error.to_string())?;
    let Chosen { seed, lora } = take.chosen;
    let entry = Entry {
        id: take.id,
        request: with_lora(with_seed(request, &take.route, seed), &take.route, lora),
        route: take.route,
        fingerprint: take.fingerprint,
        answer: Answer::read(&String::from_utf8_lossy(&take.answer))?,
    };
    let mut line = serde_json::to_vec(&entry).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(line)
}

/// Middleware: what goes through it is recorded once its answer is complete.
pub(super) async fn record(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (Some(tape), true) = (&app.tape, request.method() == Method::POST) else {
        return next.run(request).await;
    };
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str).to_owned();
    let id = request.extensions().get::<Arc<Record>>();
    let id = id.map_or("", |record| record.id()).to_owned();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let limit = usize::try_from(app.limits().body_bytes).unwrap_or(usize::MAX);
    let (parts, body) = request.into_parts();
    let body = Body::from_stream(copied(body, Arc::clone(&asked), limit, None));
    let response = next.run(Request::from_parts(parts, body)).await;
    let Some(chosen) = response.extensions().get::<Chosen>().cloned() else {
        return response; // refused, or nothing that can be replayed
    };
    let Ok(service) = app.service() else {
        return response;
    };
    let finish = Finish {
        tape: tape.clone(),
        take: Take {
            id,
            route,
            fingerprint: service.identity.fingerprint.clone(),
            chosen,
            request: std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner)),
            answer: Vec::new(),
        },
    };
    let (parts, body) = response.into_parts();
    let body = copied(body, Arc::default(), MOST_BYTES, Some(finish));
    Response::from_parts(parts, Body::from_stream(body))
}

/// What is to be done when an answer has been sent to its end.
struct Finish {
    tape: Tape,
    take: Take,
}

/// The same bytes, with a copy of at most `limit` of them in `copy`.
fn copied(
    body: Body,
    copy: Arc<Mutex<Vec<u8>>>,
    limit: usize,
    finish: Option<Finish>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let end = Arc::clone(&copy);
    let pass = body.into_data_stream().inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            let mut copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            if copy.len() + chunk.len() <= limit {
                copy.extend_from_slice(chunk);
            }
        }
    });
    let last = futures_util::stream::once(async move {
        if let Some(Finish { tape, mut take }) = finish {
            take.answer = std::mem::take(&mut *end.lock().unwrap_or_else(PoisonError::into_inner));
            if tape.0.try_send(take).is_err() {
                tracing::warn!("requests come faster than they can be recorded: one is left out");
            }
        }
        Ok(Bytes::new())
    });
    pass.chain(last.filter(|chunk| {
        let empty = chunk.as_ref().is_ok_and(Bytes::is_empty);
        std::future::ready(!empty)
    }))
}

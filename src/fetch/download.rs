//! One file over HTTP into a part, as many requests as it takes.

use std::io::Read;

use ureq::{
    Body,
    http::{HeaderMap, Response, StatusCode, header},
};

use super::{Backoff, FetchError, Hub, backoff::Trouble, part::Part, progress::Progress};

/// Bytes asked from the connection at a time.
const CHUNK: usize = 1 << 18;

/// Fetches what is missing; the part it gives back has the right length and any content.
pub(super) fn run(
    hub: &Hub,
    url: &str,
    mut part: Part,
    backoff: &Backoff,
    progress: &Progress,
) -> Result<Part, FetchError> {
    let mut tries = backoff.tries(url);
    // A server that always starts over must not count as progress each time.
    let mut furthest = part.len();
    while part.missing() > 0 {
        match attempt(hub, url, &mut part, progress) {
            Ok(()) => {}
            Err(trouble) => {
                if part.len() > furthest {
                    tries.progressed();
                }
                furthest = furthest.max(part.len());
                if let Err(error) = tries.wait_after(trouble, progress) {
                    // What can be resumed stays, an empty file does not.
                    if part.len() == 0 {
                        part.discard();
                    }
                    return Err(error);
                }
            }
        }
    }
    Ok(part)
}

fn attempt(hub: &Hub, url: &str, part: &mut Part, progress: &Progress) -> Result<(), Trouble> {
    let from = part.len();
    let response = hub.get(url, from, part.etag().as_deref())?;
    let starts_at = match response.status() {
        StatusCode::PARTIAL_CONTENT => content_range(response.headers()).map(|range| range.start),
        StatusCode::OK => Some(0),
        _ => None,
    };
    match starts_at {
        Some(start) if start == from => {}
        // The server ignores ranges, or the file changed: its answer begins at the beginning.
        Some(0) => {
            progress.note("the server sends the file from its beginning");
            part.restart()?;
        }
        _ => {
            part.restart()?;
            let why = "the server cannot go on where the download stopped".to_owned();
            return Err(Trouble::Passing { why, wait: None });
        }
    }
    if let Some(offered) = offered(&response, part.len())
        && offered != part.size()
    {
        return Err(wrong_length(url, offered, part).into());
    }
    let etag = response.headers().get(header::ETAG);
    match etag.and_then(|etag| etag.to_str().ok()) {
        // A weak one does not promise the same bytes.
        Some(etag) if !etag.starts_with("W/") => part.remember_etag(etag),
        _ => part.forget_etag(),
    }
    receive(url, response, part, progress)
}

fn receive(
    url: &str,
    response: Response<Body>,
    part: &mut Part,
    progress: &Progress,
) -> Result<(), Trouble> {
    let mut body = response.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    while part.missing() > 0 {
        let read = body.read(&mut chunk).map_err(|error| lost(&error))?;
        if read == 0 {
            return Err(Trouble::Passing {
                why: format!("the answer ended {} bytes early", part.missing()),
                wait: None,
            });
        }
        if read as u64 > part.missing() {
            return Err(wrong_length(url, part.len() + read as u64, part).into());
        }
        part.write(&chunk[..read])?;
        progress.at(part.len());
    }
    // One more byte would mean another file; a connection lost now no longer matters.
    match body.read(&mut chunk[..1]) {
        Ok(1..) => Err(wrong_length(url, part.size() + 1, part).into()),
        Ok(0) | Err(_) => Ok(()),
    }
}

/// The part cannot be the beginning of the pinned file, so it is emptied.
fn wrong_length(url: &str, offered: u64, part: &mut Part) -> FetchError {
    let error = FetchError::Length {
        url: url.to_owned(),
        offered,
        pinned: part.size(),
    };
    part.restart().err().unwrap_or(error)
}

fn lost(error: &std::io::Error) -> Trouble {
    Trouble::Passing {
        why: format!("the connection was lost ({error})"),
        wait: None,
    }
}

/// The bytes that the whole file has, as the answer tells; `from`: where its body begins.
fn offered(response: &Response<Body>, from: u64) -> Option<u64> {
    if response.status() == StatusCode::PARTIAL_CONTENT
        && let Some(total) = content_range(response.headers()).and_then(|range| range.total)
    {
        return Some(total);
    }
    let length = response.headers().get(header::CONTENT_LENGTH)?;
    let length: u64 = length.to_str().ok()?.parse().ok()?;
    Some(from.saturating_add(length))
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    start: u64,
    total: Option<u64>,
}

/// Reads `Content-Range: bytes START-END/TOTAL`, where the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some(ContentRange {
        start: start.trim().parse().ok()?,
        total: total.trim().parse().ok(),
    })
}

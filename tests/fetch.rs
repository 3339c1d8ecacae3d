//! Downloads from a server that cuts, lies, ignores and redirects; and the commands that start them.

#[path = "fetch/command.rs"]
mod command;
#[path = "support/download_server.rs"]
mod download_server;
#[path = "fetch/over_http.rs"]
mod over_http;
#[path = "fetch/wheel.rs"]
mod wheel;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use download_server::{Answer, Request, Server};
use llm_server::{
    fetch::{Backoff, Fetch, Hub, Pip, Show},
    lock::{Digest, Entry, Source, Store},
};
use tempfile::{TempDir, tempdir};

const ETAG: &str = "\"v1\"";
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes with no pattern that a wrong offset could hide in.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(next).collect()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of_reader(bytes, |_| ()).expect("memory can be read")
}

fn entry(content: &[u8]) -> Entry {
    Entry {
        source: Source::HuggingFace {
            repo: "owner/tiny".to_owned(),
            revision: REVISION.to_owned(),
            file: "sub dir/tiny.gguf".to_owned(),
        },
        sha256: digest(content),
        size: content.len() as u64,
        licence: "mit".to_owned(),
        trained_context: None,
        mmproj: None,
        draft: None,
    }
}

/// A store of its own and a fetch into it that never really waits.
struct Room {
    folder: TempDir,
    fetch: Fetch,
    pauses: Arc<Mutex<Vec<Duration>>>,
}

impl Room {
    fn new(hub: &str) -> Self {
        Self::with_hub(Hub::at(hub, None, Duration::from_secs(20)).expect("an address"))
    }

    fn with_hub(hub: Hub) -> Self {
        let folder = tempdir().expect("a folder");
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let recorder = Arc::clone(&pauses);
        let fetch = Fetch {
            store: Store::at(folder.path()),
            hub,
            pip: Pip::default(),
            backoff: Backoff {
                attempts: 4,
                pause: Box::new(move |pause| recorder.lock().expect("unpoisoned").push(pause)),
                ..Backoff::default()
            },
            show: Show::Nothing,
        };
        Self {
            folder,
            fetch,
            pauses,
        }
    }

    fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().expect("unpoisoned").clone()
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.fetch.store.path("tiny", entry)
    }

    fn part(&self, entry: &Entry) -> PathBuf {
        self.path(entry).with_added_extension("part")
    }

    /// What lies in the store, without what is only remembered.
    fn files(&self) -> Vec<String> {
        files(self.folder.path())
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name != ".verified")
        .collect();
    names.sort();
    names
}

/// A server of one file that behaves.
fn good_server(content: &[u8]) -> Server {
    let content = content.to_vec();
    Server::start(move |request, _| Answer::file(request, &content, ETAG))
}

/// A server of one file whose answers `spoil` changes; it is told how many requests came before.
fn bad_server(
    content: &[u8],
    spoil: impl Fn(&Request, usize, Answer) -> Answer + Send + Sync + 'static,
) -> Server {
    let content = content.to_vec();
    Server::start(move |request, before| {
        spoil(request, before, Answer::file(request, &content, ETAG))
    })
}

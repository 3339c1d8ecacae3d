//! Prompts on the disk across restarts: written when the engine stops, found by what they say, read when one is wanted.

mod filing;
mod folder;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

pub use self::folder::Folder;
use super::{FileError, Identity, Saved, Shelf, file};
use crate::engine::{
    Token,
    prefix::{Cuts, Prefix},
};

/// A file's name: a digest of what it holds, so that the same is never kept twice.
pub(crate) type Name = Arc<str>;

/// Whoever waits for a file computes the prompt himself after so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is on the disk. Files are read on a thread of their own.
pub(crate) struct Archive {
    shelf: Shelf,
    identity: Identity,
    /// The longest unused first.
    filed: Vec<Filed>,
    orders: mpsc::Sender<Name>,
    fetching: Vec<Fetch>,
}

/// A file, and what could be taken up from it.
struct Filed {
    name: Name,
    /// Its checkpoints have no states.
    prefix: Prefix,
    bytes: u64,
}

/// A file that is being read.
struct Fetch {
    name: Name,
    bytes: usize,
    since: Instant,
}

/// A file that was read; without a state it was damaged, and is gone.
pub(crate) struct Fetched {
    pub(crate) name: Name,
    pub(crate) saved: Option<Saved>,
}

impl Archive {
    /// Looks through the folder and removes what cannot be used. `deliver` hands over what was ordered, on another thread.
    pub(crate) fn open(
        shelf: Shelf,
        identity: Identity,
        deliver: impl Fn(Fetched) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, ordered) = mpsc::channel::<Name>();
        let (folder, own) = (shelf.folder.path().to_owned(), identity.clone());
        thread::Builder::new()
            .name("archive".into())
            .spawn(move || {
                for name in ordered {
                    let saved = fetch(&folder, &name, &own);
                    deliver(Fetched { name, saved });
                }
            })?;
        let mut filed = Vec::new();
        for name in shelf.folder.names()? {
            match file::read_front(&shelf.folder.file(&name), &identity) {
                Ok(front) if name_of(&identity, &front.prefix) == name => filed.push(Filed {
                    name,
                    prefix: front.prefix,
                    bytes: front.length,
                }),
                Ok(_) => shelf.folder.remove(&name, &"it has the name of another"),
                Err(FileError::Io(error)) => {
                    tracing::warn!(file = %name, %error, "a kept prompt cannot be read");
                }
                Err(why) => shelf.folder.remove(&name, &why),
            }
        }
        let bytes: u64 = filed.iter().map(|filed| filed.bytes).sum();
        tracing::info!(
            prompts = filed.len(),
            mib = bytes >> 20,
            folder = %shelf.folder.path().display(),
            "computed prompts of earlier runs"
        );
        Ok(Self {
            shelf,
            identity,
            filed,
            orders,
            fetching: Vec::new(),
        })
    }

    /// The file that holds most of `prompt`, with its bytes, and how much of it.
    pub(crate) fn find(
        &self,
        tenant: Option<u64>,
        prompt: &[Token],
        cuts: Cuts,
    ) -> Option<(Name, usize, usize)> {
        let reach = |filed: &Filed| filed.prefix.reach(tenant, prompt, cuts);
        let best = self.filed.iter().max_by_key(|filed| reach(filed))?;
        let bytes = usize::try_from(best.bytes).ok()?;
        let reach = reach(best);
        (reach > 0).then(|| (Arc::clone(&best.name), bytes, reach))
    }

    pub(crate) fn is_fetching(&self, name: &Name) -> bool {
        self.fetching.iter().any(|fetch| fetch.name == *name)
    }

    /// Has a file read. Its `bytes` take host memory from now on.
    pub(crate) fn order(&mut self, name: Name, bytes: usize) {
        if self.orders.send(Arc::clone(&name)).is_ok() {
            let since = Instant::now();
            self.fetching.push(Fetch { name, bytes, since });
        }
    }

    /// An order has come: what it brought, unless that was damaged or has been erased meanwhile.
    pub(crate) fn delivered(&mut self, fetched: Fetched) -> Option<Saved> {
        let Fetched { name, saved } = fetched;
        if saved.is_none() {
            self.filed.retain(|filed| filed.name != name);
        }
        let wanted = self.fetching.iter().position(|fetch| fetch.name == name)?;
        self.fetching.swap_remove(wanted);
        saved
    }

    /// Host memory of what is on its way.
    pub(crate) fn fetching_bytes(&self) -> usize {
        self.fetching.iter().map(|fetch| fetch.bytes).sum()
    }

    /// Orders that take longer than anybody should wait.
    pub(crate) fn late(&self) -> impl Iterator<Item = &Name> {
        let late = |fetch: &&Fetch| fetch.since.elapsed() > PATIENCE;
        self.fetching.iter().filter(late).map(|fetch| &fetch.name)
    }

    /// Removes what is a beginning of `prefix`.
    pub(crate) fn forget(&mut self, prefix: &Prefix) {
        let Self {
            filed,
            shelf,
            fetching,
            ..
        } = self;
        filed.retain(|filed| {
            let keeps = !is_within(&filed.prefix, prefix);
            if !keeps {
                fetching.retain(|fetch| fetch.name != filed.name);
                shelf.folder.remove(&filed.name, &"it was erased");
            }
            keeps
        });
    }
}

/// Whether all of `short` is the beginning of `long`, and the same owner's.
fn is_within(short: &Prefix, long: &Prefix) -> bool {
    short.tenant == long.tenant && long.tokens.starts_with(&short.tokens)
}

fn fetch(folder: &Path, name: &Name, identity: &Identity) -> Option<Saved> {
    let path = folder.join(&**name);
    let began = Instant::now();
    match file::read(&path, identity) {
        Ok((saved, bytes)) => {
            tracing::debug!(tokens = saved.tokens(), bytes, took = ?began.elapsed(), "a prompt came back from the disk");
            Some(saved)
        }
        Err(why) => {
            tracing::warn!(file = %name, %why, "a kept prompt is of no use and is removed");
            let _ = std::fs::remove_file(path);
            None
        }
    }
}

fn name_of(identity: &Identity, prefix: &Prefix) -> Name {
    let mut digest = Sha256::new();
    for (name, value) in &identity.0 {
        digest.update(format!("{name}\0{value}\0"));
    }
    digest.update(prefix.tenant.unwrap_or(0).to_le_bytes());
    digest.update((prefix.solid as u64).to_le_bytes());
    for token in &prefix.tokens {
        digest.update(token.to_le_bytes());
    }
    let digest: [u8; 32] = digest.finalize().into();
    let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 16], &[]));
    format!("{:032x}{}", u128::from_be_bytes(*head), folder::KEPT).into()
}

#[cfg(test)]
mod tests;

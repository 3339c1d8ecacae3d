//! Answers that are kept: each for the API key that asked, the least recently used given up first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

/// However small they are.
const MOST: usize = 65_536;
/// What an entry and an item's place in the index take beside their text, roughly.
const ENTRY_BYTES: usize = 512;
const ITEM_BYTES: usize = 192;

/// All that is kept of one answer. The texts are JSON, which takes a fraction of what it takes when read.
pub(super) struct Kept {
    pub(super) id: String,
    /// The body of `GET /v1/responses/{id}`.
    pub(super) resource: Vec<u8>,
    /// An array: what this request added to the conversation.
    pub(super) input: Vec<u8>,
    /// An array: what the answer added.
    pub(super) output: Vec<u8>,
    /// The answer that this one continues.
    pub(super) previous: Option<Arc<Stored>>,
    /// The ids of all items above.
    pub(super) items: Vec<String>,
}

/// A kept answer. Its bytes count as long as anybody holds it: a later answer of the same conversation, say.
pub(super) struct Stored {
    pub(super) kept: Kept,
    bytes: u64,
    held: Arc<AtomicU64>,
}

/// Bounded by the bytes it holds.
pub(in crate::api) struct Store {
    most_bytes: AtomicU64,
    held: Arc<AtomicU64>,
    shelf: Mutex<Shelf>,
}

/// Whose, and which.
type Key = (u64, String);

#[derive(Default)]
struct Shelf {
    answers: HashMap<Key, (Arc<Stored>, u64)>,
    /// By the time of last use.
    order: BTreeMap<u64, Key>,
    /// Which answer an item stands in.
    items: HashMap<Key, String>,
    clock: u64,
}

impl Stored {
    /// The answers of the conversation up to this one, the last first.
    pub(super) fn chain(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |stored| stored.kept.previous.as_ref())
    }

    pub(super) fn input(&self) -> Vec<Value> {
        read(&self.kept.input)
    }

    pub(super) fn output(&self) -> Vec<Value> {
        read(&self.kept.output)
    }
}

fn read(items: &[u8]) -> Vec<Value> {
    // It was written by this process.
    serde_json::from_slice(items).unwrap_or_default()
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
        // One after the other: a long conversation would exhaust the stack if each dropped the one before it.
        let mut previous = self.kept.previous.take();
        while let Some(mut alone) = previous.and_then(Arc::into_inner) {
            previous = alone.kept.previous.take();
        }
    }
}

impl Store {
    pub(in crate::api) fn new(most_bytes: u64) -> Self {
        Self {
            most_bytes: most_bytes.into(),
            held: Arc::default(),
            shelf: Mutex::default(),
        }
    }

    /// Whether anything is kept at all.
    pub(super) fn is_open(&self) -> bool {
        self.most_bytes() > 0
    }

    /// Holds at most so many from now on.
    pub(in crate::api) fn resize(&self, most_bytes: u64) {
        self.most_bytes.store(most_bytes, Ordering::Relaxed);
        self.give_up();
    }

    pub(super) fn put(&self, tenant: u64, kept: Kept) {
        let text = kept.resource.len() + kept.input.len() + kept.output.len() + kept.id.len();
        let names: usize = kept.items.iter().map(String::len).sum();
        let bytes = text + ENTRY_BYTES + kept.items.len() * ITEM_BYTES + 2 * names;
        let bytes = bytes as u64;
        if bytes > self.most_bytes() {
            return;
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let id = kept.id.clone();
        let stored = Arc::new(Stored {
            kept,
            bytes,
            held: Arc::clone(&self.held),
        });
        let mut entries = self.shelf();
        for item in &stored.kept.items {
            entries.items.insert((tenant, item.clone()), id.clone());
        }
        entries.insert((tenant, id), stored);
        drop(entries);
        self.give_up();
    }

    /// Lets go of the least recently used, until what is held fits.
    fn give_up(&self) {
        let mut entries = self.shelf();
        let most_bytes = self.most_bytes();
        while self.held.load(Ordering::Relaxed) > most_bytes || entries.answers.len() > MOST {
            let Some((_, key)) = entries.order.pop_first() else {
                break;
            };
            // Its bytes are free once nobody else holds it.
            drop(entries.remove(&key));
        }
    }

    fn most_bytes(&self) -> u64 {
        self.most_bytes.load(Ordering::Relaxed)
    }

    /// The answer, which counts as used, as do all that it continues.
    pub(super) fn get(&self, tenant: u64, id: &str) -> Option<Arc<Stored>> {
        let mut entries = self.shelf();
        let (found, _) = entries.answers.get(&(tenant, id.to_owned()))?;
        let found = Arc::clone(found);
        let chain: Vec<_> = found.chain().map(|stored| &stored.kept.id).collect();
        for id in chain.into_iter().rev() {
            entries.touch((tenant, id.clone()));
        }
        Some(found)
    }

    /// The answer in which an item stands.
    pub(super) fn with_item(&self, tenant: u64, item: &str) -> Option<Arc<Stored>> {
        let id = self
            .shelf()
            .items
            .get(&(tenant, item.to_owned()))
            .cloned()?;
        self.get(tenant, &id)
    }

    /// Whether it was there.
    pub(super) fn delete(&self, tenant: u64, id: &str) -> bool {
        let key = (tenant, id.to_owned());
        let removed = self.shelf().remove(&key);
        removed.is_some()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn insert(&mut self, key: Key, stored: Arc<Stored>) {
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        self.answers.insert(key, (stored, self.clock));
    }

    fn touch(&mut self, key: Key) {
        if let Some((_, used)) = self.answers.get_mut(&key) {
            self.order.remove(used);
            self.clock += 1;
            *used = self.clock;
            self.order.insert(self.clock, key);
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Stored>> {
        let (stored, used) = self.answers.remove(key)?;
        self.order.remove(&used);
        for item in &stored.kept.items {
            let place = (key.0, item.clone());
            if self.items.get(&place) == Some(&key.1) {
                self.items.remove(&place);
            }
        }
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: &str, text_bytes: usize, previous: Option<Arc<Stored>>) -> Kept {
        Kept {
            id: id.to_owned(),
            resource: vec![b' '; text_bytes],
            input: b"[]".to_vec(),
            output: b"[1]".to_vec(),
            previous,
            items: vec![format!("msg_{id}")],
        }
    }

    #[test]
    fn one_key_never_reads_or_deletes_the_answers_of_another() {
        let store = Store::new(1 << 20);
        store.put(1, kept("a", 10, None));
        assert!(store.get(2, "a").is_none());
        assert!(store.with_item(2, "msg_a").is_none());
        assert!(!store.delete(2, "a"));
        assert_eq!(store.with_item(1, "msg_a").unwrap().output(), [1]);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_takes_its_items_along() {
        let store = Store::new(5000);
        store.put(1, kept("a", 1000, None));
        store.put(1, kept("b", 1000, None));
        assert!(store.get(1, "a").is_some());
        store.put(1, kept("c", 1000, None));
        assert!(store.get(1, "b").is_none());
        assert!(store.with_item(1, "msg_b").is_none());
        assert!(store.get(1, "a").is_some() && store.get(1, "c").is_some());
        assert_eq!(store.shelf().items.len(), 2);
        assert_eq!(store.shelf().order.len(), 2);
    }

    #[test]
    fn what_a_conversation_still_needs_counts_until_it_ends() {
        let store = Store::new(5000);
        store.put(1, kept("a", 1000, None));
        let a = store.get(1, "a");
        store.put(1, kept("b", 1000, a));
        // Continuing b also uses a, so that the conversation is given up as a whole.
        store.put(1, kept("c", 1000, None));
        assert!(store.get(1, "c").is_some());
        assert!(store.get(1, "a").is_none() && store.get(1, "b").is_none());
        assert!(store.held.load(Ordering::Relaxed) < 2000);
    }

    #[test]
    fn nothing_is_held_once_all_is_deleted_however_long_the_conversation() {
        let store = Store::new(1 << 30);
        let mut previous = None;
        for at in 0..50_000 {
            let id = at.to_string();
            store.put(1, kept(&id, 0, previous.take()));
            let shelf = store.shelf();
            previous = Some(Arc::clone(&shelf.answers[&(1, id)].0));
        }
        drop(previous);
        for at in 0..50_000 {
            assert!(store.delete(1, &at.to_string()));
        }
        assert_eq!(store.held.load(Ordering::Relaxed), 0);
        assert!(store.shelf().items.is_empty() && store.shelf().order.is_empty());
    }

    #[test]
    fn a_store_made_smaller_keeps_what_was_used_last() {
        let store = Store::new(5000);
        store.put(1, kept("a", 1000, None));
        store.put(1, kept("b", 1000, None));
        store.resize(2000);
        assert!(store.get(1, "a").is_none() && store.get(1, "b").is_some());
        store.resize(0);
        assert!(store.get(1, "b").is_none() && !store.is_open());
    }

    #[test]
    fn what_is_larger_than_the_store_is_not_kept_and_pushes_nothing_out() {
        let store = Store::new(3000);
        store.put(1, kept("a", 1000, None));
        store.put(1, kept("b", 4000, None));
        assert!(store.get(1, "a").is_some() && store.get(1, "b").is_none());
    }
}

//! What was perceived, within a budget of bytes.

use std::{collections::HashMap, sync::Arc};

use super::{Perceived, Segment};
use crate::engine::media::MediumDigest;

/// Whose, and which.
pub(super) type Key = (u64, MediumDigest);

/// What was perceived, within a budget; the longest unused go first.
pub(super) struct Cache {
    budget: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<Key, Entry>,
}

struct Entry {
    perceived: Perceived,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            bytes: 0,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    pub(super) fn get(&mut self, key: Key) -> Option<Perceived> {
        self.clock += 1;
        let entry = self.entries.get_mut(&key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.perceived))
    }

    pub(super) fn insert(&mut self, key: Key, perceived: &Perceived) {
        let bytes = bytes(perceived);
        if bytes > self.budget {
            return;
        }
        while self.bytes + bytes > self.budget {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            self.remove(oldest);
        }
        self.remove(key);
        self.clock += 1;
        self.bytes += bytes;
        let entry = Entry {
            perceived: Arc::clone(perceived),
            bytes,
            used: self.clock,
        };
        self.entries.insert(key, entry);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.budget);
    }

    /// Bytes of what is kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
    }
}

/// What an entry takes: its numbers, and itself.
fn bytes(perceived: &[Segment]) -> usize {
    let one = |segment: &Segment| match segment {
        Segment::Text(tokens) => size_of_val(&**tokens),
        Segment::Image(image) => image.bytes(),
    };
    size_of::<Entry>() + size_of::<Key>() + perceived.iter().map(one).sum::<usize>()
}

//! The constraints compiled last, bounded in number and size; equal ones are compiled once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::Constraint;

/// What a constraint is told by: a digest of its source.
pub(super) type Key = [u8; 32];

/// Filled by whoever comes first; the others wait for it.
pub(super) type Cell = Arc<OnceCell<Arc<Constraint>>>;

const MOST: usize = 256;
const MOST_BYTES: usize = 128 << 20;

/// Least recently used first.
#[derive(Default)]
pub(super) struct Cache(Mutex<VecDeque<(Key, Cell)>>);

impl Cache {
    /// The place of a constraint, now the most recently used.
    pub(super) fn place(&self, key: Key) -> Cell {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|(other, _)| *other == key);
        let found = at.and_then(|at| entries.remove(at));
        let entry = found.unwrap_or_else(|| (key, Cell::default()));
        let cell = Arc::clone(&entry.1);
        entries.push_back(entry);
        let size = |cell: &Cell| cell.get().map_or(0, |constraint| constraint.bytes);
        let mut bytes: usize = entries.iter().map(|(_, cell)| size(cell)).sum();
        while entries.len() > MOST || (bytes > MOST_BYTES && entries.len() > 1) {
            if let Some((_, cell)) = entries.pop_front() {
                bytes -= size(&cell);
            }
        }
        cell
    }

    /// Drops a place that was not filled.
    pub(super) fn drop_empty(&self, key: Key) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(other, cell)| *other != key || cell.initialized());
    }
}

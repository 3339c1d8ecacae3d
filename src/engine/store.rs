//! States of sequences in host memory: what was computed once and has no sequence any more.

use std::{cmp::Reverse, collections::HashSet, sync::Arc};

use super::{
    Token,
    prefix::{Cuts, Prefix},
    state::Saved,
};

/// A sequence that was put aside.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) prefix: Prefix,
    /// The whole state after the last token.
    pub(crate) state: Arc<Vec<u8>>,
    used: u64,
}

/// Sequences that were put aside; the longest unused goes first.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: Vec<Stored>,
    clock: u64,
}

/// Bytes of states, each counted once however many hold it.
#[derive(Debug, Default)]
pub(crate) struct Weight {
    seen: HashSet<*const u8>,
    bytes: usize,
}

impl Weight {
    pub(crate) fn add(&mut self, prefix: &Prefix) {
        for checkpoint in &prefix.checkpoints {
            self.add_state(&checkpoint.state);
        }
    }

    fn add_state(&mut self, state: &Arc<Vec<u8>>) {
        if self.seen.insert(Arc::as_ptr(state).cast()) {
            self.bytes += state.len();
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Store {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds what is here to what is elsewhere.
    pub(crate) fn weigh(&self, weight: &mut Weight) {
        for stored in &self.entries {
            weight.add_state(&stored.state);
            weight.add(&stored.prefix);
            weight.bytes += size_of_val(&*stored.prefix.tokens);
        }
    }

    /// The place of the entry that holds most of `prompt`, and how much of it.
    pub(crate) fn find(
        &self,
        tenant: Option<u64>,
        prompt: &[Token],
        cuts: Cuts,
    ) -> Option<(usize, usize)> {
        let reach = |stored: &Stored| stored.prefix.reach(tenant, prompt, cuts);
        self.entries
            .iter()
            .map(reach)
            .enumerate()
            .max_by_key(|&(_, reach)| reach)
            .filter(|&(_, reach)| reach > 0)
    }

    /// The entry at a place that [`Self::find`] named, now used.
    pub(crate) fn take_up(&mut self, at: usize) -> Option<&Stored> {
        self.clock += 1;
        let stored = self.entries.get_mut(at)?;
        stored.used = self.clock;
        Some(stored)
    }

    /// Whether all of `prefix` is already here.
    pub(crate) fn covers(&self, prefix: &Prefix) -> bool {
        self.entries.iter().any(|stored| {
            stored.prefix.tenant == prefix.tenant
                && stored.prefix.solid >= prefix.solid
                && stored.prefix.tokens.starts_with(&prefix.tokens)
        })
    }

    /// Puts a sequence aside, in place of what it contains.
    pub(crate) fn insert(&mut self, prefix: Prefix, state: Arc<Vec<u8>>) {
        self.forget(&prefix);
        self.clock += 1;
        self.entries.push(Stored {
            prefix,
            state,
            used: self.clock,
        });
    }

    /// Forgets what is a beginning of `prefix`.
    pub(crate) fn forget(&mut self, prefix: &Prefix) {
        self.entries.retain(|stored| {
            stored.prefix.tenant != prefix.tenant
                || !prefix.tokens.starts_with(&stored.prefix.tokens)
        });
    }

    /// All there is, the last used first.
    pub(crate) fn by_use(mut self) -> impl Iterator<Item = Saved> {
        self.entries.sort_unstable_by_key(|stored| Reverse(stored.used));
        self.entries.into_iter().map(|stored| Saved {
            prefix: stored.prefix,
            state: stored.state,
        })
    }

    /// Lets the longest unused go; `false`: there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let oldest = (0..self.entries.len()).min_by_key(|&at| self.entries[at].used);
        oldest.map(|at| self.entries.swap_remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::prefix::Checkpoint;

    const ANYWHERE: Cuts = Cuts {
        anywhere: true,
        grid: 1,
    };

    fn prefix(tenant: u64, tokens: &[Token]) -> Prefix {
        Prefix {
            tokens: tokens.to_vec(),
            tenant: Some(tenant),
            solid: tokens.len(),
            checkpoints: Vec::new(),
        }
    }

    fn state(bytes: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![0; bytes])
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut store = Store::default();
        store.insert(prefix(1, &[1, 2]), state(100));
        store.insert(prefix(1, &[3, 4]), state(100));
        assert!(store.take_up(0).is_some());
        assert!(store.drop_oldest());
        assert!(store.find(Some(1), &[1, 2, 9], ANYWHERE).is_some());
        assert_eq!(store.find(Some(1), &[3, 4, 9], ANYWHERE), None);
        assert!(store.drop_oldest());
        assert!(!store.drop_oldest());
    }

    #[test]
    fn what_is_handed_on_comes_with_the_last_used_first() {
        let mut store = Store::default();
        for tokens in [[1, 2], [3, 4], [5, 6]] {
            store.insert(prefix(1, &tokens), state(10));
        }
        assert!(store.take_up(0).is_some());
        store.forget(&prefix(1, &[3, 4, 5]));
        let left: Vec<_> = store.by_use().map(|saved| saved.prefix.tokens).collect();
        assert_eq!(left, [[1, 2], [5, 6]]);
    }

    #[test]
    fn a_state_that_several_hold_is_counted_once() {
        let shared = Checkpoint {
            at: 1,
            state: state(10),
        };
        let mut here = prefix(1, &[1, 2]);
        here.add(shared.clone());
        let mut there = prefix(1, &[1, 3]);
        there.add(shared);
        let mut store = Store::default();
        store.insert(here, state(100));
        let mut weight = Weight::default();
        store.weigh(&mut weight);
        weight.add(&there);
        assert_eq!(weight.bytes(), 100 + 10 + 2 * 4);
    }

    #[test]
    fn a_longer_history_takes_the_place_of_its_own_beginning_and_of_nobody_elses() {
        let mut store = Store::default();
        store.insert(prefix(1, &[1, 2]), state(10));
        store.insert(prefix(2, &[1, 2]), state(10));
        store.insert(prefix(1, &[1, 2, 3]), state(10));
        assert!(store.covers(&prefix(1, &[1, 2])));
        assert_eq!(
            store
                .find(Some(1), &[1, 2, 3, 4], ANYWHERE)
                .map(|found| found.1),
            Some(3)
        );
        assert_eq!(
            store
                .find(Some(2), &[1, 2, 3, 4], ANYWHERE)
                .map(|found| found.1),
            Some(2)
        );
        assert_eq!(store.find(Some(3), &[1, 2, 3, 4], ANYWHERE), None);
        assert_eq!(store.entries.len(), 2);
    }
}

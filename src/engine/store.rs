//! States of sequences in host memory: what was computed once and has no sequence any more.

use std::sync::Arc;

use super::{
    Token,
    prefix::{Cuts, Prefix},
};

/// A sequence that was put aside.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) prefix: Prefix,
    /// The whole state after the last token.
    pub(crate) state: Arc<[u8]>,
    used: u64,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.state.len() + self.prefix.bytes() + size_of_val(&*self.prefix.tokens)
    }
}

/// Sequences within a budget of bytes; the longest unused goes first.
#[derive(Debug, Default)]
pub(crate) struct Store {
    budget: usize,
    entries: Vec<Stored>,
    clock: u64,
}

impl Store {
    /// `budget`: bytes; 0: nothing is kept.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.iter().map(Stored::bytes).sum()
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

    /// Puts a sequence aside, in place of what it contains. `false`: it is larger than the budget.
    pub(crate) fn insert(&mut self, prefix: Prefix, state: Arc<[u8]>, beside: usize) -> bool {
        self.entries.retain(|stored| {
            stored.prefix.tenant != prefix.tenant
                || !prefix.tokens.starts_with(&stored.prefix.tokens)
        });
        self.clock += 1;
        let stored = Stored {
            prefix,
            state,
            used: self.clock,
        };
        let bytes = stored.bytes();
        if !self.make_room(bytes.saturating_add(beside)) {
            return false;
        }
        self.entries.push(stored);
        true
    }

    /// Lets the longest unused go until `bytes` more fit; `false`: they never will.
    pub(crate) fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > self.budget {
            return false;
        }
        while self.bytes() + bytes > self.budget {
            let oldest = (0..self.entries.len()).min_by_key(|&at| self.entries[at].used);
            let Some(oldest) = oldest else { break };
            self.entries.swap_remove(oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn state(bytes: usize) -> Arc<[u8]> {
        Arc::from(vec![0; bytes])
    }

    #[test]
    fn the_longest_unused_goes_when_the_budget_is_reached() {
        let mut store = Store::new(350);
        assert!(store.insert(prefix(1, &[1, 2]), state(100), 0));
        assert!(store.insert(prefix(1, &[3, 4]), state(100), 0));
        assert!(store.take_up(0).is_some());
        assert!(store.insert(prefix(1, &[5, 6]), state(100), 0));
        assert!(store.insert(prefix(1, &[7, 8]), state(100), 0));
        assert!(store.find(Some(1), &[1, 2, 9], ANYWHERE).is_some());
        assert_eq!(store.find(Some(1), &[3, 4, 9], ANYWHERE), None);
        assert!(store.bytes() <= 350);
        assert!(!store.insert(prefix(1, &[9]), state(400), 0));
    }

    #[test]
    fn a_longer_history_takes_the_place_of_its_own_beginning_and_of_nobody_elses() {
        let mut store = Store::new(1000);
        store.insert(prefix(1, &[1, 2]), state(10), 0);
        store.insert(prefix(2, &[1, 2]), state(10), 0);
        store.insert(prefix(1, &[1, 2, 3]), state(10), 0);
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

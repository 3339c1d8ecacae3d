//! What sequences hold: brought from elsewhere, cut back, put aside in host memory, and kept at checkpoints.

use std::{cmp::Reverse, sync::Arc};

use super::{Worker, admit::Source};
use crate::engine::{
    Failed, media,
    model::{Model, Part},
    prefix::{Checkpoint, Prefix},
    slot::small,
};

/// Fewer tokens are computed sooner than brought from elsewhere.
const WORTH_BRINGING: usize = 16;
/// Shorter sequences are not put aside.
pub(super) const WORTH_KEEPING: usize = 64;

impl<M: Model> Worker<M> {
    /// Makes the free sequence `at` hold the first `reach` tokens of `source`; what it held before is put aside.
    pub(super) fn bring(&mut self, source: Source, reach: usize, at: usize) {
        let here = source == Source::Slot(at);
        if here && reach > 0 {
            if reach + WORTH_KEEPING < self.slots[at].computed() {
                self.put_aside(at);
            }
            return self.cut(at, reach);
        }
        // What is found in the store may go when something else comes into it.
        let state = match source {
            Source::Stored(_) if reach >= WORTH_BRINGING => self.state_of(source),
            _ => None,
        };
        self.put_aside(at);
        self.empty(at);
        match &state {
            Some(state) => self.put(at, state, reach),
            None if reach >= WORTH_BRINGING => self.take_over(source, reach, at),
            None => {}
        }
    }

    /// Makes the free sequence `at` hold the first `reach` tokens of `source`, or nothing.
    pub(super) fn take_over(&mut self, source: Source, reach: usize, at: usize) {
        if !self.copy(source, at, reach)
            && let Some(state) = self.state_of(source)
        {
            self.put(at, &state, reach);
        }
    }

    /// The same, without a way through host memory: a sequence's state as it is now, or cut back.
    pub(super) fn copy(&mut self, source: Source, at: usize, reach: usize) -> bool {
        let Source::Slot(from) = source else {
            return false;
        };
        let computed = self.slots[from].computed();
        if from == at || !(self.model.cuts_anywhere() || computed == reach) {
            return false;
        }
        self.empty(at);
        let source = &self.slots[from];
        let (from, to) = (source.sequence, self.slots[at].sequence);
        if !self.model.copy(from, to, small(computed)) {
            return false;
        }
        self.slots[at].prefix = source.prefix.clone();
        self.cut(at, reach);
        self.slots[at].computed() == reach
    }

    /// The whole state of another sequence, running or put aside.
    pub(super) fn state_of(&mut self, source: Source) -> Option<(Prefix, Arc<Vec<u8>>)> {
        match source {
            Source::Nowhere => None,
            Source::Slot(from) => {
                let slot = &self.slots[from];
                let state = self.model.save(slot.sequence, Part::Whole)?;
                Some((slot.prefix.clone(), Arc::new(state)))
            }
            Source::Stored(entry) => {
                let stored = self.store.take_up(entry)?;
                Some((stored.prefix.clone(), Arc::clone(&stored.state)))
            }
        }
    }

    /// Cuts a sequence back to `to` tokens; it is empty if its state cannot be had there.
    pub(super) fn cut(&mut self, at: usize, to: usize) {
        if self.slots[at].computed() != to && !self.go_back(at, to) {
            self.empty(at);
        }
    }

    /// Brings a sequence whose last step was cut short back to a state that is certain.
    pub(super) fn rewind(&mut self, at: usize) {
        let slot = &self.slots[at];
        let prefix = &slot.prefix;
        let mut to = prefix.tokens.len();
        // The next token tells whether an image was cut short.
        if let Some(active) = &slot.active {
            to = media::whole(&active.tokens, to);
        }
        if !self.model.cuts_anywhere() {
            to = prefix.checkpoint(to).map_or(0, |last| last.at);
        }
        if to == 0 || !self.go_back(at, to) {
            self.empty(at);
        }
    }

    fn go_back(&mut self, at: usize, to: usize) -> bool {
        let slot = &mut self.slots[at];
        let restored = self.model.cuts_anywhere()
            || slot.prefix.checkpoint(to).is_some_and(|checkpoint| {
                checkpoint.at == to
                    && self
                        .model
                        .restore(slot.sequence, Part::Rest, &checkpoint.state)
            });
        let position = small(slot.prefix.position(to));
        let done = restored && self.model.truncate(slot.sequence, position);
        if done {
            slot.prefix.truncate(to);
        }
        done
    }

    pub(super) fn empty(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        self.model.truncate(slot.sequence, 0);
        slot.prefix.truncate(0);
    }

    /// Keeps a free sequence's state in host memory before it is overwritten.
    pub(super) fn put_aside(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.computed() < WORTH_KEEPING || self.store.covers(&slot.prefix) {
            return;
        }
        if let Some(state) = self.keep(at, Part::Whole) {
            let prefix = self.slots[at].prefix.clone();
            self.store.insert(prefix, state);
        }
    }

    /// Keeps what cutting would not bring back of a sequence's present state.
    pub(super) fn keep_checkpoint(&mut self, at: usize) {
        if let Some(state) = self.keep(at, Part::Rest) {
            let prefix = &mut self.slots[at].prefix;
            let at = prefix.tokens.len();
            prefix.add(Checkpoint { at, state });
            self.publish_weight();
        }
    }

    /// Brings a sequence's state into the order in which it would come out of a cache: what is computed next shall have
    /// the same bits either way.
    pub(super) fn lay_out(&mut self, at: usize) {
        if !self.model.layout_varies() {
            return;
        }
        let slot = &self.slots[at];
        let (sequence, prefix) = (slot.sequence, &slot.prefix);
        let kept = prefix.checkpoint(prefix.tokens.len());
        let kept = kept.filter(|checkpoint| checkpoint.at == prefix.tokens.len());
        let state = match kept {
            Some(checkpoint) => Some(Arc::clone(&checkpoint.state)),
            None => self.model.save(sequence, Part::Rest).map(Arc::new),
        };
        if !state.is_some_and(|state| self.model.restore(sequence, Part::Rest, &state)) {
            self.empty(at);
            let why = "its state could not be kept reproducible";
            self.slots[at].fail(Failed::Decode(why.into()));
        }
    }

    /// A sequence's state, if it may be kept and there is room for it; what is longest unused goes for it.
    fn keep(&mut self, at: usize, part: Part) -> Option<Arc<Vec<u8>>> {
        let slot = &self.slots[at];
        if self.tuning.cache_bytes == 0 || slot.prefix.tenant.is_none() {
            return None;
        }
        let tokens = size_of_val(&*slot.prefix.tokens);
        let state = Arc::new(self.model.save(slot.sequence, part)?);
        let more = state.len() + tokens;
        if more > self.tuning.cache_bytes {
            return None;
        }
        self.make_room(more, at).then_some(state)
    }

    /// Lets what is longest unused go until `more` bytes fit; nothing of the sequence `but` goes.
    pub(super) fn make_room(&mut self, more: usize, but: usize) -> bool {
        while self.weigh() + more > self.tuning.cache_bytes {
            if !self.store.drop_oldest() && !self.drop_oldest_checkpoint(but) {
                return false;
            }
        }
        true
    }

    /// Forgets a checkpoint of the longest unused of the other sequences that have any, free ones first.
    fn drop_oldest_checkpoint(&mut self, but: usize) -> bool {
        let others = self
            .slots
            .iter_mut()
            .enumerate()
            .filter(|(at, slot)| *at != but && !slot.prefix.checkpoints.is_empty());
        let oldest = others
            .map(|(_, slot)| slot)
            .max_by_key(|slot| (slot.active.is_none(), Reverse(slot.last_used())));
        oldest
            .map(|slot| slot.prefix.checkpoints.remove(0))
            .is_some()
    }

    /// Puts the first `reach` tokens of a state in place of a sequence's own.
    pub(super) fn put(
        &mut self,
        at: usize,
        (prefix, state): &(Prefix, Arc<Vec<u8>>),
        reach: usize,
    ) {
        self.empty(at);
        let slot = &mut self.slots[at];
        if self.model.restore(slot.sequence, Part::Whole, state) {
            slot.prefix = prefix.clone();
            self.cut(at, reach);
            // With it may come checkpoints that were let go since it was looked up.
            if !self.make_room(0, at) {
                self.slots[at].prefix.checkpoints.clear();
            }
        }
    }
}

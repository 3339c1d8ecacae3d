//! States that come and go beside the jobs: what clients ask of a sequence, what lies on the disk, what goes there at the end.

use std::cmp::Reverse;

use super::{Worker, keep::WORTH_KEEPING};
use crate::engine::{
    Job,
    model::{Model, Part},
    slot::small,
    state::{Act, ArchiveName, Errand, Fetched, NotDone, Saved},
};

/// So much more of a prompt must lie on the disk than in memory to be worth reading.
const WORTH_READING: usize = 64;

impl<M: Model> Worker<M> {
    /// Does what is asked of sequences that no job has.
    pub(super) fn run_errands(&mut self) {
        let waiting = std::mem::take(&mut self.errands);
        for errand in waiting {
            let slot = self.slots.get(errand.sequence as usize);
            if errand.is_abandoned() {
                continue;
            }
            if slot.is_some_and(|slot| slot.active.is_some()) {
                self.errands.push(errand);
            } else {
                self.run_errand(errand);
            }
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        let at = errand.sequence as usize;
        let Some(slot) = self.slots.get(at) else {
            let (sequence, last) = (errand.sequence, small(self.slots.len()).saturating_sub(1));
            return errand.refuse(NotDone::NoSequence { sequence, last });
        };
        let is_theirs = slot.prefix.tenant == Some(errand.tenant) && slot.computed() > 0;
        let is_free = slot.prefix.tenant.is_none() || slot.computed() == 0;
        let not_theirs = NotDone::NotTheirs(errand.sequence);
        // Nobody minds who is gone.
        match errand.act {
            Act::Copy(reply) if is_theirs => {
                let state = self.model.save(errand.sequence, Part::Whole);
                let prefix = self.slots[at].prefix.clone();
                let saved = state.map(|state| Saved {
                    prefix,
                    state: state.into(),
                });
                let _ = reply.send(saved.ok_or(NotDone::NotGiven));
            }
            Act::Forget(reply) if is_theirs || is_free => {
                let tokens = self.slots[at].computed();
                self.forget(at);
                self.publish_errand();
                let _ = reply.send(Ok(small(tokens)));
            }
            Act::Put(saved, reply) => {
                let outcome = self.put_saved(at, saved);
                self.publish_errand();
                let _ = reply.send(outcome);
            }
            Act::Copy(_) | Act::Forget(_) => errand.refuse(not_theirs),
        }
    }

    /// Whoever hears that it is done sees it done.
    fn publish_errand(&mut self) {
        self.publish();
        self.publish_weight();
    }

    fn forget(&mut self, at: usize) {
        let prefix = self.slots[at].prefix.clone();
        self.empty(at);
        if prefix.tenant.is_some() && !prefix.tokens.is_empty() {
            self.store.forget(&prefix);
            if let Some(archive) = &mut self.archive {
                archive.forget(&prefix);
            }
        }
    }

    /// What the sequence held is put aside.
    fn put_saved(&mut self, at: usize, saved: Saved) -> Result<u32, NotDone> {
        let (tokens, context) = (saved.tokens(), self.model.context());
        if tokens > context as usize {
            return Err(NotDone::TooLong { tokens, context });
        }
        self.put_aside(at);
        self.put(at, &(saved.prefix, saved.state), tokens);
        self.slots[at].touch();
        match self.slots[at].computed() {
            0 => Err(NotDone::NotTaken),
            restored => Ok(small(restored)),
        }
    }

    /// Has a file read if it holds much more of the job's prompt than memory does.
    pub(super) fn fetch(&mut self, job: &Job) -> Option<ArchiveName> {
        let cuts = self.cuts();
        let (tenant, prompt) = (job.tenant, &job.prompt);
        let archive = self.archive.as_ref()?;
        let (name, bytes, reach) = archive.find(tenant, prompt, cuts)?;
        let held = self.slots.iter().map(|slot| &slot.prefix);
        let held = held.map(|prefix| prefix.reach(tenant, prompt, cuts)).max();
        let stored = self.store.find(tenant, prompt, cuts);
        let here = held.max(stored.map(|(_, reach)| reach)).unwrap_or(0);
        if reach < here + WORTH_READING {
            return None;
        }
        if !archive.is_fetching(&name) {
            if bytes > self.tuning.cache_bytes || !self.make_room(bytes, usize::MAX) {
                return None;
            }
            self.archive.as_mut()?.order(name.clone(), bytes);
            self.publish_weight();
        }
        Some(name)
    }

    /// What was read is as if it had been put aside just now.
    pub(super) fn shelve(&mut self, fetched: Fetched) {
        let name = fetched.name.clone();
        let saved = self
            .archive
            .as_mut()
            .and_then(|archive| archive.delivered(fetched));
        if let Some(Saved { prefix, state }) = saved {
            self.store.insert(prefix, state);
            self.make_room(0, usize::MAX);
        }
        self.queue.release(&name);
        self.publish_weight();
    }

    /// Nobody waits for a disk that hangs.
    pub(super) fn release_late(&mut self) {
        for name in self.archive.iter().flat_map(|archive| archive.late()) {
            self.queue.release(name);
        }
    }

    /// The last act: what was used last goes to the disk, sequences before what was put aside.
    pub(super) fn file_away(mut self) {
        let Some(archive) = self.archive.take() else {
            return;
        };
        let mut filing = archive.file();
        self.slots.sort_by_key(|slot| Reverse(slot.last_used()));
        for slot in &self.slots {
            if slot.computed() >= WORTH_KEEPING
                && filing.wants(&slot.prefix)
                && let Some(state) = self.model.save(slot.sequence, Part::Whole)
            {
                filing.put(&Saved {
                    prefix: slot.prefix.clone(),
                    state: state.into(),
                });
            }
        }
        for saved in self.store.by_use() {
            if filing.wants(&saved.prefix) {
                filing.put(&saved);
            }
        }
        filing.finish();
    }
}

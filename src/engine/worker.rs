//! The thread: receive, plan, decode, sample, commit. State moves only after the device said yes.

use std::{
    cell::Cell,
    collections::VecDeque,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::mpsc;

use super::{
    Failed, Finish, Job, Shared, Submitted, Token,
    model::{DecodeError, Model, Row, SampleError},
    plan::{self, Room, Share, Want},
    slot::{Active, Slot, small},
};

/// The engine thread's state. All of it ends with the thread.
pub(crate) struct Worker<M: Model> {
    model: M,
    inbox: mpsc::UnboundedReceiver<Submitted>,
    shared: Arc<Shared>,
    waiting: VecDeque<Submitted>,
    slots: Vec<Slot<M::Sampler>>,
    /// Sequences whose common batch failed: each is tried alone, so that only the guilty one ends.
    suspects: VecDeque<u32>,
    /// The model's end-of-generation tokens, forbidden when a job ignores them.
    eog: Vec<Token>,
    rows: Vec<Row>,
}

/// Nodes of a graph computed before the next look at who still waits: microseconds for a small model, less
/// than a second for a large one on a CPU.
const NODES_BETWEEN_LOOKS: u32 = 16;

/// The engine cannot go on: its model could not be brought back.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot go on: {0}")]
struct Dead(String);

impl<M: Model> Worker<M> {
    pub(crate) fn new(
        model: M,
        inbox: mpsc::UnboundedReceiver<Submitted>,
        shared: Arc<Shared>,
    ) -> Self {
        let vocab = model.vocab();
        let eog = (0..vocab.size())
            .filter_map(|id| Token::try_from(id).ok())
            .filter(|&token| vocab.is_eog(token))
            .collect();
        Self {
            slots: (0..model.sequences()).map(Slot::new).collect(),
            waiting: VecDeque::new(),
            suspects: VecDeque::new(),
            rows: Vec::with_capacity(model.batch()),
            eog,
            model,
            inbox,
            shared,
        }
    }

    /// Runs until every handle is dropped or the engine is halted. Every job has ended then.
    pub(crate) fn run(mut self) {
        let Ok(clock) = tokio::runtime::Builder::new_current_thread().build() else {
            tracing::error!("the engine thread could not make its waiting room");
            return self.end_all(&Failed::Stopped);
        };
        while clock.block_on(self.receive()) {
            self.shared.pulse.beat();
            self.sweep();
            // A panic is a bug of ours; it must not take other requests or the process with it.
            let step = panic::catch_unwind(AssertUnwindSafe(|| self.step()));
            let outcome = step.unwrap_or_else(|_| {
                self.end_active(&Failed::Decode("internal error".into()));
                self.restart("a step panicked")
            });
            self.publish();
            if let Err(dead) = outcome {
                tracing::error!(error = %dead, "engine stopped");
                break;
            }
        }
        self.end_all(&Failed::Stopped);
    }

    /// Takes what has arrived; waits while there is nothing to do. `false`: stop.
    async fn receive(&mut self) -> bool {
        if self.waiting.is_empty() && self.slots.iter().all(|slot| slot.active.is_none()) {
            self.shared.pulse.waiting();
            tokio::select! {
                biased;
                () = self.shared.halt.cancelled() => return false,
                submitted = self.inbox.recv() => match submitted {
                    Some(submitted) => self.waiting.push_back(submitted),
                    None => return false,
                },
            }
        }
        while let Ok(submitted) = self.inbox.try_recv() {
            self.waiting.push_back(submitted);
        }
        !self.shared.halt.is_cancelled()
    }

    /// Drops jobs whose callers went away or whose time is up, then gives free sequences to waiting jobs.
    fn sweep(&mut self) {
        for slot in &mut self.slots {
            let Some(active) = &slot.active else { continue };
            if active.is_abandoned() {
                slot.free();
            } else if active.is_overdue() {
                let deadline = active.job.deadline;
                slot.fail(Failed::Deadline(deadline));
            }
        }
        self.waiting
            .retain(|submitted| !submitted.reply.is_abandoned());
        // The patience of jobs may differ, so the late ones need not be in front.
        for _ in 0..self.waiting.len() {
            let Some(submitted) = self.waiting.pop_front() else {
                break;
            };
            let patience = submitted.job.queue_wait;
            if submitted.at.elapsed() > patience {
                submitted.reply.end(Err(Failed::QueueWait(patience)));
            } else {
                self.waiting.push_back(submitted);
            }
        }
        while let Some(submitted) = self.waiting.pop_front() {
            let Some(at) = self.choose(&submitted.job) else {
                self.waiting.push_front(submitted);
                break;
            };
            self.admit(at, submitted);
        }
        self.publish();
    }

    /// The free sequence that suits the job best.
    fn choose(&self, job: &Job) -> Option<usize> {
        let free = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.active.is_none());
        free.max_by_key(|(_, slot)| slot.preference(job))
            .map(|(at, _)| at)
    }

    fn admit(&mut self, at: usize, submitted: Submitted) {
        let job = &submitted.job;
        let mut sampling = job.sampling.clone();
        if job.ignore_eos {
            let forbidden = self.eog.iter().map(|&token| (token, f32::NEG_INFINITY));
            sampling.logit_bias.extend(forbidden);
        }
        let mut sampler = match self.model.sampler(&sampling, job.grammar.as_ref()) {
            Ok(sampler) => sampler,
            Err(why) => return submitted.reply.end(Err(Failed::Unacceptable(why))),
        };
        if sampling.looks_back() {
            for &token in &job.prompt {
                self.model.observe(&mut sampler, token);
            }
        }
        let slot = &mut self.slots[at];
        let mut cached = slot.shared_prefix(job);
        if cached < slot.computed && !self.model.truncate(slot.sequence, small(cached)) {
            cached = 0;
        }
        slot.start(submitted, sampler, cached);
    }

    /// One batch: plan, decode, sample, commit.
    fn step(&mut self) -> Result<(), Dead> {
        let shares = self.plan();
        if shares.is_empty() {
            return Ok(());
        }
        self.rows.clear();
        for share in &shares {
            let slot = &self.slots[share.sequence as usize];
            self.rows.extend(slot.rows(share.tokens as usize));
        }
        let (slots, halt) = (&self.slots, &self.shared.halt);
        let pulse = &self.shared.pulse;
        let nodes = Cell::new(0_u32);
        // llama.cpp asks between the nodes of its graph, some hundred times a token. That it asks shows
        // that the graph goes forward; an answer now and then is enough.
        let abandoned = || {
            nodes.set(nodes.get().wrapping_add(1));
            if !nodes.get().is_multiple_of(NODES_BETWEEN_LOOKS) {
                return false;
            }
            pulse.beat();
            halt.is_cancelled()
                || shares.iter().all(|share| {
                    let active = &slots[share.sequence as usize].active;
                    let given_up =
                        |active: &Active<_>| active.is_abandoned() || active.is_overdue();
                    active.as_ref().is_none_or(given_up)
                })
        };
        match self.model.decode(&self.rows, &abandoned) {
            Ok(()) => {
                self.commit(&shares);
                Ok(())
            }
            Err(DecodeError::Abandoned) => {
                // Part of the batch may have been computed: cut back to what is certain.
                for share in &shares {
                    let slot = &mut self.slots[share.sequence as usize];
                    if !self.model.truncate(slot.sequence, small(slot.computed)) {
                        slot.forget();
                    }
                }
                Ok(())
            }
            Err(error) => self.recover(&shares, &error),
        }
    }

    fn plan(&mut self) -> Vec<Share> {
        let want = |slot: &Slot<M::Sampler>| {
            let tokens = slot.wanted();
            (tokens > 0).then_some(Want {
                sequence: slot.sequence,
                tokens,
            })
        };
        let room = Room {
            batch: small(self.model.batch()),
            ubatch: small(self.model.ubatch()),
        };
        while let Some(&suspect) = self.suspects.front() {
            if let Some(want) = want(&self.slots[suspect as usize]) {
                return plan::plan(&[want], room);
            }
            self.suspects.pop_front();
        }
        let wants: Vec<_> = self.slots.iter().filter_map(want).collect();
        plan::plan(&wants, room)
    }

    fn commit(&mut self, shares: &[Share]) {
        self.suspects.pop_front();
        let context = self.model.context();
        let mut row = 0;
        for share in shares {
            let slot = &mut self.slots[share.sequence as usize];
            row += share.tokens as usize;
            slot.computed += share.tokens as usize;
            if slot.computed < slot.tokens.len() {
                continue;
            }
            let Some(active) = &mut slot.active else {
                continue;
            };
            if active.job.max_tokens == 0 {
                slot.finish(Finish::Length);
                continue;
            }
            let logprobs = active.job.logprobs;
            match self.model.sample(&mut active.sampler, row - 1, logprobs) {
                Ok(sampled) => slot.take(&sampled, self.model.vocab(), context),
                Err(SampleError::Grammar(why)) => slot.fail(Failed::Unacceptable(why)),
                Err(SampleError::NotFinite) => {
                    slot.fail(Failed::Decode("the model computed no finite logits".into()));
                }
            }
        }
    }

    /// A batch failed: a job that was alone in it ends; several are tried again one by one.
    fn recover(&mut self, shares: &[Share], error: &DecodeError) -> Result<(), Dead> {
        tracing::warn!(%error, sequences = shares.len(), "a batch failed");
        if let DecodeError::Broken(why) = error {
            self.restart(why)?;
        }
        if let [alone] = shares {
            self.slots[alone.sequence as usize].fail(Failed::Decode(error.to_string()));
            self.suspects.pop_front();
        } else {
            self.suspects = shares.iter().map(|share| share.sequence).collect();
        }
        Ok(())
    }

    /// Brings the model back with empty caches; running jobs compute their tokens again.
    fn restart(&mut self, why: &str) -> Result<(), Dead> {
        tracing::warn!(why, "restarting the context");
        self.model
            .reset()
            .map_err(|error| Dead(error.to_string()))?;
        for slot in &mut self.slots {
            slot.forget();
        }
        Ok(())
    }

    fn publish(&self) {
        let running = self
            .slots
            .iter()
            .filter(|slot| slot.active.is_some())
            .count();
        self.shared.running.store(small(running), Ordering::Relaxed);
    }

    fn end_active(&mut self, why: &Failed) {
        for slot in &mut self.slots {
            slot.fail(why.clone());
        }
    }

    fn end_all(&mut self, why: &Failed) {
        self.inbox.close();
        self.end_active(why);
        while let Ok(submitted) = self.inbox.try_recv() {
            self.waiting.push_back(submitted);
        }
        for submitted in self.waiting.drain(..) {
            submitted.reply.end(Err(why.clone()));
        }
        self.publish();
    }
}

#[cfg(test)]
mod tests;

//! The thread: receive, admit, plan, decode, sample, commit. State moves only after the device said yes.

mod admit;
mod commit;
mod errands;
mod guess;
mod keep;
mod step;
mod turns;

use std::{
    collections::{HashMap, VecDeque},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::turns::Turns;
use super::{
    Done, Failed, Message, Set, Shared, Token, Tuning,
    model::{Model, Row},
    pace::Pace,
    prefix::Cuts,
    queue::{Completions, Queue},
    slot::{Slot, small},
    state::{Archive, Errand},
    store::{Store, Weight},
};

/// The engine thread's state. All of it ends with the thread.
pub(crate) struct Worker<M: Model> {
    model: M,
    tuning: Tuning,
    inbox: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    queue: Queue,
    /// Each waits until no job has its sequence.
    errands: Vec<Errand>,
    slots: Vec<Slot<M::Sampler>>,
    /// Jobs admitted so far.
    admissions: u64,
    /// Sequences that were put aside.
    store: Store,
    /// What earlier processes computed.
    archive: Option<Archive>,
    /// Sequences whose common batch failed: each is tried alone, so that only the guilty one ends.
    suspects: VecDeque<u32>,
    /// The model's end-of-generation tokens, forbidden when a job ignores them.
    eog: Vec<Token>,
    rows: Vec<Row>,
    pace: Pace,
    /// Times that batches were planned.
    rounds: u64,
    turns: Turns,
    /// The adapters of the latest batch.
    worn: Set,
    /// Whether the model's drafter, if it has one, can still be counted on.
    drafting: bool,
    done: Done,
    completions: Completions,
    /// Jobs ended when [`Self::completions`] was last told, and when that was.
    told: (u32, Instant),
}

/// Between two looks at those who wait for a file and for nothing else.
const LOOK_AT_FILES: Duration = Duration::from_millis(500);

/// The engine cannot go on: its model could not be brought back.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot go on: {0}")]
struct Dead(String);

impl<M: Model> Worker<M> {
    pub(crate) fn new(
        model: M,
        tuning: Tuning,
        inbox: mpsc::UnboundedReceiver<Message>,
        shared: Arc<Shared>,
        archive: Option<Archive>,
    ) -> Self {
        let vocab = model.vocab();
        let eog = (0..vocab.size())
            .filter_map(|id| Token::try_from(id).ok())
            .filter(|&token| vocab.is_eog(token))
            .collect();
        let mut pace = Pace::default();
        if let Some(time) = model.ubatch_time() {
            // Twice: what was seen once only is not believed.
            pace.observe(model.ubatch(), time, false);
            pace.observe(model.ubatch(), time, false);
        }
        Self {
            slots: (0..model.sequences()).map(Slot::new).collect(),
            queue: Queue::default(),
            errands: Vec::new(),
            admissions: 0,
            store: Store::default(),
            archive,
            suspects: VecDeque::new(),
            rows: Vec::with_capacity(model.batch()),
            eog,
            model,
            tuning,
            inbox,
            shared,
            pace,
            rounds: 0,
            turns: Turns::default(),
            worn: Set::PLAIN,
            drafting: true,
            done: Done::default(),
            completions: Completions::default(),
            told: (0, Instant::now()),
        }
    }

    /// Runs until every handle is dropped or the engine is halted. Every job has ended then.
    pub(crate) fn run(mut self) {
        let waiting_room = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let Ok(clock) = waiting_room else {
            tracing::error!("the engine thread could not make its waiting room");
            return self.end_all(&Failed::Stopped);
        };
        while clock.block_on(self.receive()) {
            self.shared.pulse.beat();
            // A panic is a bug of ours; it must not take other requests or the process with it.
            let step = panic::catch_unwind(AssertUnwindSafe(|| {
                self.sweep();
                self.step()
            }));
            let outcome = step.unwrap_or_else(|_| {
                self.end_active(&Failed::Decode("internal error".into()));
                self.restart("a step panicked")
            });
            self.publish();
            if let Err(dead) = outcome {
                tracing::error!(error = %dead, "engine stopped");
                return self.end_all(&Failed::Stopped);
            }
        }
        self.end_all(&Failed::Stopped);
        self.file_away();
    }

    /// Takes what has arrived; waits while there is nothing to do. `false`: stop.
    async fn receive(&mut self) -> bool {
        let is_idle = self.queue.only_awaits() && self.errands.is_empty();
        if is_idle && self.slots.iter().all(|slot| slot.active.is_none()) {
            self.shared.pulse.waiting();
            let is_awaited = !self.queue.is_empty();
            tokio::select! {
                biased;
                () = self.shared.halt.cancelled() => return false,
                message = self.inbox.recv() => match message {
                    Some(message) => self.take_in(message),
                    None => return false,
                },
                // Whoever waits for a file may go away, or lose patience.
                () = tokio::time::sleep(LOOK_AT_FILES), if is_awaited => {}
            }
            // Idle time says nothing about how fast requests are completed.
            self.told.1 = Instant::now();
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.take_in(message);
        }
        !self.shared.halt.is_cancelled()
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Job(mut submitted) => {
                let free = self.slots.iter().filter(|slot| slot.active.is_none());
                let free = small(free.count());
                submitted.awaits = self.fetch(&submitted.job);
                self.queue.push(submitted, free);
            }
            Message::Errand(errand) => self.errands.push(errand),
            Message::Fetched(fetched) => self.shelve(fetched),
        }
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
        self.queue.sweep();
        self.release_late();
        self.run_errands();
        while self.slots.iter().any(|slot| slot.active.is_none())
            && let Some(submitted) = self.queue.next(&self.running_by_key())
        {
            self.admit(submitted);
            self.publish_weight();
        }
        self.publish();
    }

    fn running_by_key(&self) -> HashMap<u64, u32> {
        let mut running = HashMap::new();
        for active in self.slots.iter().filter_map(|slot| slot.active.as_ref()) {
            *running.entry(active.job.claimant.key).or_default() += 1;
        }
        running
    }

    fn cuts(&self) -> Cuts {
        Cuts {
            anywhere: self.model.cuts_anywhere(),
            grid: self.grid(),
        }
    }

    /// Prompts are computed in chunks of this many tokens, from their start; 1: as it suits.
    fn grid(&self) -> usize {
        if self.tuning.reproducible {
            self.model.ubatch()
        } else {
            1
        }
    }

    /// Brings the model back with empty caches; running jobs compute their tokens again.
    fn restart(&mut self, why: &str) -> Result<(), Dead> {
        tracing::warn!(why, "restarting the context");
        self.model
            .reset()
            .map_err(|error| Dead(error.to_string()))?;
        for slot in &mut self.slots {
            slot.prefix.truncate(0);
        }
        Ok(())
    }

    fn publish(&mut self) {
        let running = self.slots.iter().filter(|slot| slot.active.is_some());
        let running = small(running.count());
        self.shared.running.store(running, Ordering::Relaxed);
        let context = self.model.context();
        let states = self.slots.iter().map(|slot| slot.state(context));
        self.shared.sequences.tell(states);
        let tokens = self.slots.iter().map(Slot::computed).sum();
        self.shared
            .kept_tokens
            .store(small(tokens), Ordering::Relaxed);
        self.shared.tally.tell(&self.done);
        let ended = self.shared.ended.load(Ordering::Relaxed);
        let news = ended.wrapping_sub(self.told.0);
        if news > 0 {
            self.completions.observe(self.told.1.elapsed(), news);
            self.told = (ended, Instant::now());
            if let Some(interval) = self.completions.interval() {
                self.shared.set_completion_interval(interval);
            }
        }
    }

    /// States come and go with admissions and at checkpoints: no step has to count them.
    fn publish_weight(&self) {
        let bytes = self.weigh() as u64;
        self.shared.kept_bytes.store(bytes, Ordering::Relaxed);
        let aside = small(self.store.len());
        self.shared.kept_aside.store(aside, Ordering::Relaxed);
    }

    /// Bytes of all states in host memory.
    fn weigh(&self) -> usize {
        let mut weight = Weight::default();
        self.store.weigh(&mut weight);
        for slot in &self.slots {
            weight.add(&slot.prefix);
        }
        let fetching = self.archive.as_ref().map_or(0, Archive::fetching_bytes);
        weight.bytes() + fetching
    }

    fn end_active(&mut self, why: &Failed) {
        for slot in &mut self.slots {
            slot.fail(why.clone());
        }
    }

    fn end_all(&mut self, why: &Failed) {
        self.inbox.close();
        self.end_active(why);
        while let Ok(message) = self.inbox.try_recv() {
            if let Message::Job(submitted) = message {
                submitted.reply.end(Err(why.clone()));
            }
        }
        self.errands.clear();
        for submitted in self.queue.drain() {
            submitted.reply.end(Err(why.clone()));
        }
        self.publish();
    }
}

#[cfg(test)]
mod tests;

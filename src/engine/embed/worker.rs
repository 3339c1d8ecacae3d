//! The thread: receive, take turns, read, hand out. State moves only after the device said yes.

use std::{
    collections::VecDeque,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Encoded, Encoder, Facts, Job, Output, Reply, Submitted,
    turns::{self, Room, Turns},
};
use crate::engine::{Done, Failed, Shared, Times, Token, model::DecodeError, queue::Completions};

pub(super) struct Worker<M: Encoder> {
    encoder: M,
    facts: Facts,
    inbox: mpsc::UnboundedReceiver<Submitted>,
    shared: Arc<Shared>,
    /// In order of arrival.
    waiting: VecDeque<Submitted>,
    /// Those that have turns; the first has the next.
    active: VecDeque<Active>,
    /// Texts to read one by one, because a step with several failed: only the guilty job shall end.
    suspects: usize,
    done: Done,
    completions: Completions,
    /// Jobs ended when [`Self::completions`] was last told, and when that was.
    told: (u32, Instant),
}

struct Active {
    job: Job,
    reply: Reply,
    queued: Duration,
    began: Instant,
    /// Of the first texts, in their order.
    outputs: Vec<Output>,
}

/// The engine cannot go on: its encoder could not be brought back.
#[derive(Debug, thiserror::Error)]
#[error("the engine cannot go on: {0}")]
struct Dead(String);

impl Active {
    fn begin(submitted: Submitted) -> Self {
        let Submitted { job, reply, at } = submitted;
        Self {
            outputs: Vec::with_capacity(job.texts.len()),
            job,
            reply,
            queued: at.elapsed(),
            began: Instant::now(),
        }
    }

    fn left(&self) -> &[Vec<Token>] {
        &self.job.texts[self.outputs.len()..]
    }

    fn is_overdue(&self) -> bool {
        self.began.elapsed() > self.job.deadline
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_abandoned() || self.is_overdue()
    }

    fn finish(self) {
        let tokens: usize = self.job.texts.iter().map(Vec::len).sum();
        self.reply.end(Ok(Encoded {
            outputs: self.outputs,
            tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
            times: Times {
                queued: self.queued,
                prefill: self.began.elapsed(),
                decode: Duration::ZERO,
            },
        }));
    }
}

impl<M: Encoder> Worker<M> {
    pub(super) fn new(
        encoder: M,
        inbox: mpsc::UnboundedReceiver<Submitted>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            facts: encoder.facts(),
            encoder,
            inbox,
            shared,
            waiting: VecDeque::new(),
            active: VecDeque::new(),
            suspects: 0,
            done: Done::default(),
            completions: Completions::default(),
            told: (0, Instant::now()),
        }
    }

    /// Runs until every handle is dropped or the engine is halted. Every job has ended then.
    pub(super) fn run(mut self) {
        let Ok(clock) = tokio::runtime::Builder::new_current_thread().build() else {
            tracing::error!("the engine thread could not make its waiting room");
            return self.end_all();
        };
        while clock.block_on(self.receive()) {
            self.shared.pulse.beat();
            // A panic is a bug of ours; it must not take other requests or the process with it.
            let step = panic::catch_unwind(AssertUnwindSafe(|| {
                self.sweep();
                self.step()
            }));
            let outcome = step.unwrap_or_else(|_| {
                for active in self.active.drain(..) {
                    let internal = Failed::Decode("internal error".into());
                    active.reply.end(Err(internal));
                }
                self.reset("a step panicked")
            });
            self.publish();
            if let Err(dead) = outcome {
                tracing::error!(error = %dead, "engine stopped");
                break;
            }
        }
        self.end_all();
    }

    /// Takes what has arrived; waits while there is nothing to do. `false`: stop.
    async fn receive(&mut self) -> bool {
        if self.waiting.is_empty() && self.active.is_empty() {
            self.shared.pulse.waiting();
            tokio::select! {
                biased;
                () = self.shared.halt.cancelled() => return false,
                submitted = self.inbox.recv() => match submitted {
                    Some(submitted) => self.waiting.push_back(submitted),
                    None => return false,
                },
            }
            // Idle time says nothing about how fast requests are completed.
            self.told.1 = Instant::now();
        }
        while let Ok(submitted) = self.inbox.try_recv() {
            self.waiting.push_back(submitted);
        }
        !self.shared.halt.is_cancelled()
    }

    /// Drops jobs whose callers went away or whose time is up, then lets waiting ones take part.
    fn sweep(&mut self) {
        self.active.retain(|active| !active.reply.is_abandoned());
        for _ in 0..self.active.len() {
            let Some(active) = self.active.pop_front() else {
                break;
            };
            if active.is_overdue() {
                let limit = active.job.deadline;
                active.reply.end(Err(Failed::Deadline(limit)));
            } else {
                self.active.push_back(active);
            }
        }
        self.waiting
            .retain(|submitted| !submitted.reply.is_abandoned());
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
        let most = self.facts.texts as usize;
        while self.active.len() < most
            && let Some(submitted) = self.waiting.pop_front()
        {
            self.active.push_back(Active::begin(submitted));
        }
        self.publish();
    }

    /// One step: take turns, read, hand out.
    fn step(&mut self) -> Result<(), Dead> {
        if self.active.is_empty() {
            return Ok(());
        }
        let Turns { counts, next } = self.turns();
        let sharing = || self.active.iter().zip(&counts);
        let texts: Vec<&[Token]> = sharing()
            .flat_map(|(active, &count)| active.left()[..count].iter().map(Vec::as_slice))
            .collect();
        let given_up = || {
            let mut readers = sharing().filter(|(_, count)| **count > 0);
            readers.all(|(active, _)| active.is_given_up())
        };
        let looks = self.shared.pulse.looks();
        let abandoned = || looks.due() && (self.shared.halt.is_cancelled() || given_up());
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let began = Instant::now();
        match self.encoder.encode(&texts, &abandoned) {
            Ok(outputs) => {
                self.done.steps += 1;
                self.done.prompt_tokens += tokens as u64;
                self.done.prefill_tokens += tokens as u64;
                self.done.prefill += began.elapsed();
                self.suspects = self.suspects.saturating_sub(texts.len());
                self.hand_out(&counts, next, outputs);
                Ok(())
            }
            Err(DecodeError::Abandoned) => Ok(()),
            Err(error) => {
                let count = texts.len();
                self.recover(count, &error)
            }
        }
    }

    fn turns(&self) -> Turns {
        let jobs: Vec<_> = self
            .active
            .iter()
            .map(|active| move |at: usize| active.left().get(at).map(Vec::len))
            .collect();
        let room = Room {
            rows: self.facts.rows as usize,
            texts: if self.suspects > 0 {
                1
            } else {
                self.facts.texts as usize
            },
        };
        turns::take(&jobs, room)
    }

    fn hand_out(&mut self, counts: &[usize], next: usize, outputs: Vec<Output>) {
        let mut outputs = outputs.into_iter();
        let mut jobs: Vec<_> = self.active.drain(..).map(Some).collect();
        for (job, &count) in jobs.iter_mut().zip(counts) {
            let Some(mut active) = job.take() else {
                continue;
            };
            active.outputs.extend(outputs.by_ref().take(count));
            if !active.outputs.iter().all(Output::is_finite) {
                let why = "the model computed no finite numbers";
                active.reply.end(Err(Failed::Decode(why.into())));
            } else if active.left().is_empty() {
                active.finish();
            } else {
                *job = Some(active);
            }
        }
        jobs.rotate_left(next);
        self.active.extend(jobs.into_iter().flatten());
    }

    /// A step failed: a job that was alone in it ends; several texts are tried again one by one.
    fn recover(&mut self, texts: usize, error: &DecodeError) -> Result<(), Dead> {
        tracing::warn!(%error, texts, "a step failed");
        if let DecodeError::Broken(why) = error {
            self.reset(why)?;
        }
        if texts > 1 {
            self.suspects = texts;
        } else {
            self.suspects = self.suspects.saturating_sub(1);
            // The first always has a turn, so it was the one.
            if let Some(active) = self.active.pop_front() {
                let why = Failed::Decode(error.to_string());
                active.reply.end(Err(why));
            }
        }
        Ok(())
    }

    fn reset(&mut self, why: &str) -> Result<(), Dead> {
        tracing::warn!(why, "restarting the context");
        self.encoder
            .reset()
            .map_err(|error| Dead(error.to_string()))
    }

    fn publish(&mut self) {
        let running = u32::try_from(self.active.len()).unwrap_or(u32::MAX);
        self.shared.running.store(running, Ordering::Relaxed);
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

    fn end_all(&mut self) {
        self.inbox.close();
        // Each ends with `Stopped` when it is dropped.
        self.active.clear();
        self.waiting.clear();
        while self.inbox.try_recv().is_ok() {}
        self.publish();
    }
}

impl Output {
    fn is_finite(&self) -> bool {
        let finite = |vector: &[f32]| vector.iter().all(|x| x.is_finite());
        match self {
            Self::Pooled(vector) => finite(vector),
            Self::Tokens(vectors) => vectors.iter().all(|vector| finite(vector)),
        }
    }
}

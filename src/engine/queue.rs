//! Jobs that wait for a sequence: each key has its fair share of the turns.

use std::{collections::HashMap, time::Duration};

use super::{Failed, Job, Submitted};

/// In order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Vec<Submitted>,
    /// When each key that waits had its last turn, as a count of turns.
    last_turns: HashMap<u64, u64>,
    turns: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, submitted: Submitted) {
        self.waiting.push(submitted);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Drops the jobs whose callers went away, and ends those that have waited too long.
    pub(crate) fn sweep(&mut self) {
        let late = |submitted: &mut Submitted| submitted.at.elapsed() > submitted.job.queue_wait;
        self.waiting
            .retain(|submitted| !submitted.reply.is_abandoned());
        for submitted in self.waiting.extract_if(.., late) {
            let patience = submitted.job.queue_wait;
            submitted.reply.end(Err(Failed::QueueWait(patience)));
        }
    }

    /// The job whose turn it is: the oldest of the key that has the fewest running, and of several such keys the one
    /// whose last turn is longest ago.
    pub(crate) fn next(&mut self, running: &HashMap<u64, u32>) -> Option<Submitted> {
        let rank = |job: &Job| {
            let running = running.get(&job.key).copied().unwrap_or(0);
            let last = self.last_turns.get(&job.key).copied().unwrap_or(0);
            (running, last)
        };
        // The first of equals: the oldest.
        let at = (0..self.waiting.len()).min_by_key(|&at| rank(&self.waiting[at].job))?;
        let next = self.waiting.remove(at);
        self.turns += 1;
        self.last_turns.insert(next.job.key, self.turns);
        if self.waiting.is_empty() {
            self.last_turns.clear(); // nobody has anything against anybody
        }
        Some(next)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Submitted> {
        self.waiting.drain(..)
    }
}

/// How fast requests are completed, learnt from their ends.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    /// Seconds between two ends, while there was work.
    interval: Option<f64>,
}

impl Completions {
    const WEIGHT: f64 = 0.2;

    /// `ended` jobs ended in the last `busy` of work.
    pub(crate) fn observe(&mut self, busy: Duration, ended: u32) {
        let interval = busy.as_secs_f64() / f64::from(ended.max(1));
        self.interval = Some(match self.interval {
            None => interval,
            Some(old) => old + (interval - old) * Self::WEIGHT,
        });
    }

    /// From one end to the next.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval.map(Duration::from_secs_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_completions_follows_what_is_observed() {
        let mut completions = Completions::default();
        assert_eq!(completions.interval(), None);
        completions.observe(Duration::from_secs(4), 2);
        assert_eq!(completions.interval(), Some(Duration::from_secs(2)));
        completions.observe(Duration::from_secs(1), 1);
        assert!(completions.interval() < Some(Duration::from_secs(2)));
    }
}

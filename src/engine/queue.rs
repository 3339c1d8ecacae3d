//! Jobs that wait for a sequence: each key has its fair share of the turns.

use std::{collections::HashMap, time::Duration};

use super::{Claimant, Failed, Job, Submitted, slot::small, state::ArchiveName};

/// In order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Vec<Submitted>,
    /// Where each key that waits stands: what its turns so far have cost it, which is less for a larger share.
    stands: HashMap<u64, u64>,
    /// Where the key stood that had the last turn. Who comes anew stands no further back.
    front: u64,
}

/// What a turn costs a key with a share of 1.
const TURN: u64 = 1 << 20;

impl Queue {
    /// Lets a job wait, or ends it where its key's places are taken. `free`: sequences that are about to take jobs.
    pub(crate) fn push(&mut self, submitted: Submitted, free: u32) {
        let Claimant { key, places, .. } = submitted.job.claimant;
        let same = |other: &&Submitted| other.job.claimant.key == key;
        let waiting = small(self.waiting.iter().filter(same).count());
        if waiting >= places.saturating_add(free) {
            submitted.reply.end(Err(Failed::Share(waiting)));
        } else {
            self.waiting.push(submitted);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether all who wait do so for a file.
    pub(crate) fn only_awaits(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.awaits.is_some())
    }

    /// Those who wait for the file need wait for it no longer.
    pub(crate) fn release(&mut self, name: &ArchiveName) {
        for waiting in &mut self.waiting {
            waiting.awaits.take_if(|awaited| awaited == name);
        }
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

    /// The job whose turn it is: the oldest of the key that has the fewest running for its share, and of several such
    /// keys the one that stands furthest in front.
    pub(crate) fn next(&mut self, running: &HashMap<u64, u32>) -> Option<Submitted> {
        let rank = |job: &Job| {
            let Claimant { key, share, .. } = job.claimant;
            let running = running.get(&key).copied().unwrap_or(0);
            (
                u64::from(running) * TURN / u64::from(share.max(1)),
                self.stand(key),
            )
        };
        // The first of equals: the oldest.
        let at = (0..self.waiting.len())
            .filter(|&at| self.waiting[at].awaits.is_none())
            .min_by_key(|&at| rank(&self.waiting[at].job))?;
        let next = self.waiting.remove(at);
        let Claimant { key, share, .. } = next.job.claimant;
        self.front = self.stand(key);
        let cost = TURN / u64::from(share.max(1));
        self.stands.insert(key, self.front + cost);
        if self.waiting.is_empty() {
            // Nobody has anything against anybody.
            self.stands.clear();
            self.front = 0;
        }
        Some(next)
    }

    fn stand(&self, key: u64) -> u64 {
        let stand = self.stands.get(&key).copied().unwrap_or(0);
        stand.max(self.front)
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
    use std::{
        collections::HashMap,
        sync::{Arc, atomic::AtomicU32},
        time::Instant,
    };

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::engine::{Enough, Event, Reply, Sampling, reply::Place};

    fn submit(queue: &mut Queue, key: u64, share: u32) -> UnboundedReceiver<Event> {
        push(queue, key, share, None)
    }

    fn push(
        queue: &mut Queue,
        key: u64,
        share: u32,
        awaits: Option<ArchiveName>,
    ) -> UnboundedReceiver<Event> {
        let job = Job {
            prompt: Vec::new(),
            media: Vec::new(),
            max_tokens: 1,
            shift: None,
            forgotten: 0,
            sampling: Sampling::default(),
            grammar: None,
            stop: Vec::new(),
            enough: Enough::default(),
            visible: Vec::new(),
            stop_tokens: Vec::new(),
            prediction: Vec::new(),
            ignore_eos: false,
            score_prompt: false,
            min_tokens: 0,
            logprobs: None,
            tenant: None,
            adapters: crate::engine::Adapters::default(),
            claimant: Claimant {
                key,
                share,
                places: 40 * share,
            },
            queue_wait: Duration::MAX,
            deadline: Duration::MAX,
        };
        let (events, receiver) = unbounded_channel();
        let none = Arc::new(AtomicU32::new(0));
        let place = Place::take(&none, &none, 1).unwrap();
        let reply = Reply::new(events, place);
        let at = Instant::now();
        let submitted = Submitted {
            job,
            reply,
            at,
            awaits,
        };
        queue.push(submitted, 0);
        receiver
    }

    /// Whose the next turns are when each ends before the next.
    fn turns(queue: &mut Queue, count: usize) -> Vec<u64> {
        let none = HashMap::new();
        let next = std::iter::from_fn(|| queue.next(&none));
        next.take(count).map(|next| next.job.claimant.key).collect()
    }

    #[test]
    fn turns_follow_the_shares_and_who_comes_late_makes_up_for_nothing() {
        let mut queue = Queue::default();
        let mut events = Vec::new();
        for _ in 0..40 {
            events.push(submit(&mut queue, 1, 1));
            events.push(submit(&mut queue, 3, 3));
        }
        let first = turns(&mut queue, 16);
        assert_eq!(
            first.iter().filter(|&&key| key == 3).count(),
            12,
            "{first:?}"
        );
        for _ in 0..40 {
            events.push(submit(&mut queue, 2, 1));
        }
        let then = turns(&mut queue, 20);
        let of = |key| then.iter().filter(|&&other| other == key).count();
        assert_eq!((of(1), of(2), of(3)), (4, 4, 12), "{then:?}");
    }

    #[test]
    fn who_waits_for_a_file_is_passed_by_until_it_is_there() {
        let mut queue = Queue::default();
        let name: ArchiveName = "file".into();
        let _first = push(&mut queue, 1, 1, Some(name.clone()));
        let _second = submit(&mut queue, 2, 1);
        assert!(!queue.only_awaits());
        assert_eq!(turns(&mut queue, 2), [2]);
        assert!(queue.only_awaits() && !queue.is_empty());
        queue.release(&"another".into());
        assert_eq!(turns(&mut queue, 1), [] as [u64; 0]);
        queue.release(&name);
        assert_eq!(turns(&mut queue, 1), [1]);
    }

    #[test]
    fn a_key_fills_no_places_but_its_own() {
        let mut queue = Queue::default();
        let mut events: Vec<_> = (0..41).map(|_| submit(&mut queue, 1, 1)).collect();
        let last = events.last_mut().unwrap().try_recv();
        assert_eq!(last, Ok(Event::End(Err(Failed::Share(40)))));
        let mut other = submit(&mut queue, 2, 1);
        assert!(other.try_recv().is_err());
    }

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

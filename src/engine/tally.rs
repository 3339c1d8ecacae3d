//! What an engine thread has done so far: counted by itself, told after every step, readable from any thread.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Since the engine was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Of the prompts of jobs that began to run, whether computed or found in the cache.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Of prompts, computed; what was lost with a failed step counts again.
    pub prefill_tokens: u64,
    pub generated_tokens: u64,
    /// Guessed tokens that were computed ahead, and came true or not.
    pub accepted_tokens: u64,
    pub rejected_tokens: u64,
    /// Batches computed.
    pub steps: u64,
    /// In steps that computed prompts, whatever else they computed.
    pub prefill: Duration,
    /// In steps that generated, whatever else they computed.
    pub decode: Duration,
}

/// The same as the other threads see it. Each number is whole; together they may be a step apart.
#[derive(Default)]
pub(crate) struct Tally {
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    prefill_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    accepted_tokens: AtomicU64,
    rejected_tokens: AtomicU64,
    steps: AtomicU64,
    prefill_nanos: AtomicU64,
    decode_nanos: AtomicU64,
}

impl Tally {
    /// Only the engine thread tells.
    pub(crate) fn tell(&self, done: &Done) {
        let Done {
            prompt_tokens,
            cached_tokens,
            prefill_tokens,
            generated_tokens,
            accepted_tokens,
            rejected_tokens,
            steps,
            prefill,
            decode,
        } = *done;
        let pairs = [
            (&self.prompt_tokens, prompt_tokens),
            (&self.cached_tokens, cached_tokens),
            (&self.prefill_tokens, prefill_tokens),
            (&self.generated_tokens, generated_tokens),
            (&self.accepted_tokens, accepted_tokens),
            (&self.rejected_tokens, rejected_tokens),
            (&self.steps, steps),
            (&self.prefill_nanos, nanos(prefill)),
            (&self.decode_nanos, nanos(decode)),
        ];
        for (told, now) in pairs {
            told.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn told(&self) -> Done {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Done {
            prompt_tokens: read(&self.prompt_tokens),
            cached_tokens: read(&self.cached_tokens),
            prefill_tokens: read(&self.prefill_tokens),
            generated_tokens: read(&self.generated_tokens),
            accepted_tokens: read(&self.accepted_tokens),
            rejected_tokens: read(&self.rejected_tokens),
            steps: read(&self.steps),
            prefill: Duration::from_nanos(read(&self.prefill_nanos)),
            decode: Duration::from_nanos(read(&self.decode_nanos)),
        }
    }
}

/// Enough for centuries.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_back_number_by_number() {
        let done = Done {
            prompt_tokens: 1,
            cached_tokens: 2,
            prefill_tokens: 3,
            generated_tokens: 4,
            accepted_tokens: 5,
            rejected_tokens: 6,
            steps: 7,
            prefill: Duration::from_nanos(8),
            decode: Duration::from_secs(9),
        };
        let tally = Tally::default();
        assert_eq!(tally.told(), Done::default());
        tally.tell(&done);
        assert_eq!(tally.told(), done);
    }
}

//! When to try again: exponential pauses with jitter, the server's own wish first.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use super::{FetchError, progress::Progress};

/// The server's `Retry-After` is honoured up to here.
const LONGEST_WISH: Duration = Duration::from_mins(10);

/// How often and how patiently a failing request is repeated.
pub struct Backoff {
    /// Attempts in a row that bring nothing before giving up.
    pub attempts: u32,
    /// Pause after the first failure; each further one doubles it.
    pub first: Duration,
    pub longest: Duration,
    /// Waits; tests put a recorder here.
    pub pause: Box<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            attempts: 8,
            first: Duration::from_secs(1),
            longest: Duration::from_mins(1),
            pause: Box::new(std::thread::sleep),
        }
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("attempts", &self.attempts)
            .field("first", &self.first)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

/// What went wrong with one attempt.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another attempt would end the same way.
    Final(FetchError),
    /// It may work later: after `wait` if the server said so.
    Passing { why: String, wait: Option<Duration> },
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        Self::Final(error)
    }
}

/// The failures in a row of one request.
pub(super) struct Tries<'a> {
    backoff: &'a Backoff,
    url: &'a str,
    failures: u32,
}

impl Backoff {
    pub(super) fn tries<'a>(&'a self, url: &'a str) -> Tries<'a> {
        Tries {
            backoff: self,
            url,
            failures: 0,
        }
    }

    /// Repeats `attempt` until it works, fails for good, or has failed too often.
    pub(super) fn run<T>(
        &self,
        url: &str,
        progress: &Progress,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, FetchError> {
        let mut tries = self.tries(url);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(trouble) => tries.wait_after(trouble, progress)?,
            }
        }
    }

    /// Between half of the pause and all of it: many clients must not come back together.
    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = self.first.saturating_mul(doubled).min(self.longest);
        let random = RandomState::new().hash_one(failures) >> 32;
        pause.mul_f64(0.5 + random as f64 / f64::from(u32::MAX) / 2.0)
    }
}

impl Tries<'_> {
    /// The last attempt brought something new: the count of failures starts again.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or says why there is none.
    pub(super) fn wait_after(
        &mut self,
        trouble: Trouble,
        progress: &Progress,
    ) -> Result<(), FetchError> {
        let (why, wait) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing { why, wait } => (why, wait),
        };
        self.failures += 1;
        if self.failures >= self.backoff.attempts {
            return Err(FetchError::GaveUp {
                url: self.url.to_owned(),
                attempts: self.failures,
                last: why,
            });
        }
        let pause = self
            .backoff
            .pause_after(self.failures)
            .max(wait.unwrap_or_default().min(LONGEST_WISH));
        progress.note(&format!(
            "{why}; trying again in {:.0} s",
            pause.as_secs_f64().ceil()
        ));
        (self.backoff.pause)(pause);
        Ok(())
    }
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_keep_at_least_half() {
        let backoff = Backoff {
            longest: Duration::from_secs(20),
            ..Backoff::default()
        };
        for (failures, whole) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 20), (60, 20)] {
            let whole = Duration::from_secs(whole);
            let pause = backoff.pause_after(failures);
            assert!(
                pause <= whole && pause >= whole / 2,
                "{failures}: {pause:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 10:00:00 GMT").unwrap();
        let read = |value| retry_after(value, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            read("Sat, 21 Nov 2026 10:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(read("Sat, 21 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}

//! What NVIDIA's GPUs say of themselves, read over NVML. A machine without NVML has no readings, and that is normal.

mod events;
mod reading;

use std::{ffi::OsStr, sync::Arc, time::Duration};

use nvml_wrapper::{Nvml, error::NvmlError};
use tokio::{sync::Semaphore, task, time::timeout};

use self::events::Events;
pub use self::{
    events::Xid,
    reading::{Clocks, Ecc, Memory, Pcie, Reading},
};

/// NVML's name as the driver installs it.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Healthy drivers answer within milliseconds; one that lost its GPU may not answer at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The machine's GPUs, opened once. Cheap to clone; NVML is closed with the last clone.
#[derive(Clone, Default)]
pub struct Gpus(Option<Arc<Opened>>);

struct Opened {
    nvml: Arc<Nvml>,
    events: Events,
    /// At most one thread hangs with a driver that does.
    turn: Arc<Semaphore>,
}

impl Gpus {
    /// Opens NVML and begins to follow its events. Blocks while the driver wakes up, up to seconds.
    pub fn open() -> Self {
        Self::open_at(LIBRARY.as_ref())
    }

    fn open_at(library: &OsStr) -> Self {
        match Nvml::builder().lib_path(library).init() {
            Ok(nvml) => {
                let nvml = Arc::new(nvml);
                Self(Some(Arc::new(Opened {
                    events: Events::follow(Arc::clone(&nvml)),
                    nvml,
                    turn: Arc::new(Semaphore::new(1)),
                })))
            }
            Err(error) => {
                tracing::debug!(%error, "no readings of GPUs");
                Self(None)
            }
        }
    }

    /// What each GPU says now, in NVML's order. Blocks for milliseconds; for ever when the driver hangs.
    pub fn read(&self) -> Vec<Reading> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |opened| opened.read())
    }

    /// As [`Gpus::read`] without blocking; `None`: the driver did not answer in time.
    pub async fn now(&self) -> Option<Vec<Reading>> {
        let Some(opened) = self.0.clone() else {
            return Some(Vec::new());
        };
        let reading = async {
            let turn = Arc::clone(&opened.turn).acquire_owned().await.ok()?;
            let read = move || {
                // Held by the thread, not by who waits for it.
                let _turn = turn;
                opened.read()
            };
            task::spawn_blocking(read).await.ok()
        };
        timeout(PATIENCE, reading).await.ok().flatten()
    }
}

impl Opened {
    fn read(&self) -> Vec<Reading> {
        let count = self.nvml.device_count().unwrap_or_else(|error| {
            tracing::debug!(%error, "GPUs cannot be counted");
            0
        });
        (0..count)
            .map(|index| match self.nvml.device_by_index(index) {
                Ok(device) => Reading::of(&device, &self.events),
                // It fell off the bus; the others must not move up into its place.
                Err(error) => Reading {
                    error: Some(error.to_string()),
                    ..Reading::default()
                },
            })
            .collect()
    }
}

/// A reading that this GPU, its driver or our rights do not give is none.
fn known<T>(reading: Result<T, NvmlError>) -> Option<T> {
    reading.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn without_nvml_there_is_no_gpu_and_one_debug_line_says_so() {
        let text = crate::log::captured(|| {
            let gpus = Gpus::open_at("libnvidia-ml-is-not-here.so".as_ref());
            assert_eq!((gpus.read(), gpus.clone().read()), (vec![], vec![]));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_start().starts_with("DEBUG "), "{text}");
    }

    #[tokio::test]
    async fn without_nvml_nobody_waits_for_readings() {
        assert_eq!(Gpus::default().now().await, Some(vec![]));
    }

    #[tokio::test]
    #[ignore = "needs an NVIDIA GPU"]
    async fn a_real_gpu_tells_who_it_is_and_what_it_does() {
        let gpus = Gpus::open();
        let readings = gpus.now().await.unwrap();
        println!("{}", serde_json::to_string_pretty(&readings).unwrap());
        assert!(!readings.is_empty());
        for reading in readings {
            assert!(reading.uuid.unwrap().starts_with("GPU-"));
            let memory = reading.memory.unwrap();
            assert!(memory.used_bytes + memory.free_bytes <= memory.total_bytes);
            assert!((1..120).contains(&reading.temperature_celsius.unwrap()));
            assert!(reading.power_watts.unwrap() > 1.0);
            assert!(reading.pcie.generation.unwrap() <= reading.pcie.generation_max.unwrap());
        }
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn nvml_is_closed_and_its_thread_ended_soon_after_the_last_clone() {
        let gpus = Gpus::open();
        let nvml = Arc::downgrade(&gpus.0.as_ref().unwrap().nvml);
        let clone = gpus.clone();
        drop(gpus);
        assert!(!clone.read().is_empty());
        drop(clone);
        let dropped = Instant::now();
        while nvml.strong_count() > 0 {
            assert!(dropped.elapsed() < Duration::from_secs(5));
            std::thread::yield_now();
        }
    }
}

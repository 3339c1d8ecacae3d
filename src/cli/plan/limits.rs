//! What a service manager may hold the server to: the host's column of the plan, and all that the configuration bounds.

use std::fmt;

use crate::{
    config::Config,
    engine::{
        fit::{Device, Plan},
        task::Task,
    },
};

/// The program, its libraries and threads: 60–150 MiB were seen beside the planned buffers.
const PROCESS: u64 = 256 << 20;
/// What a GPU's driver and libraries take of the host's memory; generous, for a limit that kills helps nobody.
const DRIVER: u64 = 1 << 30;
/// Images that are decoded at a time, and what a pixel takes meanwhile (`limits.image_pixels`).
const DECODED_BYTES: u64 = 2 * 11;

/// As systemd names them, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// More than this is a leak.
    max: u64,
    /// Less than this, and a step waits for the disk: weights and buffers in host memory.
    low: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cache.ram: a limit needs a number of MiB; 'auto takes a part of what the limit would leave"
)]
pub(super) struct Unbounded;

pub(super) fn limits(plan: &Plan, config: &Config) -> Result<Limits, Unbounded> {
    let host = plan.devices.iter().filter(|device| !device.is_gpu());
    let low = host.clone().map(Device::used).sum();
    let margin: u64 = host.map(|device| device.margin).sum();
    let prompts = match plan.settings.task {
        Task::Generate => u64::from(config.cache.ram.ok_or(Unbounded)?) << 20,
        Task::Encode(_) => 0,
    };
    let sees = plan.devices.iter().any(|device| device.projector > 0);
    let images = if sees {
        (u64::from(config.cache.images) << 20) + config.limits.image_pixels * DECODED_BYTES
    } else {
        0
    };
    let requests = u64::from(config.limits.queue + plan.parallel) * config.limits.body_bytes;
    let kept = config.limits.responses_bytes;
    let driver = if plan.uses_gpu() { DRIVER } else { 0 };
    Ok(Limits {
        max: low + margin + PROCESS + driver + prompts + images + requests + kept,
        low,
    })
}

impl fmt::Display for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "MemoryMax={}\nMemoryLow={}", self.max, self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, KnownModel, Source},
        report::examples,
    };

    fn config(settings: &str) -> Config {
        let known = KnownModel {
            name: "tiny".into(),
            trained_context: None,
        };
        let text = format!("{{ model.name = \"tiny\", {settings} }}");
        config::load(&Source::new("test.ncl", text), &[], &[known]).unwrap()
    }

    #[test]
    fn a_limit_is_what_the_host_holds_and_each_bound_of_the_configuration() {
        let plan = examples::laptop();
        let host = plan.devices.last().unwrap();
        let with = |ram: u32, queue: u32, kept: u32| {
            let settings = format!(
                "cache.ram = {ram}, limits = {{queue = {queue}, body_bytes = 1024, responses_bytes = {kept}}}"
            );
            limits(&plan, &config(&settings)).unwrap()
        };
        let least = with(0, 0, 0);
        assert_eq!(least.low, host.used());
        let bodies = 1024 * u64::from(plan.parallel);
        assert_eq!(least.max, host.used() + host.margin + PROCESS + bodies);
        let more = [
            (with(100, 0, 0), 100 << 20),
            (with(0, 7, 0), 7 * 1024),
            (with(0, 0, 5000), 5000),
        ];
        for (limits, bytes) in more {
            assert_eq!((limits.max, limits.low), (least.max + bytes, least.low));
        }
    }

    #[test]
    fn a_gpu_takes_of_the_machine_more_than_its_column_says() {
        let plan = examples::two_gpus();
        let host = plan.devices.last().unwrap();
        let settings =
            "cache.ram = 0, limits = {queue = 0, body_bytes = 1024, responses_bytes = 0}";
        let limits = limits(&plan, &config(settings)).unwrap();
        assert_eq!(limits.low, host.used());
        let bodies = 1024 * u64::from(plan.parallel);
        let rest = limits.max - limits.low - host.margin - bodies;
        assert_eq!(rest, PROCESS + DRIVER);
    }

    #[test]
    fn a_cache_that_takes_a_part_of_what_is_free_has_no_limit() {
        assert_eq!(
            limits(&examples::laptop(), &config("cache.ram = 'auto")),
            Err(Unbounded)
        );
    }
}

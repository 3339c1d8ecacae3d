//! Memory: what the plan takes of what is free, what may be locked, and how large pages are.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Finding, Patient};
use crate::{
    config::Load,
    engine::fit::{Device, Plan, memory::HostMemory},
    report::size,
};

/// The plan against the memory of every device that it uses; `None`: there is no model to plan for.
pub(super) fn plan(patient: &Patient<'_>) -> Option<Finding> {
    const SUBJECT: &str = "memory";
    let host = HostMemory::now();
    let kernel = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let limited = host.total < meminfo(&kernel, "MemTotal:");
    let below = if limited { " (the cgroup's limit)" } else { "" };
    match patient.plan.as_ref()? {
        Ok(plan) => {
            let used = plan.devices.iter().filter(|device| device.used() > 0);
            let parts: Vec<_> = used
                .map(|device| {
                    let of = if device.is_gpu() { "" } else { below };
                    format!(
                        "{} {} of {} free{of}",
                        device.name,
                        size(device.used()),
                        size(device.free)
                    )
                })
                .collect();
            Some(Finding::ok(
                SUBJECT,
                format!("the plan takes: {}", parts.join("; ")),
            ))
        }
        Err(error) => {
            let cure = if limited {
                "raise MemoryMax= of the service, or take the settings that are named"
            } else {
                "take the settings that are named; `llm-server plan` shows what goes where"
            };
            Some(Finding::fail(SUBJECT, error.to_string(), cure))
        }
    }
}

fn meminfo(table: &str, field: &str) -> u64 {
    let line = table.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The limit of locked memory against what the configuration wants to lock.
pub(super) fn lockable(patient: &Patient<'_>) -> Finding {
    const SUBJECT: &str = "locked memory";
    const CURE: &str = "LimitMEMLOCK=infinity in the unit, `ulimit -l unlimited` in a shell";
    let limit = getrlimit(Resource::Memlock).current;
    let plan = patient.plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let weights = plan.map_or_else(|| patient.origin.size(), host_weights);
    let shown = limit.map_or("no limit".to_owned(), |bytes| {
        format!("at most {}", size(bytes))
    });
    let wanted = patient.loaded.config.engine.load == Load::Mlock;
    let helpful = plan.is_some_and(Plan::pins);
    if (!wanted && !helpful) || may_exceed() || limit.is_none_or(|limit| limit >= weights) {
        let need = if wanted || helpful {
            size(weights)
        } else {
            "nothing".to_owned()
        };
        return Finding::ok(SUBJECT, format!("{need} is to be locked, {shown}"));
    }
    let found = format!(
        "{} of weights are to be locked, {shown} may be",
        size(weights)
    );
    if wanted {
        Finding::fail(
            SUBJECT,
            format!("{found} (engine.load = 'mlock)"),
            format!("{CURE}, or engine.load = 'auto"),
        )
    } else {
        Finding::warn(SUBJECT, format!("{found}: the GPU reads them slower"), CURE)
    }
}

fn host_weights(plan: &Plan) -> u64 {
    let host = plan.devices.iter().filter(|device| !device.is_gpu());
    host.map(|Device { weights, .. }| weights.total()).sum()
}

/// Whether this process has `CAP_IPC_LOCK`, to which no limit applies.
fn may_exceed() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    capabilities
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

pub(super) fn huge_pages() -> Finding {
    const SUBJECT: &str = "huge pages";
    let text =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = text
        .split('[')
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    match chosen {
        Some("never") => Finding::warn(
            SUBJECT,
            "never: gigabytes of caches are kept in pages of 4 KiB",
            "write `madvise` or `always` into /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(mode) => Finding::ok(SUBJECT, format!("{mode} (transparent)")),
        None => Finding::ok(SUBJECT, "the kernel has none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_at_least_what_the_cgroup_leaves() {
        let table = "MemTotal:       131924 kB\nMemFree: 5 kB\n";
        assert_eq!(meminfo(table, "MemTotal:"), 131_924 * 1024);
        let kernel = fs::read_to_string("/proc/meminfo").unwrap();
        assert!(HostMemory::now().total <= meminfo(&kernel, "MemTotal:"));
    }
}

//! How many cores this process may really use.

use std::{collections::BTreeSet, fs, thread};

/// Physical cores that affinity and the cgroup's quota leave to this process; at least 1. Two threads on one
/// core's two halves are slower than one at matrix work.
pub fn physical_cores() -> u32 {
    let allowed = thread::available_parallelism().map_or(1, usize::from); // affinity and quota
    let cores = allowed_cpus().map_or(allowed, |cpus| distinct_cores(&cpus));
    u32::try_from(allowed.min(cores).clamp(1, 512)).unwrap_or(1)
}

fn allowed_cpus() -> Option<Vec<u32>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse_list(allowed.trim())
}

/// `0-3,8,10-11` as the kernel writes it.
fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(low.parse::<u32>().ok()?..=high.parse().ok()?);
    }
    Some(cpus)
}

/// CPUs with the same siblings share a core; where the kernel does not say, each is its own.
fn distinct_cores(cpus: &[u32]) -> usize {
    let siblings = |cpu: &u32| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string())
    };
    cpus.iter().map(siblings).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(
            super::parse_list("0-2,8,10-11"),
            Some(vec![0, 1, 2, 8, 10, 11])
        );
        assert_eq!(super::parse_list("x"), None);
    }

    #[test]
    fn there_is_at_least_one_core_and_no_more_than_the_machine_allows() {
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=allowed).contains(&(super::physical_cores() as usize)));
    }
}

//! How many cores this process may really use.

use std::{
    collections::BTreeSet, env, fs, os::unix::process::CommandExt, process::Command, thread,
};

/// How often a thread of libgomp looks whether the others are done before it sleeps, about 10 µs in all.
///
/// Its own default is some milliseconds, in which it holds a core that somebody else may need: beside two
/// compilers on two cores, decoding went at 2–13 tokens/s, and at 31–56 with this (SmolLM2-135M). On a
/// quiet machine no difference could be measured.
const SPINS: &str = "1000";

/// Makes this process one whose compute threads sleep soon instead of spinning long. libgomp reads its
/// environment when it is loaded, before `main`, so the process starts itself anew, once, as the same
/// process. Whoever set `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` is heeded.
pub fn spin_briefly() {
    if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"]
        .iter()
        .any(|name| env::var_os(name).is_some())
    {
        return;
    }
    let mut arguments = env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), env::current_exe()) else {
        return;
    };
    // Comes back only when it failed; then everything works as before, only less neighbourly.
    let error = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env("GOMP_SPINCOUNT", SPINS)
        .exec();
    tracing::debug!(%error, "threads spin long: the process could not start itself anew");
}

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

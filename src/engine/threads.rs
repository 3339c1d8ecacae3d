//! How many cores this process may really use.

use std::{
    collections::BTreeSet, env, fs, os::unix::process::CommandExt, path::Path, process::Command,
    thread,
};

use super::llama;
use crate::config::EngineConfig;

/// How often a thread of libgomp looks whether the others are done before it sleeps, about 10 µs in all.
///
/// Its own default is some milliseconds, in which it holds a core that somebody else may need: beside two
/// compilers on two cores, decoding went at 2–13 tokens/s, and at 31–56 with this (SmolLM2-135M). On a
/// quiet machine no difference could be measured.
const BRIEF: u32 = 1000;

/// Where a GPU and the CPU take turns within each token, the CPU's threads wait less than a millisecond for the next
/// turn; waking them costs more: 95 instead of 109 tokens/s with half of a 35B model's experts on the CPU (H200).
/// This is what libgomp does by itself.
const LONG: u32 = 300_000;

/// `engine.poll` times this are libgomp's spins: 30 is [`LONG`].
const SPINS_PER_POLL: u32 = 10_000;

const SPINS: &str = "GOMP_SPINCOUNT";
/// What this process set for itself, as opposed to what the user set.
const OURS: &str = "LLM_SERVER_SPINS";
/// Lets llama.cpp lock host memory for GPUs.
const LOCKABLE: &str = "GGML_CUDA_REGISTER_HOST";

/// Makes this process one whose compute threads wait as `poll` (0–100) says before they sleep; `None`: long where
/// there is a GPU, else briefly. libgomp reads its environment when it is loaded, before `main`, so the process starts
/// itself anew, as the same process. Whoever set `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` is heeded.
pub fn spin(poll: Option<u32>) {
    let wanted = match poll {
        Some(poll) => poll * SPINS_PER_POLL,
        None if has_gpu() => LONG,
        None => BRIEF,
    }
    .to_string();
    let ours = env::var(OURS).ok();
    if poll.is_none() && ours.is_some() {
        return; // chosen before, perhaps with the configuration at hand
    }
    let users = ours.is_none()
        && [SPINS, "OMP_WAIT_POLICY"]
            .iter()
            .any(|name| env::var_os(name).is_some());
    let lockable = !has_gpu() || env::var_os(LOCKABLE).is_some();
    if (users || ours.as_ref() == Some(&wanted)) && lockable {
        return;
    }
    let mut arguments = env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), env::current_exe()) else {
        return;
    };
    let mut again = Command::new(program);
    again.arg0(name).args(arguments);
    if !users {
        again.env(SPINS, &wanted).env(OURS, &wanted);
    }
    if has_gpu() {
        again.env(LOCKABLE, "1");
    }
    // Comes back only when it failed; then everything works as before, only less neighbourly.
    let error = again.exec();
    tracing::debug!(%error, "the process could not start itself anew: its threads spin as libgomp likes");
}

/// Whether a driver for a GPU is at work and a plugin that uses it is here; cheap, because it is asked before
/// anything else.
fn has_gpu() -> bool {
    let drivers = ["/dev/nvidiactl", "/dev/kfd", "/dev/dxg"];
    drivers.iter().any(|device| Path::new(device).exists()) && llama::has_gpu_plugin()
}

/// Keeps the calling thread, and all that it starts from now on, to these CPUs.
pub(crate) fn keep_to(cpus: &[u32]) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for &cpu in cpus {
        set.set(cpu as usize);
    }
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(())
}

/// Physical cores that affinity and the cgroup's quota leave to this process; at least 1. Two threads on one
/// core's two halves are slower than one at matrix work.
pub fn physical_cores() -> u32 {
    let allowed = thread::available_parallelism().map_or(1, usize::from); // affinity and quota
    let cpus = allowed_cpus();
    let cores = if cpus.is_empty() {
        allowed
    } else {
        distinct_cores(&cpus)
    };
    u32::try_from(allowed.min(cores).clamp(1, 512)).unwrap_or(1)
}

/// Threads that generate tokens: as configured, else the physical cores that this process may use, those of
/// `engine.cpu_mask` where it is set.
pub fn decoding(config: &EngineConfig) -> u32 {
    let masked = || {
        let cpus = parse_list(config.cpu_mask.as_deref()?)?;
        u32::try_from(distinct_cores(&cpus)).ok()
    };
    config.threads.unwrap_or_else(|| {
        let cores = physical_cores();
        masked().map_or(cores, |masked| masked.clamp(1, cores))
    })
}

/// CPUs that affinity leaves to this process; none: the kernel does not say.
pub(crate) fn allowed_cpus() -> Vec<u32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(|allowed| parse_list(allowed.trim()))
        .unwrap_or_default()
}

/// As [`parse_list`] reads it.
pub(crate) fn list(cpus: &[u32]) -> String {
    let ranges = cpus.chunk_by(|a, b| a + 1 == *b);
    let texts: Vec<_> = ranges
        .map(|range| match range {
            [only] => only.to_string(),
            range => format!("{}-{}", range[0], range[range.len() - 1]),
        })
        .collect();
    texts.join(",")
}

/// `0-3,8,10-11` as the kernel writes it.
pub(crate) fn parse_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in list.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (low.parse::<u32>().ok()?, high.parse().ok()?);
        // A list of more CPUs than any machine has is a slip, and would fill the memory.
        if low > high || high > 65_535 {
            return None;
        }
        cpus.extend(low..=high);
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
        assert_eq!(super::list(&[0, 1, 2, 8, 10, 11]), "0-2,8,10-11");
    }

    #[test]
    fn there_is_at_least_one_core_and_no_more_than_the_machine_allows() {
        let allowed = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=allowed).contains(&(super::physical_cores() as usize)));
    }
}

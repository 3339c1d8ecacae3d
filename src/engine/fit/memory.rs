//! How much memory the machine has for this process.

use std::fs;

/// The host's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostMemory {
    pub(crate) total: u64,
    /// What can be had without swapping: free memory and clean caches, within the cgroup's limit.
    pub(crate) available: u64,
}

impl HostMemory {
    pub(crate) fn now() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = Self {
            total: field(&meminfo, "MemTotal:"),
            available: field(&meminfo, "MemAvailable:"),
        };
        limits(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
            .into_iter()
            .fold(kernel, |memory, (limit, used)| Self {
                total: memory.total.min(limit),
                available: memory.available.min(limit.saturating_sub(used)),
            })
    }
}

/// Bytes of a line such as `MemTotal:  131924 kB`; 0: it is not there.
fn field(meminfo: &str, name: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Limit and present use, in bytes, of this process's cgroup (v2) and its parents, where there is a limit.
fn limits(cgroup: &str) -> Vec<(u64, u64)> {
    let Some(own) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut folder = std::path::Path::new("/sys/fs/cgroup").join(own);
    loop {
        let number = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse::<u64>().ok() // `max` is no number
        };
        if let (Some(limit), Some(used)) = (number("memory.max"), number("memory.current")) {
            // What the page cache holds for this group can be had.
            let cache = fs::read_to_string(folder.join("memory.stat"))
                .ok()
                .and_then(|stat| {
                    let line = stat
                        .lines()
                        .find_map(|line| line.strip_prefix("inactive_file "));
                    line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
                });
            found.push((limit, used.saturating_sub(cache.unwrap_or(0))));
        }
        if folder.ends_with("sys/fs/cgroup") || !folder.pop() {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let text = "MemTotal:       131924 kB\nMemFree:  5 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(field(text, "MemAvailable:"), 1024 * 1024);
        assert_eq!(field(text, "SwapTotal:"), 0);
    }

    #[test]
    fn this_machine_has_memory_and_no_more_is_available_than_there_is() {
        let memory = HostMemory::now();
        assert!(memory.available > 0 && memory.available <= memory.total);
    }

    #[test]
    fn a_process_outside_of_cgroup_2_has_no_limits() {
        assert!(limits("5:memory:/x\n").is_empty());
    }
}

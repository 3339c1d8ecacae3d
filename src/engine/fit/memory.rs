//! How much memory the machine has for this process.

use std::{fs, path::Path};

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
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        limits(&cgroup, Path::new("/sys/fs/cgroup"))
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

/// The files of a limit, of its use, and in `memory.stat` the name of what the page cache holds, in cgroup 2 and 1.
const CGROUP_2: [&str; 3] = ["memory.max", "memory.current", "inactive_file "];
const CGROUP_1: [&str; 3] = [
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file ",
];

/// Limit and present use, in bytes, of this process's cgroups and their parents, where there is a limit.
fn limits(cgroup: &str, mounted: &Path) -> Vec<(u64, u64)> {
    let of_memory = |line: &str| {
        let (_, controllers_and_path) = line.split_once(':')?;
        let (controllers, own) = controllers_and_path.split_once(":/")?;
        if controllers.is_empty() {
            return Some(upwards(mounted, own, CGROUP_2));
        }
        let memory = controllers.split(',').any(|name| name == "memory");
        memory.then(|| upwards(&mounted.join("memory"), own, CGROUP_1))
    };
    cgroup.lines().filter_map(of_memory).flatten().collect()
}

fn upwards(root: &Path, own: &str, [limit, current, inactive]: [&str; 3]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut folder = root.join(own);
    loop {
        let number = |name: &str| {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse::<u64>().ok() // `max` is no number
        };
        if let (Some(limit), Some(used)) = (number(limit), number(current)) {
            // What the page cache holds for this group can be had.
            let cache = fs::read_to_string(folder.join("memory.stat"))
                .ok()
                .and_then(|stat| {
                    let line = stat.lines().find_map(|line| line.strip_prefix(inactive));
                    line.and_then(|bytes| bytes.trim().parse::<u64>().ok())
                });
            found.push((limit, used.saturating_sub(cache.unwrap_or(0))));
        }
        if folder == root || !folder.pop() {
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
    fn limits_of_both_kinds_of_cgroups_and_of_their_parents_count() {
        let mounted = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = mounted.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "2000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 5\ninactive_file 200\n");
        write("memory/x/memory.limit_in_bytes", "1000\n");
        write("memory/x/memory.usage_in_bytes", "600\n");
        write(
            "memory/x/memory.stat",
            "inactive_file 1\ntotal_inactive_file 100\n",
        );
        let found = |cgroup| limits(cgroup, mounted.path());
        assert_eq!(found("0::/a/b\n"), [(2000, 500)]);
        assert_eq!(
            found("4:cpu:/a\n5:hugetlb,memory:/x\n0::/\n"),
            [(1000, 500)]
        );
        assert!(found("5:cpu:/x\n").is_empty());
    }
}

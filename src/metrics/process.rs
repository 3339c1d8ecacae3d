//! The process as the kernel sees it.

use std::fs;

use super::families::{Families, Sample};

pub(super) fn add(families: &mut Families) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    families.gauge(
        "llm_server_resident_memory_bytes",
        "Memory of the process in RAM, mapped weights included.",
        resident_bytes(&status).map(|bytes| Sample::of(bytes as f64)),
    );
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_own_words() {
        let status = "VmPeak:\t  999 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident_bytes(status), Some(1234 * 1024));
        assert_eq!(resident_bytes("VmRSS: many"), None);
    }
}

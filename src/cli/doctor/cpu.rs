//! The CPU: which of the engine's variants was chosen, how many threads may run, and how fast they may.

use std::{collections::BTreeSet, fmt::Write, fs, num::NonZeroUsize, thread};

use super::Finding;
use crate::{
    config::EngineConfig,
    engine::{llama, threads},
};

pub(super) fn findings(config: Option<&EngineConfig>) -> Vec<Finding> {
    let mut found = vec![variant()];
    if let Some(config) = config {
        found.push(cores(config));
    }
    found.push(governor());
    found
}

fn variant() -> Finding {
    const SUBJECT: &str = "CPU";
    let features = llama::build().cpu_features;
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let library = maps
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .find(|name| name.starts_with("libggml-cpu"))
        .unwrap_or("no libggml-cpu of its own");
    let wide: Vec<_> = features
        .iter()
        .filter(|name| {
            name.starts_with("AVX") || name.starts_with("AMX") || *name == "SVE" || *name == "NEON"
        })
        .map(String::as_str)
        .collect();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can = |flag: &str| {
        let flags = info.lines().find(|line| line.starts_with("flags"));
        flags.is_some_and(|line| line.split_whitespace().any(|word| word == flag))
    };
    let uses = |name: &str| features.iter().any(|feature| feature == name);
    let missed: Vec<_> = [("avx2", "AVX2"), ("avx512f", "AVX512")]
        .into_iter()
        .filter(|(flag, name)| can(flag) && !uses(name))
        .map(|(_, name)| name)
        .collect();
    let found = format!("{library} with {}", wide.join(", "));
    if !missed.is_empty() {
        let cure = "install the package whole, with every libggml-cpu-*.so: the engine takes the best that it finds";
        return Finding::warn(
            SUBJECT,
            format!("{found}, although the CPU has {} too", missed.join(" and ")),
            cure,
        );
    }
    if cfg!(target_arch = "x86_64") && !uses("AVX2") {
        let cure = "expect little speed, or take a machine with AVX2; a virtual machine may hide it (CPU type `host` shows it)";
        return Finding::warn(SUBJECT, format!("{found}: the CPU has no AVX2"), cure);
    }
    Finding::ok(SUBJECT, found)
}

/// Threads against what affinity and the cgroup's quota leave.
fn cores(config: &EngineConfig) -> Finding {
    const SUBJECT: &str = "threads";
    let online = threads::parse_list(
        fs::read_to_string("/sys/devices/system/cpu/online")
            .unwrap_or_default()
            .trim(),
    );
    let online = online.map_or(0, |cpus| cpus.len());
    let affinity = threads::allowed_cpus().len();
    let allowed = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = config.threads_batch.unwrap_or(0);
    let own = threads::decoding(config).max(most);
    let mut room = format!(
        "{own} for {} physical cores; of {online} CPUs {affinity} are allowed",
        threads::physical_cores()
    );
    if allowed < affinity {
        let _ = write!(room, ", and the cgroup's quota is worth {allowed}");
    }
    if own as usize > allowed {
        return Finding::warn(
            SUBJECT,
            room,
            format!(
                "set engine.threads (and threads_batch) to {} or leave it at 'auto: threads that wait for each other \
                 on too few CPUs are slow; or raise CPUQuota= or CPUAffinity= of the service",
                threads::physical_cores()
            ),
        );
    }
    Finding::ok(SUBJECT, room)
}

fn governor() -> Finding {
    const SUBJECT: &str = "CPU governor";
    let of_all = |file: &str| -> BTreeSet<String> {
        let cpus = threads::allowed_cpus();
        let read =
            |cpu| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}"));
        let texts = cpus.into_iter().filter_map(|cpu| read(cpu).ok());
        texts.map(|text| text.trim().to_owned()).collect()
    };
    judge(
        &of_all("scaling_governor"),
        &of_all("scaling_driver"),
        SUBJECT,
    )
}

/// The drivers of new CPUs choose frequencies themselves, and call that `powersave`.
fn judge(
    governors: &BTreeSet<String>,
    drivers: &BTreeSet<String>,
    subject: &'static str,
) -> Finding {
    let names: Vec<_> = governors.iter().map(String::as_str).collect();
    let names = names.join(", ");
    let by_itself = drivers
        .iter()
        .all(|driver| driver == "intel_pstate" || driver.starts_with("amd-pstate"));
    if governors.is_empty() {
        return Finding::ok(
            subject,
            "not seen: a virtual machine, or frequencies are fixed",
        );
    }
    if governors.contains("powersave") && !by_itself {
        return Finding::warn(
            subject,
            format!("{names}: the CPU stays at its lowest frequency"),
            "`cpupower frequency-set -g performance` (NixOS: powerManagement.cpuFreqGovernor = \"performance\")",
        );
    }
    Finding::ok(subject, names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    #[test]
    fn powersave_is_a_complaint_only_where_it_means_the_lowest_frequency() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let verdict = |governors: &[&str], drivers: &[&str]| {
            judge(&set(governors), &set(drivers), "").verdict
        };
        assert_eq!(verdict(&["powersave"], &["acpi-cpufreq"]), Verdict::Warn);
        assert_eq!(verdict(&["powersave"], &["amd-pstate-epp"]), Verdict::Ok);
        assert_eq!(verdict(&["performance"], &["acpi-cpufreq"]), Verdict::Ok);
        assert_eq!(verdict(&[], &[]), Verdict::Ok);
    }
}

//! Memory of a measured server: resident, and on GPUs where `nvidia-smi` exists.

use std::{ffi::OsStr, process::Command};

use super::{metric::Metric, process, request::Target};

const MIB_KIB: f64 = 1024.0;

/// Where memory is read.
pub(super) struct Memory {
    /// No NVIDIA GPU is a normal state.
    nvidia_smi: Option<&'static OsStr>,
}

impl Memory {
    pub(super) fn look() -> Self {
        let program = OsStr::new("nvidia-smi");
        let works = query(program, "--query-gpu=memory.used").is_some();
        Self {
            nvidia_smi: works.then_some(program),
        }
    }

    /// What can be read now; nothing of servers on other machines.
    pub(super) fn of(&self, target: &Target) -> Vec<(Metric, f64)> {
        let resident = target.pid.and_then(process::resident_kib);
        let resident = resident.map(|kib| (Metric::Resident, kib as f64 / MIB_KIB));
        let here = target.pid.is_some() || process::local(&target.base).is_some();
        let gpu = here.then(|| self.on_gpus(target.pid)).flatten();
        resident.into_iter().chain(gpu).collect()
    }

    /// Of the process; of everybody where the driver does not tell (as in containers).
    fn on_gpus(&self, pid: Option<u32>) -> Option<(Metric, f64)> {
        let program = self.nvidia_smi?;
        let own = pid.and_then(|pid| {
            let table = query(program, "--query-compute-apps=pid,used_memory")?;
            of_process(&table, pid)
        });
        match own {
            Some(mib) => Some((Metric::Vram, mib)),
            None => Some((
                Metric::GpuUsed,
                in_use(&query(program, "--query-gpu=memory.used")?)?,
            )),
        }
    }
}

fn query(program: &OsStr, what: &str) -> Option<String> {
    let arguments = [what, "--format=csv,noheader,nounits"];
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// MiB of the process on all GPUs; `None` when it is not listed, or listed without a number (`[N/A]`).
fn of_process(table: &str, pid: u32) -> Option<f64> {
    let row = |line: &str| {
        let (listed, mib) = line.split_once(',')?;
        let mib = mib.trim().parse::<f64>().ok()?;
        (listed.trim().parse() == Ok(pid)).then_some(mib)
    };
    table.lines().filter_map(row).reduce(|all, mib| all + mib)
}

/// MiB over all GPUs.
fn in_use(table: &str) -> Option<f64> {
    let numbers = table
        .lines()
        .filter_map(|line| line.trim().parse::<f64>().ok());
    numbers.reduce(|all, mib| all + mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_on_two_gpus_has_the_sum_and_an_unlisted_one_nothing() {
        let table = "4242, 1024\n17, 5\n4242, 512\n18, [N/A]\n";
        assert_eq!(of_process(table, 4242), Some(1536.0));
        assert_eq!(of_process(table, 18), None);
        assert_eq!(of_process(table, 99), None);
        assert_eq!(of_process("", 4242), None);
    }

    #[test]
    fn all_gpus_are_summed_and_no_gpu_is_not_zero() {
        assert_eq!(in_use("100\n23\n"), Some(123.0));
        assert_eq!(in_use("No devices were found\n"), None);
    }
}

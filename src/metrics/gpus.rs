//! What NVIDIA's GPUs say of themselves. What a card does not tell is left out.

use super::families::{Families, Sample};
use crate::gpu::Reading;

const MHZ: f64 = 1e6;

/// `None`: the driver does not answer.
pub(super) fn add(families: &mut Families, readings: Option<&[Reading]>) {
    let Some(readings) = readings else {
        let silent = [Sample::of(0.0)];
        return families.gauge(ANSWERS.0, ANSWERS.1, silent);
    };
    if readings.is_empty() {
        return;
    }
    families.gauge(ANSWERS.0, ANSWERS.1, [Sample::of(1.0)]);
    let mut gpus = Gpus { families, readings };
    gpus.who_they_are();
    gpus.load();
    gpus.heat();
    gpus.link();
    gpus.errors();
}

const ANSWERS: (&str, &str) = (
    "llm_server_gpu_driver_answers",
    "1: the driver of the GPUs answers; 0: it did not within two seconds.",
);

/// Readings in NVML's order, whose index is the label `gpu`.
struct Gpus<'a> {
    families: &'a mut Families,
    readings: &'a [Reading],
}

impl Gpus<'_> {
    fn who_they_are(&mut self) {
        let info = self.each(|reading| {
            let label = |text: &Option<String>| text.clone().unwrap_or_default();
            let info = Sample::of(1.0)
                .with("name", &label(&reading.name))
                .with("uuid", &label(&reading.uuid))
                .with("pci_bus_id", &label(&reading.pci_bus_id));
            vec![info]
        });
        self.families.gauge(
            "llm_server_gpu_info",
            "1, with the names that this GPU goes by.",
            info,
        );
        self.one(
            "llm_server_gpu_reachable",
            "0: the GPU cannot be reached any more.",
            |reading| Some(f64::from(u8::from(reading.error.is_none()))),
        );
    }

    fn load(&mut self) {
        self.one(
            "llm_server_gpu_memory_used_bytes",
            "Memory in use, by all processes.",
            |reading| Some(reading.memory?.used_bytes as f64),
        );
        self.one(
            "llm_server_gpu_memory_total_bytes",
            "Memory of the GPU.",
            |reading| Some(reading.memory?.total_bytes as f64),
        );
        self.one(
            "llm_server_gpu_utilization_ratio",
            "Part of the last sample period in which anything was computed.",
            |reading| Some(f64::from(reading.utilisation_percent?) / 100.0),
        );
        self.one(
            "llm_server_gpu_memory_utilization_ratio",
            "Part of the last sample period in which memory was read or written.",
            |reading| Some(f64::from(reading.memory_utilisation_percent?) / 100.0),
        );
        self.several(
            "llm_server_gpu_clock_hertz",
            "Present clock.",
            "domain",
            |reading| {
                vec![
                    ("sm", reading.clocks.sm_mhz.map(hertz)),
                    ("memory", reading.clocks.memory_mhz.map(hertz)),
                ]
            },
        );
        self.several(
            "llm_server_gpu_clock_max_hertz",
            "Highest clock that the GPU can do.",
            "domain",
            |reading| {
                vec![
                    ("sm", reading.clocks.sm_max_mhz.map(hertz)),
                    ("memory", reading.clocks.memory_max_mhz.map(hertz)),
                ]
            },
        );
    }

    fn heat(&mut self) {
        self.one(
            "llm_server_gpu_temperature_celsius",
            "Temperature of the GPU.",
            |reading| reading.temperature_celsius.map(f64::from),
        );
        self.one(
            "llm_server_gpu_power_watts",
            "Power that the GPU draws.",
            |reading| reading.power_watts,
        );
        self.one(
            "llm_server_gpu_power_limit_watts",
            "Power that the GPU may draw.",
            |reading| reading.power_limit_watts,
        );
        self.several(
            "llm_server_gpu_throttled",
            "1 for each reason for which the clocks are lower than they could be, idleness among them.",
            "reason",
            |reading| {
                let reasons = reading.throttled_by.iter().flatten();
                reasons.map(|&reason| (reason, Some(1.0))).collect()
            },
        );
    }

    fn link(&mut self) {
        self.one(
            "llm_server_gpu_pcie_generation",
            "Generation of the link to the host, which is lower while idle.",
            |reading| reading.pcie.generation.map(f64::from),
        );
        self.one(
            "llm_server_gpu_pcie_max_generation",
            "Highest generation that GPU and host can do together.",
            |reading| reading.pcie.generation_max.map(f64::from),
        );
        self.one(
            "llm_server_gpu_pcie_lanes",
            "Lanes of the link to the host.",
            |reading| reading.pcie.width.map(f64::from),
        );
        self.one(
            "llm_server_gpu_pcie_max_lanes",
            "Lanes that the GPU has.",
            |reading| reading.pcie.width_max.map(f64::from),
        );
    }

    fn errors(&mut self) {
        let ecc = self.each(|reading| {
            let kinds = [
                ("corrected", reading.ecc.corrected),
                ("uncorrected", reading.ecc.uncorrected),
            ];
            let known = kinds
                .into_iter()
                .filter_map(|(kind, count)| Some(Sample::of(count? as f64).with("kind", kind)));
            known.collect()
        });
        self.families.counter(
            "llm_server_gpu_ecc_errors_total",
            "Memory errors since the driver was loaded.",
            ecc,
        );
        let xids = self.each(|reading| {
            let xid = reading.xid.map(|xid| Sample::of(xid.count as f64));
            xid.into_iter().collect()
        });
        self.families.counter(
            "llm_server_gpu_xid_errors_total",
            "Errors that the driver reported (Xid) since the server was started.",
            xids,
        );
        self.one(
            "llm_server_gpu_xid_last_code",
            "Code of the latest such error, which NVIDIA's list explains.",
            |reading| Some(reading.xid?.last? as f64),
        );
    }

    /// A gauge of one value.
    fn one(&mut self, name: &str, help: &str, value: impl Fn(&Reading) -> Option<f64>) {
        let samples = self.each(|reading| value(reading).map(Sample::of).into_iter().collect());
        self.families.gauge(name, help, samples);
    }

    /// A gauge of a value for each of a few words.
    fn several(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Fn(&Reading) -> Vec<(&'static str, Option<f64>)>,
    ) {
        let samples = self.each(|reading| {
            let known = values(reading)
                .into_iter()
                .filter_map(|(word, value)| Some(Sample::of(value?).with(label, word)));
            known.collect()
        });
        self.families.gauge(name, help, samples);
    }

    fn each(&self, samples: impl Fn(&Reading) -> Vec<Sample>) -> Vec<Sample> {
        let numbered = self.readings.iter().enumerate();
        let labelled = numbered.flat_map(|(index, reading)| {
            let index = index.to_string();
            let samples = samples(reading).into_iter();
            samples.map(move |sample| sample.with("gpu", &index))
        });
        labelled.collect()
    }
}

fn hertz(mhz: u32) -> f64 {
    f64::from(mhz) * MHZ
}

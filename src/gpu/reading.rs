//! One GPU at one moment. What the card, its driver or our rights do not give is none.

use nvml_wrapper::{
    Device,
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor},
};
use serde::Serialize;

use super::{
    events::{Events, Xid},
    known,
};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reading {
    /// `GPU-` and a UUID; the same in every process and after every start.
    pub uuid: Option<String>,
    pub name: Option<String>,
    /// Such as `00000000:01:00.0`.
    pub pci_bus_id: Option<String>,
    pub memory: Option<Memory>,
    /// Part of the last sample period (up to a second) in which any kernel ran.
    pub utilisation_percent: Option<u32>,
    /// Part of it in which memory was read or written.
    pub memory_utilisation_percent: Option<u32>,
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    pub pcie: Pcie,
    pub clocks: Clocks,
    /// Why the clocks are lower than they could be; empty: they are not.
    pub throttled_by: Option<Vec<&'static str>>,
    pub ecc: Ecc,
    /// Errors that the driver reported since this process began; none: they are not followed.
    pub xid: Option<Xid>,
    /// Why there is nothing else: the GPU cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total_bytes: u64,
    /// By all processes; what the driver keeps for itself is neither used nor free.
    pub used_bytes: u64,
    pub free_bytes: u64,
}

/// The link to the host, which idles at a lower generation than it can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pcie {
    pub generation: Option<u32>,
    pub generation_max: Option<u32>,
    /// Lanes.
    pub width: Option<u32>,
    pub width_max: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Clocks {
    pub sm_mhz: Option<u32>,
    pub sm_max_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    pub memory_max_mhz: Option<u32>,
}

/// Memory errors since the driver was loaded; none: the card has no ECC, or it is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ecc {
    pub corrected: Option<u64>,
    pub uncorrected: Option<u64>,
}

impl Reading {
    pub(super) fn of(device: &Device<'_>, events: &Events) -> Self {
        let uuid = known(device.uuid());
        let utilisation = known(device.utilization_rates());
        let ecc = |kind| known(device.total_ecc_errors(kind, EccCounter::Volatile));
        Self {
            xid: uuid.as_deref().and_then(|uuid| events.of(uuid)),
            uuid,
            name: known(device.name()),
            pci_bus_id: known(device.pci_info()).map(|pci| pci.bus_id),
            memory: known(device.memory_info()).map(|memory| Memory {
                total_bytes: memory.total,
                used_bytes: memory.used,
                free_bytes: memory.free,
            }),
            utilisation_percent: utilisation.as_ref().map(|rates| rates.gpu),
            memory_utilisation_percent: utilisation.map(|rates| rates.memory),
            temperature_celsius: known(device.temperature(TemperatureSensor::Gpu)),
            power_watts: known(device.power_usage()).map(watts),
            power_limit_watts: known(device.enforced_power_limit()).map(watts),
            pcie: Pcie {
                generation: known(device.current_pcie_link_gen()),
                generation_max: known(device.max_pcie_link_gen()),
                width: known(device.current_pcie_link_width()),
                width_max: known(device.max_pcie_link_width()),
            },
            clocks: Clocks {
                sm_mhz: known(device.clock_info(Clock::SM)),
                sm_max_mhz: known(device.max_clock_info(Clock::SM)),
                memory_mhz: known(device.clock_info(Clock::Memory)),
                memory_max_mhz: known(device.max_clock_info(Clock::Memory)),
            },
            throttled_by: known(device.current_throttle_reasons()).map(words),
            ecc: Ecc {
                corrected: ecc(MemoryError::Corrected),
                uncorrected: ecc(MemoryError::Uncorrected),
            },
            error: None,
        }
    }
}

fn watts(milliwatts: u32) -> f64 {
    f64::from(milliwatts) / 1000.0
}

/// NVML's reasons, without those that this version of it has no name for.
fn words(reasons: ThrottleReasons) -> Vec<&'static str> {
    let names = [
        (ThrottleReasons::GPU_IDLE, "idle"),
        (
            ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
            "application_clocks",
        ),
        (ThrottleReasons::SW_POWER_CAP, "power_cap"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware_slowdown"),
        (ThrottleReasons::SYNC_BOOST, "sync_boost"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware_thermal"),
        (
            ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
            "hardware_power_brake",
        ),
        (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clocks"),
    ];
    names
        .iter()
        .filter(|(reason, _)| reasons.contains(*reason))
        .map(|(_, word)| *word)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_throttle_has_a_word_of_its_own() {
        let mut all = words(ThrottleReasons::all());
        all.dedup();
        // `all` holds two names for application clocks, which are one bit.
        let bits = ThrottleReasons::all().bits().count_ones();
        assert_eq!(all.len(), bits as usize);
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(words(hot), ["hardware_slowdown", "hardware_thermal"]);
        assert!(words(ThrottleReasons::NONE).is_empty());
    }

    #[test]
    fn a_reading_keeps_its_shape_on_the_wire() {
        let reading = Reading {
            uuid: Some("GPU-5e9ac6a2-0f7d-4d4c-8f4f-0f4a3ad4b1f2".to_owned()),
            name: Some("NVIDIA H200".to_owned()),
            pci_bus_id: Some("00000000:0A:00.0".to_owned()),
            memory: Some(Memory {
                total_bytes: 150_754_820_096,
                used_bytes: 5_368_709_120,
                free_bytes: 144_857_563_136,
            }),
            utilisation_percent: Some(97),
            memory_utilisation_percent: Some(41),
            temperature_celsius: Some(52),
            power_watts: Some(412.5),
            power_limit_watts: Some(700.0),
            pcie: Pcie {
                generation: Some(5),
                generation_max: Some(5),
                width: Some(16),
                width_max: Some(16),
            },
            clocks: Clocks {
                sm_mhz: Some(1980),
                sm_max_mhz: Some(1980),
                memory_mhz: Some(3201),
                memory_max_mhz: Some(3201),
            },
            throttled_by: Some(vec!["power_cap"]),
            ecc: Ecc {
                corrected: Some(3),
                uncorrected: Some(0),
            },
            xid: Some(Xid {
                last: Some(79),
                count: 1,
            }),
            error: None,
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&reading).unwrap());
    }

    #[test]
    fn a_card_that_reports_nothing_is_all_null_and_no_error() {
        let json = serde_json::to_value(Reading::default()).unwrap();
        assert!(json["memory"].is_null() && json["pcie"]["width"].is_null());
        assert!(json.get("error").is_none());
    }
}

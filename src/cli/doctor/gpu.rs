//! GPUs: the driver, the engine's plugin for it, and each card as NVML tells it.

use std::{fmt::Write, fs, path::Path, sync::mpsc, thread, time::Duration};

use super::Finding;
use crate::{
    config::{EngineConfig, GpuLayers},
    engine::llama,
    gpu::{Gpus, Reading},
    report::size,
};

/// Drivers take seconds to wake up; one that lost its GPU may never answer.
const PATIENCE: Duration = Duration::from_secs(10);
const DRIVER: &str = "GPU driver";
const CARD: &str = "GPU";

pub(super) fn findings(config: Option<&EngineConfig>) -> Vec<Finding> {
    let wanted = config.is_some_and(|config| match config.placement.gpu_layers {
        GpuLayers::Auto => false,
        GpuLayers::All => true,
        GpuLayers::Count(layers) => layers > 0,
    });
    let usable = llama::gpus();
    let version = driver();
    if version.is_none() && usable.is_empty() {
        return vec![without_driver(wanted, has_card())];
    }
    let mut found = Vec::new();
    let version = version.unwrap_or_else(|| "not NVIDIA's".to_owned());
    if !llama::has_gpu_plugin() {
        found.push(Finding::warn(
            DRIVER,
            format!("{version}, but this build has no plugin for GPUs: the CPU computes"),
            "install the package with CUDA (Nix: packages.cuda; from source: `make cuda`)",
        ));
    } else if usable.is_empty() {
        found.push(Finding::fail(
            DRIVER,
            format!("{version}, but the engine finds no GPU"),
            "look at `nvidia-smi`: the driver may be older than the plugin's CUDA, or /dev/nvidia* may be closed to \
             this user (in a service: DeviceAllow= and PrivateDevices=)",
        ));
    } else {
        let names: Vec<_> = usable
            .iter()
            .map(|gpu| format!("{} {}, {} free", gpu.name, gpu.description, size(gpu.free)))
            .collect();
        found.push(Finding::ok(
            DRIVER,
            format!("{version}: {}", names.join("; ")),
        ));
    }
    found.extend(cards());
    found
}

fn without_driver(wanted: bool, card: bool) -> Finding {
    let cure =
        "install NVIDIA's driver (NixOS: hardware.nvidia; in a container: its runtime, --gpus all)";
    match (wanted, card) {
        (true, _) => Finding::fail(
            DRIVER,
            "there is none, and engine.placement.gpu_layers asks for a GPU",
            format!("{cure}, or leave gpu_layers at 'auto"),
        ),
        (false, true) => Finding::warn(
            DRIVER,
            "an NVIDIA card is in this machine, but no driver: the CPU computes",
            cure,
        ),
        (false, false) => Finding::ok(DRIVER, "no GPU here: the CPU computes"),
    }
}

/// The kernel module's version.
fn driver() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version = |word: &&str| {
        word.contains('.')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    let version = text.lines().next()?.split_whitespace().find(version);
    Some(format!(
        "NVIDIA {}",
        version.unwrap_or("of unknown version")
    ))
}

/// Whether the bus has a card for graphics or computing made by NVIDIA.
fn has_card() -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .flatten();
    devices.map(|device| device.path()).any(|device| {
        let read = |name| fs::read_to_string(device.join(name)).unwrap_or_default();
        read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
    })
}

fn cards() -> Vec<Finding> {
    let (tell, told) = mpsc::channel();
    // A thread that hangs ends with the process.
    thread::spawn(move || tell.send(Gpus::open().read()));
    let Ok(readings) = told.recv_timeout(PATIENCE) else {
        return vec![Finding::fail(
            CARD,
            format!("NVML did not answer within {PATIENCE:?}"),
            "look at `dmesg` for NVRM and Xid: a card that fell off the bus needs a reset or a restart of the machine",
        )];
    };
    if readings.is_empty() && Path::new("/dev/nvidiactl").exists() {
        return vec![Finding::warn(
            CARD,
            "no readings: libnvidia-ml.so.1 is not found or lists no card",
            "install it with the driver (NixOS: hardware.graphics.enable; in a container: \
             NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
        )];
    }
    readings.iter().map(card).collect()
}

fn card(reading: &Reading) -> Finding {
    let name = reading.name.as_deref().unwrap_or("a card without a name");
    if let Some(error) = &reading.error {
        return Finding::fail(
            CARD,
            format!("{name}: {error}"),
            "look at `dmesg` for NVRM and Xid; reseat the card or restart the machine",
        );
    }
    let mut found = name.to_owned();
    if let Some(memory) = reading.memory {
        let _ = write!(
            found,
            ", {} free of {}",
            size(memory.free_bytes),
            size(memory.total_bytes)
        );
    }
    if let Some(celsius) = reading.temperature_celsius {
        let _ = write!(found, ", {celsius} °C");
    }
    let pcie = reading.pcie;
    if let (Some(generation), Some(width)) = (pcie.generation_max, pcie.width) {
        let _ = write!(found, ", PCIe {generation} × {width}");
    }
    if reading.ecc.uncorrected.is_some_and(|errors| errors > 0) {
        let cure = "drain the machine and test the card: its memory returns wrong bits";
        return Finding::fail(CARD, format!("{found}; uncorrected memory errors"), cure);
    }
    let hot = reading.throttled_by.iter().flatten();
    let hot: Vec<_> = hot
        .filter(|reason| reason.contains("thermal") || reason.contains("hardware"))
        .copied()
        .collect();
    if !hot.is_empty() {
        let cure = "look after cooling and power supply";
        return Finding::warn(CARD, format!("{found}; slowed by {}", hot.join(", ")), cure);
    }
    if let (Some(width), Some(most)) = (pcie.width, pcie.width_max)
        && width < most
    {
        let cure =
            "put the card into a slot with all lanes: weights in host memory are read over them";
        return Finding::warn(CARD, format!("{found} of {most} lanes"), cure);
    }
    Finding::ok(CARD, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::doctor::Verdict, gpu::Pcie};

    #[test]
    fn no_gpu_is_well_unless_one_was_asked_for_or_lacks_its_driver() {
        assert_eq!(without_driver(false, false).verdict, Verdict::Ok);
        assert_eq!(without_driver(false, true).verdict, Verdict::Warn);
        assert_eq!(without_driver(true, false).verdict, Verdict::Fail);
    }

    #[test]
    fn a_card_is_judged_by_what_limits_it() {
        let well = Reading {
            name: Some("NVIDIA H200".into()),
            ..Reading::default()
        };
        assert_eq!(card(&well).verdict, Verdict::Ok);
        let narrow = Reading {
            pcie: Pcie {
                width: Some(4),
                width_max: Some(16),
                generation_max: Some(4),
                ..Pcie::default()
            },
            ..well.clone()
        };
        assert_eq!(card(&narrow).verdict, Verdict::Warn);
        let hot = Reading {
            throttled_by: Some(vec!["hardware_thermal"]),
            ..well.clone()
        };
        assert_eq!(card(&hot).verdict, Verdict::Warn);
        let lost = Reading {
            error: Some("GPU is lost".into()),
            ..well
        };
        assert_eq!(card(&lost).verdict, Verdict::Fail);
    }
}

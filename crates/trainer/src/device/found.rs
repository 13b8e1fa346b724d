//! What a machine has of the devices that are in this build.

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use lowburn_models::Dtype;
use serde::Serialize;

use super::attempt::attempt;
use super::{DeviceKind, DeviceName};
use crate::system::cpu_name;

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundDevice {
    /// What to type after `--device`.
    pub name: DeviceName,
    /// What it is, in its own words where it has some.
    pub description: String,
    /// The numbers that it computes in.
    pub dtypes: Vec<Dtype>,
    /// Why it cannot be used although it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The devices of this build that are on this machine, flex first. Each is started for it.
#[must_use]
pub fn found_devices() -> Vec<FoundDevice> {
    let all = here().into_iter();
    all.filter_map(DeviceName::found).cloned().collect()
}

/// A device that was counted.
pub(super) struct Present {
    /// Burn's.
    pub(super) device: Device,
    found: OnceLock<FoundDevice>,
}

impl Present {
    /// What there is to say about it; the first call starts it.
    pub(super) fn found(&self, name: DeviceName) -> &FoundDevice {
        self.found.get_or_init(|| describe(name, &self.device))
    }

    /// Whether it is a program on the processor that acts as a graphics card, such as lavapipe.
    pub(super) fn is_software(&self) -> bool {
        is_software(&self.device)
    }
}

/// The devices of a kind, asked for once.
pub(super) fn present(kind: DeviceKind) -> &'static [Present] {
    static PRESENT: [OnceLock<Vec<Present>>; DeviceKind::ALL.len()] =
        [const { OnceLock::new() }; DeviceKind::ALL.len()];
    PRESENT[kind as usize].get_or_init(|| {
        let devices = match kind {
            DeviceKind::Flex => vec![Device::flex()],
            // A runtime that cannot even count has nothing.
            other => attempt(|| enumerate(other)).unwrap_or_default(),
        };
        let counted = |device| Present {
            device,
            found: OnceLock::new(),
        };
        devices.into_iter().map(counted).collect()
    })
}

fn enumerate(kind: DeviceKind) -> Vec<Device> {
    match kind {
        DeviceKind::Flex => vec![Device::flex()],
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        #[cfg(feature = "rocm")]
        DeviceKind::Rocm => Device::enumerate(burn::tensor::DeviceType::Rocm).into_vec(),
        #[cfg(feature = "metal")]
        DeviceKind::Metal => Device::enumerate(burn::tensor::DeviceType::Metal).into_vec(),
        #[cfg(feature = "vulkan")]
        DeviceKind::Vulkan => Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(),
        #[cfg(feature = "wgpu")]
        DeviceKind::Wgpu => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
        #[allow(unreachable_patterns)] // in a build with all of them
        _ => Vec::new(),
    }
}

/// The devices of a kind by name.
pub(super) fn names(kind: DeviceKind) -> impl Iterator<Item = DeviceName> {
    (0..present(kind).len()).map(move |index| DeviceName::new(kind, index))
}

/// Every device there is.
pub(super) fn here() -> Vec<DeviceName> {
    DeviceKind::ALL.into_iter().flat_map(names).collect()
}

fn is_software(device: &Device) -> bool {
    let software: &[Device] = &[
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "vulkan")]
        Device::vulkan(burn::tensor::DeviceKind::Cpu),
    ];
    software.contains(device)
}

fn describe(name: DeviceName, device: &Device) -> FoundDevice {
    if name.kind() == DeviceKind::Flex {
        return FoundDevice {
            name,
            description: format!("the processor, {}", cpu_name()),
            dtypes: Dtype::ALL.to_vec(),
            problem: None,
        };
    }
    let tried = attempt(|| {
        try_out(device);
        (own_name(device), dtypes(device))
    });
    let (own, dtypes, problem) = match tried {
        Ok((own, dtypes)) => (own, dtypes, None),
        Err(message) => (None, Vec::new(), Some(message)),
    };
    let mut description = own.unwrap_or_else(|| name.kind().what().to_owned());
    if is_software(device) {
        description.push_str(", a program on the processor");
    }
    FoundDevice {
        name,
        description,
        dtypes,
        problem,
    }
}

/// Panics where the device does not work, in Burn or here.
fn try_out(device: &Device) {
    let x = Tensor::<1>::from_data(TensorData::from([1.0f32, 2.0, 3.0]), device);
    let sum = (x.clone() + x).into_data();
    let right = sum
        .as_slice::<f32>()
        .is_ok_and(|sum| sum == [2.0, 4.0, 6.0]);
    assert!(right, "it adds [1, 2, 3] to itself and gets {sum:?}");
}

fn dtypes(device: &Device) -> Vec<Dtype> {
    let computes = |dtype: &Dtype| !dtype.is_half() || device.supports_dtype(dtype.burn());
    Dtype::ALL.into_iter().filter(computes).collect()
}

/// What a device calls itself.
#[cfg(any(feature = "cuda", feature = "rocm", feature = "wgpu"))]
fn own_name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(any(feature = "cuda", feature = "rocm", feature = "wgpu")))]
fn own_name(_: &Device) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_computes_passes_the_first_trial() {
        let tried = attempt(|| {
            try_out(&Device::flex());
            dtypes(&Device::flex())
        });
        assert_eq!(tried, Ok(Dtype::ALL.to_vec()));
    }

    #[test]
    fn flex_is_found_first_and_is_no_software_card() {
        assert!(!is_software(&Device::flex()));
        let found = found_devices();
        assert_eq!(found[0].name, DeviceName::FLEX);
        assert_eq!(found[0].dtypes, Dtype::ALL);
        let json = serde_json::to_value(&found[0]).unwrap();
        assert_eq!(json["name"], "flex");
        assert_eq!(json["dtypes"], serde_json::json!(["f32", "bf16", "f16"]));
        assert!(json.get("problem").is_none());
    }
}

//! Where to compute: names that people type, what there is of them, and what is missing where one is not there.
//!
//! Flex, the processor, is in every build. The others are cargo features that add a device to the same binary. What a
//! machine has of them is asked once a process, when something other than flex is wanted, and asking does no more than
//! count: a card is opened by whoever computes on it, so that a process that only plans takes no memory of it.
//!
//! Burn's runtimes say some things by a panic, a driver that is there and does not work among them. Here a panic
//! becomes a message like any other.

mod attempt;
mod found;
mod kind;

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use lowburn_models::Dtype;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use found::{here, names, present};

pub(crate) use attempt::attempt;
pub use found::{FoundDevice, found_devices};
pub use kind::DeviceKind;

/// A device by name: `flex`, or a kind and a number from 0, as in `cuda:1`. Whether it is there, [`DeviceName::open`]
/// says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceName {
    kind: DeviceKind,
    index: usize,
}

impl DeviceName {
    /// The processor.
    pub const FLEX: Self = Self {
        kind: DeviceKind::Flex,
        index: 0,
    };

    /// The device of that kind and number; flex has no number.
    #[must_use]
    pub fn new(kind: DeviceKind, index: usize) -> Self {
        match kind {
            DeviceKind::Flex => Self::FLEX,
            _ => Self { kind, index },
        }
    }

    /// What `auto` means here: the first card of CUDA, ROCm, Metal, Vulkan, WebGPU that is in this build and on this
    /// machine, else flex. A graphics driver that is a program on the processor, such as lavapipe, is no card.
    #[must_use]
    pub fn best() -> Self {
        let kinds = DeviceKind::ALL.into_iter();
        kinds
            .filter(|kind| *kind != DeviceKind::Flex)
            .flat_map(names)
            .find(|name| name.is_hardware())
            .unwrap_or(Self::FLEX)
    }

    /// The kind.
    #[must_use]
    pub fn kind(self) -> DeviceKind {
        self.kind
    }

    /// The number among those of its kind; 0 for flex.
    #[must_use]
    pub fn index(self) -> usize {
        self.index
    }

    /// Burn's device. Nothing is computed on it yet, and no memory of it is taken.
    ///
    /// # Errors
    /// When this build or this machine does not have it: the message names the cargo feature or the driver that is
    /// missing, and what there is.
    pub fn open(self) -> Result<Device, TrainError> {
        if self.kind == DeviceKind::Flex {
            return Ok(Device::flex());
        }
        let found = present(self.kind);
        match found.get(self.index) {
            Some(present) => Ok(present.device.clone()),
            None => {
                let reason = lack(self, self.kind.is_compiled(), found.len(), &here());
                Err(TrainError::config("device", self, reason))
            }
        }
    }

    /// Burn's device, after a first small computation on it: a driver that is there and does not work is found before
    /// anything is loaded.
    ///
    /// # Errors
    /// As [`DeviceName::open`], and when the computation fails: with the runtime's own message.
    pub fn start(self) -> Result<Device, TrainError> {
        let device = self.open()?;
        if let Some(problem) = self.found().and_then(|found| found.problem.as_ref()) {
            let needs = self.kind.needs();
            let reason = format!("it is there and cannot be used ({problem}); it needs {needs}");
            return Err(TrainError::config("device", self, reason));
        }
        Ok(device)
    }

    /// Whether the device is there and computes in numbers of that type; flex does in all.
    #[must_use]
    pub fn supports(self, dtype: Dtype) -> bool {
        self.kind == DeviceKind::Flex
            || self
                .found()
                .is_some_and(|found| found.dtypes.contains(&dtype))
    }

    /// What there is to say about the device if it is there. Starts it when it is asked for the first time.
    #[must_use]
    pub fn found(self) -> Option<&'static FoundDevice> {
        let present = present(self.kind).get(self.index)?;
        Some(present.found(self))
    }

    /// For a run record: `flex`, or the name and what it is, as in `cuda:0 (NVIDIA H100 PCIe)`.
    #[must_use]
    pub fn described(self) -> String {
        match self.found().filter(|_| self.kind != DeviceKind::Flex) {
            Some(found) => format!("{self} ({})", found.description),
            None => self.to_string(),
        }
    }

    fn is_hardware(self) -> bool {
        let present = present(self.kind).get(self.index);
        present.is_some_and(|present| !present.is_software())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Flex => f.write_str("flex"),
            kind => write!(f, "{kind}:{}", self.index),
        }
    }
}

impl FromStr for DeviceName {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        if text == "auto" {
            return Ok(Self::best());
        }
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let mut kinds = DeviceKind::ALL.into_iter();
        let Some(kind) = kinds.find(|kind| kind.name() == name) else {
            let others: Vec<_> = DeviceKind::ALL[1..]
                .iter()
                .map(|kind| kind.name())
                .collect();
            let reason = format!(
                "there is no such device; give auto, flex, or one of {} with a number, such as cuda:0",
                others.join(", ")
            );
            return Err(TrainError::config("device", text, reason));
        };
        let index = match number {
            None => Some(0),
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
            Some(_) => None,
        };
        match index {
            Some(index) if kind != DeviceKind::Flex || index == 0 => Ok(Self::new(kind, index)),
            _ if kind == DeviceKind::Flex => Err(TrainError::config(
                "device",
                text,
                "there is one processor, whose name is flex",
            )),
            _ => {
                let reason = format!("a number from 0 follows the colon, such as {kind}:0");
                Err(TrainError::config("device", text, reason))
            }
        }
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for DeviceName {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

/// Why a device is not there, and the way out. `count`: those of its kind; `here`: all that there are.
fn lack(name: DeviceName, compiled: bool, count: usize, here: &[DeviceName]) -> String {
    let kind = name.kind;
    let reason = match (compiled, count) {
        (false, _) => format!(
            "this build does not have it; the cargo feature `{kind}` adds it ({}, see docs/gpu.md)",
            kind.build_command()
        ),
        (true, 0) => format!("no {} is found; it needs {}", kind.what(), kind.needs()),
        (true, 1) => format!("there is one {}, which is {kind}:0", kind.what()),
        (true, count) => format!(
            "there are {count}, of which {kind}:{} is the last",
            count - 1
        ),
    };
    let here: Vec<String> = here.iter().map(DeviceName::to_string).collect();
    format!("{reason}; what there is: {}", here.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuda(index: usize) -> DeviceName {
        DeviceName::new(DeviceKind::Cuda, index)
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (text, name, written) in [
            ("flex", DeviceName::FLEX, "flex"),
            ("flex:0", DeviceName::FLEX, "flex"),
            ("cuda", cuda(0), "cuda:0"),
            ("cuda:0", cuda(0), "cuda:0"),
            ("cuda:12", cuda(12), "cuda:12"),
            ("rocm:1", DeviceName::new(DeviceKind::Rocm, 1), "rocm:1"),
            ("wgpu", DeviceName::new(DeviceKind::Wgpu, 0), "wgpu:0"),
        ] {
            assert_eq!(text.parse::<DeviceName>().unwrap(), name, "{text}");
            assert_eq!(name.to_string(), written);
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{written}\""));
            assert_eq!(serde_json::from_str::<DeviceName>(&json).unwrap(), name);
        }
        assert_eq!(DeviceName::new(DeviceKind::Flex, 3), DeviceName::FLEX);
    }

    #[test]
    fn what_is_no_name_is_said_with_what_is_one() {
        for (text, expected) in [
            ("", "cuda:0"),
            ("Cuda", "rocm, metal, vulkan, wgpu"),
            ("abacus", "flex"),
            ("cuda:", "number"),
            ("cuda:-1", "number"),
            ("cuda:+1", "number"),
            ("cuda:one", "number"),
            ("cuda:0:1", "number"),
            ("cuda:99999999999999999999", "number"),
            ("flex:1", "one processor"),
        ] {
            let message = text.parse::<DeviceName>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("device is {text}: ")),
                "{message}"
            );
            assert!(message.contains(expected), "{message}");
        }
        assert!(serde_json::from_str::<DeviceName>("\"abacus\"").is_err());
    }

    #[test]
    fn a_missing_device_has_a_way_out() {
        let here = [DeviceName::FLEX, DeviceName::new(DeviceKind::Wgpu, 0)];
        let end = "; what there is: flex, wgpu:0";
        for (compiled, count, expected) in [
            (false, 0, "cargo build --release --features cuda"),
            (
                true,
                0,
                "no NVIDIA card is found; it needs the NVIDIA driver",
            ),
            (true, 1, "there is one NVIDIA card, which is cuda:0"),
            (true, 4, "there are 4, of which cuda:3 is the last"),
        ] {
            let reason = lack(cuda(7), compiled, count, &here);
            assert!(
                reason.contains(expected) && reason.ends_with(end),
                "{reason}"
            );
        }
    }

    #[test]
    fn flex_is_always_there() {
        assert_eq!(DeviceName::FLEX.open().unwrap(), Device::flex());
        assert_eq!(DeviceName::FLEX.start().unwrap(), Device::flex());
        assert_eq!(DeviceName::FLEX.described(), "flex");
        for dtype in Dtype::ALL {
            assert!(DeviceName::FLEX.supports(dtype));
        }
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "rocm", feature = "wgpu")))]
    fn a_plain_build_has_nothing_else() {
        assert_eq!("auto".parse::<DeviceName>().unwrap(), DeviceName::FLEX);
        assert_eq!(found_devices().len(), 1);
        for kind in &DeviceKind::ALL[1..] {
            assert!(!kind.is_compiled());
            let name = DeviceName::new(*kind, 0);
            let message = name.open().unwrap_err().to_string();
            assert!(message.contains(&format!("--features {kind}")), "{message}");
            assert!(!name.supports(Dtype::F32));
            assert_eq!(name.described(), name.to_string());
        }
    }
}

//! The kinds of devices: their names, whether this build holds them, and what each needs of a machine.

use std::fmt;

/// The kinds of devices that Burn has and this program offers; which of them a build holds is a matter of cargo
/// features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// The processor, in pure Rust.
    Flex,
    /// NVIDIA cards.
    Cuda,
    /// AMD cards.
    Rocm,
    /// Apple's graphics.
    Metal,
    /// Any graphics card through Vulkan, with shaders in SPIR-V.
    Vulkan,
    /// Any graphics card through WebGPU's native library, with shaders in WGSL.
    Wgpu,
}

impl DeviceKind {
    /// All of them: flex, and the others in the order in which `auto` prefers them.
    pub const ALL: [Self; 6] = [
        Self::Flex,
        Self::Cuda,
        Self::Rocm,
        Self::Metal,
        Self::Vulkan,
        Self::Wgpu,
    ];

    /// The name on the command line and in digests, also the cargo feature's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
        }
    }

    /// Whether this build holds it.
    #[must_use]
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => true,
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    /// What one of them is, in words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Flex => "processor",
            Self::Cuda => "NVIDIA card",
            Self::Rocm => "AMD card",
            Self::Metal => "Apple graphics",
            Self::Vulkan => "graphics card with Vulkan",
            Self::Wgpu => "graphics card for WebGPU",
        }
    }

    /// What must be on a machine beside the program.
    #[must_use]
    pub fn needs(self) -> &'static str {
        match self {
            Self::Flex => "nothing",
            Self::Cuda => "the NVIDIA driver (libcuda.so.1; nvcuda.dll on Windows)",
            Self::Rocm => {
                "AMD's ROCm (libamdhip64 and libhiprtc; ROCM_PATH says where they lie, if not in the usual place)"
            }
            Self::Metal => "macOS",
            Self::Vulkan => {
                "a Vulkan loader (libvulkan.so.1) and the card's Vulkan driver (an ICD, as in mesa-vulkan-drivers)"
            }
            Self::Wgpu => {
                "a graphics driver: Vulkan (libvulkan.so.1 and an ICD, as in mesa-vulkan-drivers), DirectX 12 or Metal"
            }
        }
    }

    /// The command that makes a build with it.
    #[must_use]
    pub fn build_command(self) -> String {
        match self {
            Self::Flex => "cargo build --release".to_owned(),
            other => format!("cargo build --release --features {other}"),
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! What a run is asked to be, as typed or read: raw, unchecked, and complete.
//!
//! Every hyperparameter of a published table is a plain field without a default here; defaults
//! are the command line's business, where they are shown. Only [`RunConfig::check`] turns this
//! into something that trains.

use std::path::PathBuf;
use std::str::FromStr;

use lowburn_glue::Task;
use lowburn_lora::LoraConfig;
use lowburn_models::{LoraPositionBranch, Method};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::schedule::Warmup;

/// The full description of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Folder of the base checkpoint.
    pub model: PathBuf,
    /// What to call the base model in records and in `adapter_config.json`.
    pub model_name: String,
    /// The GLUE task.
    pub task: Task,
    /// Folder that holds `<task>/<split>-00000-of-00001.parquet`.
    pub data_dir: PathBuf,
    /// What is trained.
    pub method: Method,
    /// The adapter, for [`Method::Lora`] only.
    pub lora: Option<LoraConfig>,
    /// What the adapter does to positions, where the model projects them by the same matrices;
    /// `None`: as the adapter to start from was trained, else as in PEFT. Settled after the check.
    #[serde(default, skip_serializing_if = "is_peft")]
    pub position_branch: Option<LoraPositionBranch>,
    /// A PEFT folder to start from, for [`Method::Lora`] only.
    pub init_adapter: Option<PathBuf>,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Rows of one forward pass.
    pub batch_size: usize,
    /// Forward passes of one optimiser step.
    pub accumulate: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Decoupled weight decay, on everything trained but biases and LayerNorm.
    pub weight_decay: f64,
    /// Steps that warm up.
    pub warmup: Warmup,
    /// Tokens of a row, special ones included; longer rows are cut, longest text first.
    pub max_length: usize,
    /// Fixes the new head, the new adapter, the order of rows and every dropout.
    pub seed: u64,
    /// Dropout before the output layer; `None`: as config.json says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dropout: Option<f64>,
    /// Rows in a new random order every epoch, or in file order.
    pub shuffle: bool,
    /// Batches of like length, in random order.
    pub group_by_length: bool,
    /// Only the first rows of the training split.
    pub train_rows: Option<usize>,
    /// An upper bound on optimiser steps; the schedule ends there.
    pub max_steps: Option<u64>,
    /// When to evaluate.
    pub eval_every: EvalEvery,
    /// Where to compute.
    pub device: DeviceName,
    /// Threads of the process, for the record; `None` in a recipe that fits any machine.
    pub threads: Option<usize>,
    /// Keeps the input of each layer only and computes the rest again in the backward pass: less
    /// memory, more time, the same bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint_activations: bool,
}

fn is_peft(branch: &Option<LoraPositionBranch>) -> bool {
    branch.unwrap_or_default().is_peft()
}

/// When the dev set is evaluated; always at the very end too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalEvery {
    /// After every epoch.
    Epoch,
    /// After every so many optimiser steps.
    Steps(u64),
}

impl FromStr for EvalEvery {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        if text == "epoch" {
            return Ok(Self::Epoch);
        }
        text.parse().map(Self::Steps).map_err(|_| {
            TrainError::config("eval-every", text, "give `epoch` or a number of steps")
        })
    }
}

/// The devices Burn has; which of them are in a build is a matter of cargo features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    /// The processor, in pure Rust.
    Flex,
    /// An NVIDIA card.
    Cuda,
    /// Any graphics card through WebGPU's native library.
    Wgpu,
    /// Any graphics card through Vulkan.
    Vulkan,
    /// Apple's graphics.
    Metal,
    /// An AMD card.
    Rocm,
}

impl DeviceName {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 6] = [
        Self::Flex,
        Self::Cuda,
        Self::Wgpu,
        Self::Vulkan,
        Self::Metal,
        Self::Rocm,
    ];

    /// The name on the command line and in records, also the cargo feature's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
        }
    }

    /// Burn's device.
    ///
    /// # Errors
    /// When this build does not have it: the message names the cargo feature.
    pub fn open(self) -> Result<burn::tensor::Device, TrainError> {
        match self {
            Self::Flex => Ok(burn::tensor::Device::flex()),
            other => Err(TrainError::config(
                "device",
                other.name(),
                format!(
                    "this build has only flex (the processor); the cargo feature `{}` would add it, \
                     and this version does not offer that feature yet",
                    other.name()
                ),
            )),
        }
    }
}

impl std::fmt::Display for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeviceName {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        Self::ALL
            .into_iter()
            .find(|device| device.name() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|device| device.name()).collect();
                TrainError::config(
                    "device",
                    text,
                    format!("there is no such device; give one of {}", names.join(", ")),
                )
            })
    }
}

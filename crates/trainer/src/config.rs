//! What a run is asked to be, as typed or read: raw, unchecked, and complete.
//!
//! Every hyperparameter of a published table is a plain field without a default here; defaults
//! are the command line's business, where they are shown. Only [`RunConfig::check`] turns this
//! into something that trains.

use std::path::PathBuf;
use std::str::FromStr;

use lowburn_glue::Task;
use lowburn_lora::LoraConfig;
use lowburn_models::{Dtype, LoraPositionBranch, Method};
use serde::{Deserialize, Serialize};

pub(crate) use crate::device::DeviceName;
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
    /// How the frozen base is stored; for every method but [`Method::Full`], which freezes nothing.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub dtype: Dtype,
}

fn is_f32(dtype: &Dtype) -> bool {
    !dtype.is_half()
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

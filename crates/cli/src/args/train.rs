//! What may be typed after `lowburn train`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use lowburn_glue::Task;
use lowburn_lora::{LoraInit, Targets};
use lowburn_models::{Dtype, LoraPositionBranch, Method};
use lowburn_trainer::EvalEvery;

use super::Common;

/// `lowburn train`.
#[derive(Debug, Clone, Args)]
#[command(after_help = TRAIN_HELP)]
pub struct TrainArgs {
    /// Checkpoint folder to start from, `mini`, or a name on the hub: NAME or NAME@REVISION
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// GLUE task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli
    #[arg(long)]
    pub task: Task,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, `mini`, or a name on the hub
    #[arg(long, value_name = "DIR|NAME", default_value = lowburn_hub::GLUE)]
    pub data_dir: String,
    /// What to train: lora (adapter and head), full (everything), head (the head alone) or bitfit
    /// (biases and head)
    #[arg(long)]
    pub method: Method,
    /// Folder for everything the run writes; must not exist yet
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Go on with the run in --output after an interruption, bit for bit
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Remove the run in --output and start again
    #[arg(long)]
    pub overwrite: bool,
    /// Also write the curves in another form: tensorboard puts event files into OUTPUT/tensorboard
    #[arg(long, value_name = "tensorboard")]
    pub log: Option<LogFormat>,
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// PEFT folder to start from; rank, alpha and targets are the folder's
    #[arg(long, value_name = "DIR", help_heading = "Adapter")]
    pub init_adapter: Option<PathBuf>,
    /// What adapters on DeBERTa-v2's shared projections do to positions: act there too (peft), or
    /// not (authors, as in the LoRA authors' code; cannot be merged) [default: as the adapter to
    /// start from was trained, else peft]
    #[arg(long, value_name = "peft|authors", help_heading = "Adapter")]
    pub lora_position_branch: Option<LoraPositionBranch>,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The memory.
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

/// What a run may do for less memory.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct MemoryArgs {
    /// Use much less memory and about half more time: keep only what goes into each layer, and
    /// compute the rest again in the backward pass; the result is the same, bit for bit
    #[arg(long)]
    pub checkpoint_activations: bool,
    /// How the frozen base is stored: bf16 and f16 take half the memory; adapter, head, optimiser and loss stay f32.
    /// Not with --method full, which freezes nothing
    #[arg(long, value_name = "f32|bf16|f16", default_value_t)]
    pub dtype: Dtype,
}

/// Another form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// TensorBoard's event files.
    Tensorboard,
}

const TRAIN_HELP: &str = "\
\x1b[1;32mWhat --output gets\x1b[0m
  run.json      the full configuration, digests of all inputs, every evaluation, times, memory
  log.jsonl     one line for each optimiser step: loss, learning rate, gradient norm
  timing.jsonl  seconds of each step and phase
  adapter/      (lora) the best epoch's adapter and head, readable by PEFT
  head/         (head) the best epoch's head, for --adapter
  bitfit/       (bitfit) the best epoch's biases and head, for --adapter
  model/        (full) the best epoch's checkpoint
  state/        what --resume needs, until the run is done

\x1b[1;32mRates that work\x1b[0m
  lora 5e-4 to 2e-3, full 2e-5 to 5e-5, head 1e-3 to 1e-2; warm-up ratio .06, weight decay .1";

/// Options of an adapter; those left out have the defaults shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Adapter")]
pub struct LoraArgs {
    /// Rank r of the update [default: 8]
    #[arg(long, value_name = "R", allow_hyphen_values = true)]
    pub rank: Option<usize>,
    /// Alpha; the update is scaled by alpha / r [default: 16]
    #[arg(long, allow_hyphen_values = true)]
    pub alpha: Option<f64>,
    /// Layers that get an adapter: names such as query,value (which mean query_proj,value_proj in
    /// DeBERTa-v2), a regular expression of the whole name, or all-linear [default: query,value]
    #[arg(long, value_name = "NAMES|REGEX|all-linear")]
    pub target: Option<Targets>,
    /// Dropout on the adapter's input while training [default: 0]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    pub lora_dropout: Option<f64>,
    /// Scale by alpha / sqrt(r) instead
    #[arg(long)]
    pub rslora: bool,
    /// How A starts: kaiming (uniform, as PEFT does), gaussian (standard deviation 1 / r) or
    /// gaussian:STD (gaussian:0.02 in the LoRA authors' DeBERTa code); B starts at 0
    /// [default: kaiming]
    #[arg(long, value_name = "kaiming|gaussian[:STD]")]
    pub lora_init: Option<LoraInit>,
}

impl LoraArgs {
    /// Whether anything was typed.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.typed().is_empty()
    }

    /// What was typed, as on the command line.
    #[must_use]
    pub fn typed(&self) -> Vec<String> {
        [
            self.rank.map(|rank| format!("--rank {rank}")),
            self.alpha.map(|alpha| format!("--alpha {alpha}")),
            self.target
                .as_ref()
                .map(|names| format!("--target {names}")),
            self.lora_dropout.map(|p| format!("--lora-dropout {p}")),
            self.rslora.then(|| "--rslora".to_owned()),
            self.lora_init.map(|init| format!("--lora-init {init}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The hyperparameters. None that a published table names has a default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recipe")]
#[command(group = ArgGroup::new("warmup").required(true).args(["warmup_ratio", "warmup_steps"]))]
pub struct RecipeArgs {
    /// Passes over the training rows
    #[arg(long, value_name = "N")]
    pub epochs: usize,
    /// Rows of one forward pass
    #[arg(long, value_name = "N")]
    pub batch_size: usize,
    /// Forward passes of one optimiser step
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub accumulate: usize,
    /// Peak learning rate
    #[arg(long, value_name = "F", allow_hyphen_values = true)]
    pub lr: f64,
    /// Decoupled weight decay (not on biases and LayerNorm)
    #[arg(long, value_name = "F", allow_hyphen_values = true)]
    pub weight_decay: f64,
    /// Share of all steps over which the rate rises from 0
    #[arg(long, value_name = "F", allow_hyphen_values = true)]
    pub warmup_ratio: Option<f64>,
    /// Number of steps over which the rate rises from 0
    #[arg(long, value_name = "N")]
    pub warmup_steps: Option<u64>,
    /// Tokens of a row at most, special ones included
    #[arg(long, value_name = "N")]
    pub max_length: usize,
    /// Fixes the new head, the new adapter, the order of rows and dropout
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Dropout before the output layer [default: as the checkpoint's config.json says]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    pub head_dropout: Option<f64>,
    /// Whether rows come in a new random order every epoch, or in file order
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true")]
    pub shuffle: bool,
    /// Put rows of like length into one batch, in random order; padding is not computed either way
    #[arg(long)]
    pub group_by_length: bool,
    /// Use the first N training rows only
    #[arg(long, value_name = "N")]
    pub train_rows: Option<usize>,
    /// Stop (and end the schedule) after N optimiser steps
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Evaluate after every epoch, or after every N steps
    #[arg(long, value_name = "epoch|N", default_value = "epoch")]
    pub eval_every: EvalEvery,
}

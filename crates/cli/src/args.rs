//! What may be typed: every command and option, with its help.
//!
//! Values stay as raw as they can; whether they make sense together is for the plans to say, so
//! that the same message comes from every program built on the trainer.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use lowburn_glue::Task;
use lowburn_lora::Targets;
use lowburn_models::Method;
use lowburn_trainer::{DeviceName, EvalEvery};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
\x1b[1;32mExamples\x1b[0m
  # A first run, with the small model and data that come with the program (about 20 s)
  lowburn train --model mini --data-dir mini --task sst2 --method lora \\
      --epochs 3 --batch-size 16 --lr 2e-3 --weight-decay 0.1 --warmup-ratio 0.06 \\
      --max-length 64 --seed 0 --output runs/first
  # How good is it, and what does it say of a sentence of yours?
  lowburn eval --model mini --data-dir mini --task sst2 --adapter runs/first/adapter
  lowburn predict --model mini --task sst2 --adapter runs/first/adapter --text \"a fine film\"
  # One plain checkpoint of model and adapter, for any other program
  lowburn merge --model mini --adapter runs/first/adapter --output merged

Words
  A checkpoint is a folder with config.json, model.safetensors and tokenizer.json, as on the Hugging
  Face Hub. An adapter is what LoRA trains: a few small matrices beside the checkpoint, which itself
  stays as it is. The head is the classifier on top; it is trained with every method.

`lowburn COMMAND --help` tells more.";

/// Fine-tunes RoBERTa with LoRA on GLUE, on a processor, without Python.
#[derive(Debug, Parser)]
#[command(name = "lowburn", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a checkpoint on a task
    Train(Box<TrainArgs>),
    /// Score a checkpoint, with or without an adapter, on a labelled split
    Eval(EvalArgs),
    /// Write predictions for a split, a file or a text
    Predict(PredictArgs),
    /// Fold an adapter into its base and save a plain checkpoint
    Merge(MergeArgs),
    /// Turn a loralib file into an adapter folder, or back
    Convert(ConvertArgs),
    /// Show a model's parameters, what a method would train, and the memory it would take
    Inspect(Box<InspectArgs>),
    /// Make a checkpoint with random weights, for benchmarks and tests
    Init(InitArgs),
}

impl Command {
    /// Threads asked for.
    #[must_use]
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Train(args) => args.common.threads,
            Self::Eval(args) => args.common.threads,
            Self::Predict(args) => args.common.threads,
            Self::Merge(args) => args.common.threads,
            Self::Inspect(args) => args.common.threads,
            Self::Init(args) => args.common.threads,
            Self::Convert(_) => None,
        }
    }

    /// Whether only results and errors are wanted.
    #[must_use]
    pub fn quiet(&self) -> bool {
        match self {
            Self::Train(args) => args.common.quiet,
            Self::Eval(args) => args.common.quiet,
            Self::Predict(args) => args.common.quiet,
            Self::Merge(args) => args.common.quiet,
            Self::Inspect(args) => args.common.quiet,
            Self::Init(args) => args.common.quiet,
            Self::Convert(args) => args.quiet,
        }
    }
}

/// Options of every command that computes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct Common {
    /// Where to compute: flex is the processor, others need a build with that cargo feature
    #[arg(long, default_value_t = DeviceName::Flex)]
    pub device: DeviceName,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print results and errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `lowburn train`.
#[derive(Debug, Clone, Args)]
#[command(after_help = TRAIN_HELP)]
pub struct TrainArgs {
    /// Checkpoint folder to start from, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// GLUE task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli
    #[arg(long)]
    pub task: Task,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub data_dir: String,
    /// What to train: lora (adapter and head), full (everything) or head (the head alone)
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
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// PEFT folder to start from; rank, alpha and targets are the folder's
    #[arg(long, value_name = "DIR", help_heading = "Adapter")]
    pub init_adapter: Option<PathBuf>,
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

const TRAIN_HELP: &str = "\
\x1b[1;32mWhat --output gets\x1b[0m
  run.json      the full configuration, digests of all inputs, every evaluation, times, memory
  log.jsonl     one line for each optimiser step: loss, learning rate, gradient norm
  timing.jsonl  seconds of each step and phase
  adapter/      (lora) the best epoch's adapter and head, readable by PEFT
  head/         (head) the best epoch's head, for --adapter
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
    /// Layers that get an adapter: names such as query,value, a regular expression of the whole
    /// name, or all-linear [default: query,value]
    #[arg(long, value_name = "NAMES|REGEX|all-linear")]
    pub target: Option<Targets>,
    /// Dropout on the adapter's input while training [default: 0]
    #[arg(long, value_name = "P", allow_hyphen_values = true)]
    pub lora_dropout: Option<f64>,
    /// Scale by alpha / sqrt(r) instead
    #[arg(long)]
    pub rslora: bool,
}

impl LoraArgs {
    /// Whether anything was typed.
    #[must_use]
    pub fn any(&self) -> bool {
        self.rank.is_some()
            || self.alpha.is_some()
            || self.target.is_some()
            || self.lora_dropout.is_some()
            || self.rslora
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
    /// Whether rows come in a new random order every epoch, or in file order
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true")]
    pub shuffle: bool,
    /// Put rows of like length into one batch: faster, hardly less random
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

/// A model with or without something trained on top.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Checkpoint folder, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// Adapter folder (PEFT), or the head/ folder of a run
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Use the adapter although it was trained on another base
    #[arg(long)]
    pub any_base: bool,
}

/// Sizes of a batch.
#[derive(Debug, Clone, Args)]
pub struct BatchArgs {
    /// Rows of one forward pass
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,
    /// Tokens of a row at most [default: as trained where known, else all the model can]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
}

/// `lowburn eval`.
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// GLUE task
    #[arg(long)]
    pub task: Task,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub data_dir: String,
    /// The split; of MNLI `validation` means both
    #[arg(long, default_value = "validation")]
    pub split: String,
    /// Print one JSON object for each split instead of a table
    #[arg(long)]
    pub json: bool,
    /// The batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

/// `lowburn predict`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("rows").required(true).args(["split", "input", "text"]))]
pub struct PredictArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// GLUE task: its columns and labels
    #[arg(long)]
    pub task: Task,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, or `mini`; with --split
    #[arg(long, value_name = "DIR|NAME", requires = "split")]
    pub data_dir: Option<String>,
    /// Predict this split
    #[arg(long, requires = "data_dir")]
    pub split: Option<String>,
    /// Predict this .parquet, .jsonl or .tsv file with the task's columns
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Predict this text
    #[arg(long)]
    pub text: Option<String>,
    /// Second text, for tasks on pairs
    #[arg(long, requires = "text")]
    pub text_pair: Option<String>,
    /// File to write, .jsonl or .tsv [default: JSON lines on standard output]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The batch.
    #[command(flatten)]
    pub batch: BatchArgs,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

/// `lowburn merge`.
#[derive(Debug, Clone, Args)]
pub struct MergeArgs {
    /// Checkpoint folder of the base, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// Adapter folder (PEFT), or the head/ folder of a run
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Use the adapter although it was trained on another base
    #[arg(long)]
    pub any_base: bool,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace --output if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

/// The other adapter format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AdapterFormat {
    /// Microsoft's loralib, a .bin file
    Loralib,
}

/// `lowburn convert`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
\x1b[1;32mExamples\x1b[0m
  lowburn convert --from loralib --alpha 16 roberta_lora.bin --output adapter
  lowburn convert --to loralib adapter --output roberta_lora.bin")]
#[command(group = ArgGroup::new("direction").required(true).args(["from", "to"]))]
pub struct ConvertArgs {
    /// Format of the input; the output is an adapter folder
    #[arg(long, value_name = "FORMAT", requires = "alpha")]
    pub from: Option<AdapterFormat>,
    /// Format of the output; the input is an adapter folder
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<AdapterFormat>,
    /// Alpha of the adapter, which loralib files do not hold
    #[arg(long, allow_hyphen_values = true, conflicts_with = "to")]
    pub alpha: Option<f64>,
    /// The .bin file, or the adapter folder
    #[arg(value_name = "INPUT")]
    pub input: PathBuf,
    /// The adapter folder, or the .bin file
    #[arg(long, value_name = "PATH")]
    pub output: PathBuf,
    /// Replace --output if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Print errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// `lowburn inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Checkpoint folder, or `mini`
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// What would be trained
    #[arg(long, default_value = "lora")]
    pub method: Method,
    /// The adapter.
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Labels of the head
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub labels: usize,
    /// Rows of a batch, for the estimate of memory
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch_size: usize,
    /// Tokens of a row, for the estimate of memory
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_length: usize,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

/// `lowburn init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The config.json to follow
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder whose tokenizer is copied into the checkpoint
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Fixes the weights
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace --output if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

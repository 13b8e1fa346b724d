//! What may be typed: every command and option, with its help.
//!
//! Values stay as raw as they can; whether they make sense together is for the plans to say, so
//! that the same message comes from every program built on the trainer.

mod devices;
mod tools;
mod train;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use lowburn_models::{Dtype, LoraPositionBranch};
use lowburn_trainer::DeviceName;

pub use devices::DevicesArgs;
pub use tools::{
    AdapterFormat, ConvertArgs, EvalArgs, InitArgs, InspectArgs, MergeArgs, PredictArgs,
    SubmitArgs, TaskModel,
};
pub use train::{LogFormat, LoraArgs, MemoryArgs, RecipeArgs, TrainArgs};

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
  A checkpoint is a folder with config.json, model.safetensors (or pytorch_model.bin) and
  tokenizer.json, as on the Hugging Face Hub. An adapter is what LoRA trains: a few small matrices beside the checkpoint, which itself
  stays as it is. The head is the classifier on top; it is trained with every method.

`lowburn COMMAND --help` tells more.";

/// Fine-tunes RoBERTa and DeBERTa-v2 with LoRA on GLUE, on a processor or a graphics card, without Python.
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
    /// Predict the test splits of all tasks and pack them for the GLUE server
    Submit(SubmitArgs),
    /// Fold an adapter into its base and save a plain checkpoint
    Merge(MergeArgs),
    /// Turn a loralib file into an adapter folder, or back
    Convert(ConvertArgs),
    /// Show a model's parameters, what a method would train, and the memory it would take
    Inspect(Box<InspectArgs>),
    /// Make a checkpoint with random weights, for benchmarks and tests
    Init(InitArgs),
    /// List what can compute here, and how to get what is missing
    Devices(DevicesArgs),
}

impl Command {
    /// Threads asked for.
    #[must_use]
    pub fn threads(&self) -> Option<usize> {
        match self {
            Self::Train(args) => args.common.threads,
            Self::Eval(args) => args.common.threads,
            Self::Predict(args) => args.common.threads,
            Self::Submit(args) => args.common.threads,
            Self::Merge(args) => args.common.threads,
            Self::Inspect(args) => args.common.threads,
            Self::Init(args) => args.common.threads,
            Self::Convert(_) | Self::Devices(_) => None,
        }
    }

    /// Whether only results and errors are wanted.
    #[must_use]
    pub fn quiet(&self) -> bool {
        match self {
            Self::Train(args) => args.common.quiet,
            Self::Eval(args) => args.common.quiet,
            Self::Predict(args) => args.common.quiet,
            Self::Submit(args) => args.common.quiet,
            Self::Merge(args) => args.common.quiet,
            Self::Inspect(args) => args.common.quiet,
            Self::Init(args) => args.common.quiet,
            Self::Convert(args) => args.quiet,
            Self::Devices(args) => args.quiet,
        }
    }
}

/// Options of every command that computes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct Common {
    /// Where to compute: a name that `lowburn devices` lists, such as flex (the processor) or cuda:0. auto: the best
    /// graphics card that is there, else flex
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: DeviceName,
    /// Threads to compute with [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print results and errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// A model with or without something trained on top.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Checkpoint folder, `mini`, or a name on the hub: NAME or NAME@REVISION
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// Adapter folder (PEFT), or the head/ or bitfit/ folder of a run
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Use the adapter although it was trained on another base
    #[arg(long)]
    pub any_base: bool,
    /// What the adapter does to positions in DeBERTa-v2 [default: as it was trained where known,
    /// else peft; adapters released by the LoRA authors need authors]
    #[arg(long, value_name = "peft|authors")]
    pub lora_position_branch: Option<LoraPositionBranch>,
    /// How the matrices of the encoder are stored: bf16 and f16 take half the memory
    #[arg(
        long,
        value_name = "f32|bf16|f16",
        default_value_t,
        help_heading = "Machine"
    )]
    pub dtype: Dtype,
}

/// Where a command writes a checkpoint.
#[derive(Debug, Clone, Args)]
pub struct NewCheckpointArgs {
    /// Folder of the new checkpoint
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace --output if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// Sizes of a batch.
#[derive(Debug, Clone, Args)]
pub struct BatchArgs {
    /// Rows of one forward pass
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,
    /// Tokens of a row at most [default: as trained where known, else as pretrained]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
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

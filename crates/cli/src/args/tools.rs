//! What may be typed after the commands that do not train.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};
use lowburn_glue::Task;
use lowburn_models::{LoraPositionBranch, Method};

use super::{BatchArgs, Common, LoraArgs, MemoryArgs, ModelArgs, NewCheckpointArgs};

/// `lowburn eval`.
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// GLUE task
    #[arg(long)]
    pub task: Task,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, `mini`, or a name on the hub
    #[arg(long, value_name = "DIR|NAME", default_value = lowburn_hub::GLUE)]
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
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, `mini`, or a name on the hub; with
    /// --split [default: nyu-mll/glue]
    #[arg(long, value_name = "DIR|NAME", requires = "split")]
    pub data_dir: Option<String>,
    /// Predict this split
    #[arg(long)]
    pub split: Option<String>,
    /// Predict this .parquet, .jsonl or .tsv file with the task's columns
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Predict this text
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Second text, for tasks on pairs
    #[arg(long, requires = "text", allow_hyphen_values = true)]
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

/// A model for a task, typed as `TASK=FOLDER`.
#[derive(Debug, Clone)]
pub struct TaskModel {
    /// The task.
    pub task: Task,
    /// A run, a checkpoint, or an adapter.
    pub folder: PathBuf,
}

impl FromStr for TaskModel {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let Some((task, folder)) = given.split_once('=') else {
            return Err("give TASK=FOLDER, such as rte=runs/rte".to_owned());
        };
        Ok(Self {
            task: task
                .parse()
                .map_err(|error: lowburn_glue::GlueError| error.to_string())?,
            folder: folder.into(),
        })
    }
}

/// `lowburn submit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
\x1b[1;32mExample\x1b[0m
  lowburn submit --output glue.zip --fill mnli=runs/mnli rte=runs/rte mrpc=runs/mrpc

The archive has CoLA, SST-2, MRPC, STS-B, QQP, MNLI-m, MNLI-mm, QNLI, RTE, WNLI and AX (the diagnostic
set, predicted by the model of mnli), each as a .tsv with the columns index and prediction.")]
pub struct SubmitArgs {
    /// A model for each task: the folder of a run, of a checkpoint, or of an adapter upon --model
    #[arg(value_name = "TASK=FOLDER", required = true)]
    pub models: Vec<TaskModel>,
    /// Base of the adapters: folder, `mini`, or a name on the hub [default: of a run, as it says]
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<String>,
    /// Folder that holds TASK/SPLIT-00000-of-00001.parquet, `mini`, or a name on the hub
    #[arg(long, value_name = "DIR|NAME", default_value = lowburn_hub::GLUE)]
    pub data_dir: String,
    /// The archive to write, .zip
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace --output if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Let tasks without a model have one constant prediction, because the server wants them all
    #[arg(long)]
    pub fill: bool,
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
    /// Checkpoint folder of the base, `mini`, or a name on the hub: NAME or NAME@REVISION
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// Adapter folder (PEFT), or the head/ or bitfit/ folder of a run
    #[arg(long, value_name = "DIR")]
    pub adapter: PathBuf,
    /// Use the adapter although it was trained on another base
    #[arg(long)]
    pub any_base: bool,
    /// What the adapter does to positions in DeBERTa-v2 [default: as it was trained where known,
    /// else peft]; with authors it cannot be merged
    #[arg(long, value_name = "peft|authors")]
    pub lora_position_branch: Option<LoraPositionBranch>,
    /// The new checkpoint.
    #[command(flatten)]
    pub new: NewCheckpointArgs,
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
    /// Checkpoint folder, `mini`, or a name on the hub: NAME or NAME@REVISION
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
    /// Predict the peak memory of a training run on flex, on a data set of about a thousand rows, and print nothing else:
    /// of the checkpoint only config.json is read
    #[arg(long)]
    pub estimate: bool,
    /// Rows of a forward pass, for the estimate of memory
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch_size: usize,
    /// Forward passes of one optimiser step, for the estimate of memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub accumulate: usize,
    /// Real tokens of every row, for the estimate of memory; padding is never computed, so shorter rows take less
    /// [default: 128, or as pretrained]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Rows of the evaluation split, for the estimate of memory, where they are fewer than a batch of an evaluation,
    /// which is 32, or --batch-size if that is more [default: enough of them]
    #[arg(long, value_name = "N")]
    pub evaluation_rows: Option<usize>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// The memory.
    #[command(flatten)]
    pub memory: MemoryArgs,
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
    /// The new checkpoint.
    #[command(flatten)]
    pub new: NewCheckpointArgs,
    /// The machine.
    #[command(flatten)]
    pub common: Common,
}

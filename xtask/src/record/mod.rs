//! Run records as the reports read them.
//!
//! A report needs a part of `run.json` and reads only that, so that records of the PyTorch + PEFT peer, which have the
//! same names but other details, go through the same door as our own.

mod check;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lowburn_glue::Task;
use lowburn_trainer::{Dtype, EvalEvery};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use check::Side;

/// The part of `run.json` that reports show.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    /// The mark of the peer's records.
    pub(crate) framework: Option<String>,
    /// Version of lowburn; the peer has none.
    pub(crate) version: Option<String>,
    /// Identity of the run; the peer has none.
    pub(crate) digest: Option<String>,
    /// What was asked for.
    pub(crate) config: RecordConfig,
    /// SHA-256 of the files that went in.
    pub(crate) digests: FileDigests,
    /// Threads of the process.
    pub(crate) threads: usize,
    /// Name of the processor.
    pub(crate) cpu: String,
    /// The device, `flex` or one with what it calls itself.
    pub(crate) device: Option<String>,
    /// Parameter counts.
    pub(crate) parameters: Parameters,
    /// Every evaluation.
    pub(crate) evaluations: Vec<Evaluation>,
    /// The best one.
    pub(crate) best: Option<Best>,
    /// Seconds.
    pub(crate) timing: Timing,
    /// False where the peer's times were taken on a busy machine.
    #[serde(default = "yes")]
    pub(crate) timing_valid: bool,
    /// Largest resident memory.
    pub(crate) peak_memory_bytes: Option<u64>,
    /// `finished`, or a run on its way.
    pub(crate) status: String,
}

fn yes() -> bool {
    true
}

/// What decides the cell of a record.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RecordConfig {
    /// Name of the checkpoint.
    pub(crate) model: String,
    /// The task.
    pub(crate) task: Task,
    /// `lora`, `full`, `head`.
    pub(crate) method: String,
    /// The adapter.
    pub(crate) lora: Option<RecordLora>,
    /// Peak learning rate.
    pub(crate) lr: f64,
    /// Passes over the training rows.
    pub(crate) epochs: usize,
    /// Rows of a forward pass.
    pub(crate) batch_size: usize,
    /// Forward passes of an optimiser step.
    pub(crate) accumulate: usize,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Ours: `{"ratio": 0.06}` or steps.
    #[serde(default)]
    pub(crate) warmup: Value,
    /// The peer's.
    pub(crate) warmup_ratio: Option<f64>,
    /// The peer's; its number of steps where a ratio was asked for.
    pub(crate) warmup_steps: Option<u64>,
    /// Dropout of the head, where it is not the checkpoint's.
    pub(crate) head_dropout: Option<f64>,
    /// Tokens of a row.
    pub(crate) max_length: usize,
    /// Batches of like length, which the peer never makes.
    #[serde(default)]
    pub(crate) group_by_length: bool,
    /// Only so many training rows.
    pub(crate) train_rows: Option<usize>,
    /// Only so many steps.
    pub(crate) max_steps: Option<u64>,
    /// How the frozen base was stored.
    #[serde(default)]
    pub(crate) dtype: Dtype,
    /// When the dev set was evaluated; the peer's first records do not say.
    #[serde(default = "after_epochs")]
    pub(crate) eval_every: EvalEvery,
    /// The seed.
    pub(crate) seed: u64,
}

fn after_epochs() -> EvalEvery {
    EvalEvery::Epoch
}

/// SHA-256 of files; the keys are names of files for a model, of files or splits for data.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FileDigests {
    /// Of the checkpoint.
    pub(crate) model: BTreeMap<String, String>,
    /// Of the training and evaluation rows.
    pub(crate) data: BTreeMap<String, String>,
    /// Of the adapter that the run started from.
    #[serde(default)]
    pub(crate) init_adapter: BTreeMap<String, String>,
}

/// The adapter.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RecordLora {
    /// Rank r.
    pub(crate) rank: usize,
    /// Numerator of the scale.
    pub(crate) alpha: f64,
    /// Dropout of the adapter's input.
    pub(crate) dropout: f64,
    /// Layers that got one: names, or a pattern.
    pub(crate) targets: Value,
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Parameters {
    /// All.
    pub(crate) total: usize,
    /// Those the optimiser moves.
    pub(crate) trainable: usize,
    /// LoRA factors.
    pub(crate) adapter: usize,
    /// The classification head.
    pub(crate) head: usize,
}

/// One split, evaluated once.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Evaluation {
    /// Epochs done.
    pub(crate) epoch: f64,
    /// The split.
    pub(crate) split: String,
    /// All metrics; `None` for one that is not a number.
    pub(crate) scores: BTreeMap<String, Option<f64>>,
}

/// The evaluation that counts.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Best {
    /// Epochs done.
    pub(crate) epoch: f64,
    /// The metric that decides.
    pub(crate) metric: String,
    /// Its value, as a fraction.
    pub(crate) value: Option<f64>,
}

/// Seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Timing {
    /// Everything.
    pub(crate) total_seconds: f64,
    /// Training rows a second of optimiser steps.
    pub(crate) examples_per_second: f64,
}

impl Record {
    /// Reads `run.json` in a folder; `None` when there is none or the run is not finished.
    ///
    /// # Errors
    /// When the file cannot be read or is no record.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("run.json");
        if !path.exists() {
            return Ok(None);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let record: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no run record", path.display()))?;
        Ok((record.status == "finished").then_some(record))
    }

    /// The best value in points, 0 to 100 (-100 for a correlation).
    pub(crate) fn best_points(&self) -> Option<f64> {
        self.best.as_ref()?.value.map(|value| value * 100.0)
    }

    /// The deciding metric after each evaluation of the first split: epochs done and points.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let Some(best) = &self.best else {
            return Vec::new();
        };
        let first = self
            .evaluations
            .first()
            .map(|evaluation| evaluation.split.clone())
            .unwrap_or_default();
        self.evaluations
            .iter()
            .filter(|evaluation| evaluation.split == first)
            .filter_map(|evaluation| {
                let value = evaluation.scores.get(&best.metric).copied().flatten()?;
                Some((evaluation.epoch, value * 100.0))
            })
            .collect()
    }
}

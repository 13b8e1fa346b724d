//! Run records as the reports read them.
//!
//! A report needs a part of `run.json` and reads only that, so that records of the PyTorch + PEFT peer, which have the
//! same names but other details, go through the same door as our own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use lowburn_glue::Task;
use lowburn_lora::Targets;
use lowburn_trainer::EvalEvery;
use serde::Deserialize;
use serde_json::Value;

use crate::grid::{Approach, Cell};

/// Who made a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// lowburn.
    Ours,
    /// PyTorch + PEFT, by `scripts/peer`.
    Peer,
}

/// The word in `framework` of the peer's records; ours have no such field.
const PEER_FRAMEWORK: &str = "pytorch+peft";

/// The part of `run.json` that reports show.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    /// The peer's mark, see [`Side`].
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
    /// Tokens of a row.
    pub(crate) max_length: usize,
    /// Batches of like length, which the peer never makes.
    #[serde(default)]
    pub(crate) group_by_length: bool,
    /// Only so many training rows, which no grid asks for.
    pub(crate) train_rows: Option<usize>,
    /// Only so many steps, which no grid asks for.
    pub(crate) max_steps: Option<u64>,
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

    /// Refuses a record that another side, another model or another recipe made.
    ///
    /// # Errors
    /// Naming the first thing that differs, what it is and what it should be.
    pub(crate) fn check(&self, side: Side, model: &str, cell: &Cell, seed: u64) -> Result<()> {
        let wanted = match side {
            Side::Ours => None,
            Side::Peer => Some(PEER_FRAMEWORK),
        };
        let config = &self.config;
        let (lora, targets) = adapter(cell);
        let found_lora = config
            .lora
            .as_ref()
            .map(|lora| (lora.rank, lora.alpha, lora.dropout));
        differ("framework", self.framework.as_deref(), wanted)?;
        differ("model", config.model.as_str(), model)?;
        differ("task", config.task, cell.task)?;
        differ("method", config.method.as_str(), cell.approach.method())?;
        differ("rank, alpha and dropout", found_lora, lora)?;
        if targets.is_some() {
            differ("targets", config.targets(), targets)?;
        }
        differ("lr", config.lr, cell.lr)?;
        differ("epochs", config.epochs, cell.epochs)?;
        differ("batch_size", config.batch_size, cell.batch_size)?;
        differ("accumulate", config.accumulate, cell.accumulate)?;
        differ("weight_decay", config.weight_decay, cell.weight_decay)?;
        differ("warmup_ratio", config.ratio(), Some(cell.warmup_ratio))?;
        differ("max_length", config.max_length, cell.max_length)?;
        differ(
            "group_by_length",
            config.group_by_length,
            cell.group_by_length,
        )?;
        differ("train_rows", config.train_rows, None)?;
        differ("max_steps", config.max_steps, None)?;
        differ("eval_every", config.eval_every, cell.eval_every)?;
        differ("seed", config.seed, seed)
    }

    /// Refuses a pair of records of which one saw other weights or other rows.
    ///
    /// # Errors
    /// Naming the file that differs.
    pub(crate) fn check_same_inputs(&self, peer: &Self) -> Result<()> {
        for (file, digest) in &self.digests.model {
            if peer
                .digests
                .model
                .get(file)
                .is_some_and(|other| other != digest)
            {
                bail!("the peer's {file} is another file than ours; use one checkpoint for both");
            }
        }
        let rows = |record: &Self| {
            record
                .digests
                .data
                .values()
                .cloned()
                .collect::<BTreeSet<_>>()
        };
        if rows(self) != rows(peer) {
            bail!("the peer's data files are others than ours; use one data folder for both");
        }
        Ok(())
    }
}

impl RecordConfig {
    /// The names of the layers with adapters; `None` for a pattern.
    fn targets(&self) -> Option<BTreeSet<String>> {
        let names = self.lora.as_ref()?.targets.as_array()?;
        let names = names.iter().filter_map(Value::as_str);
        Some(names.map(str::to_owned).collect())
    }

    /// Share of the steps that warm up, as either side writes it.
    fn ratio(&self) -> Option<f64> {
        self.warmup["ratio"].as_f64().or(self.warmup_ratio)
    }
}

type LoraSizes = (usize, f64, f64);

/// Rank, alpha and dropout of a cell, and the names of its layers with adapters.
fn adapter(cell: &Cell) -> (Option<LoraSizes>, Option<BTreeSet<String>>) {
    let Approach::Lora {
        rank,
        alpha,
        targets,
        dropout,
    } = &cell.approach
    else {
        return (None, None);
    };
    let names = match targets.parse() {
        Ok(Targets::Names(names)) => Some(names),
        _ => None,
    };
    (Some((*rank, *alpha, *dropout)), names)
}

fn differ<T: PartialEq + Debug>(name: &str, found: T, wanted: T) -> Result<()> {
    if found != wanted {
        bail!(
            "it was made with {name} {found:?}, the grid says {wanted:?}; run the grid again, or remove the record"
        );
    }
    Ok(())
}

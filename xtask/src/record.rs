//! Run records as the reports read them.
//!
//! A report needs a part of `run.json` and reads only that, so that records of the PyTorch + PEFT peer, which have the
//! same names but other details, go through the same door as our own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lowburn_glue::Task;
use serde::Deserialize;

use crate::grid::{Approach, Cell, Grid};

/// The part of `run.json` that reports show.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Record {
    /// Version of lowburn; the peer has none.
    pub(crate) version: Option<String>,
    /// Identity of the run; the peer has none.
    pub(crate) digest: Option<String>,
    /// What was asked for.
    pub(crate) config: RecordConfig,
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
    /// Tokens of a row.
    pub(crate) max_length: usize,
    /// The seed.
    pub(crate) seed: u64,
}

/// The adapter's size.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RecordLora {
    /// Rank r.
    pub(crate) rank: usize,
    /// Numerator of the scale.
    pub(crate) alpha: f64,
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Parameters {
    /// All.
    pub(crate) total: u64,
    /// Those the optimiser moves.
    pub(crate) trainable: u64,
    /// LoRA factors.
    pub(crate) adapter: u64,
    /// The classification head.
    pub(crate) head: u64,
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

    /// Refuses a record that another recipe made.
    fn check(&self, cell: &Cell, seed: u64) -> Result<()> {
        let lora = match &cell.approach {
            Approach::Lora { rank, alpha, .. } => Some((*rank, *alpha)),
            _ => None,
        };
        let found = self
            .config
            .lora
            .as_ref()
            .map(|lora| (lora.rank, lora.alpha));
        let pairs = [
            ("task", self.config.task.to_string(), cell.task.to_string()),
            (
                "method",
                self.config.method.clone(),
                cell.approach.method().to_owned(),
            ),
            ("rank and alpha", format!("{found:?}"), format!("{lora:?}")),
            ("lr", self.config.lr.to_string(), cell.lr.to_string()),
            (
                "epochs",
                self.config.epochs.to_string(),
                cell.epochs.to_string(),
            ),
            (
                "batch_size",
                self.config.batch_size.to_string(),
                cell.batch_size.to_string(),
            ),
            (
                "accumulate",
                self.config.accumulate.to_string(),
                cell.accumulate.to_string(),
            ),
            (
                "weight_decay",
                self.config.weight_decay.to_string(),
                cell.weight_decay.to_string(),
            ),
            (
                "max_length",
                self.config.max_length.to_string(),
                cell.max_length.to_string(),
            ),
            ("seed", self.config.seed.to_string(), seed.to_string()),
        ];
        for (name, found, wanted) in pairs {
            if found != wanted {
                bail!(
                    "it was made with {name} {found}, the grid says {wanted}; run the grid again, or remove the record"
                );
            }
        }
        Ok(())
    }
}

/// All records of a grid: ours, and the peer's where there are any.
#[derive(Debug)]
pub(crate) struct Results {
    /// The grid.
    pub(crate) grid: Grid,
    /// One for each cell, in the grid's order.
    pub(crate) cells: Vec<CellResults>,
}

/// Records of one cell.
#[derive(Debug)]
pub(crate) struct CellResults {
    /// The recipe.
    pub(crate) cell: Cell,
    /// Ours: seed and record; what is missing is not there.
    pub(crate) ours: Vec<(u64, Record)>,
    /// The PyTorch + PEFT peer's, by seed.
    pub(crate) peer: Vec<(u64, Record)>,
}

impl CellResults {
    /// Best values of our seeds, in points.
    pub(crate) fn points(&self) -> Vec<f64> {
        self.ours
            .iter()
            .filter_map(|(_, record)| record.best_points())
            .collect()
    }

    /// Best values of the peer's seeds, in points.
    pub(crate) fn peer_points(&self) -> Vec<f64> {
        self.peer
            .iter()
            .filter_map(|(_, record)| record.best_points())
            .collect()
    }

    /// Parameter counts, the same for all seeds.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        self.ours.first().map(|(_, record)| record.parameters)
    }
}

impl Results {
    /// Reads `<folder>/records` and `<folder>/peer`.
    ///
    /// # Errors
    /// For a file that is no record, and a record that another recipe made.
    pub(crate) fn load(grid: &Grid, folder: &Path) -> Result<Self> {
        let mut cells = Vec::new();
        for cell in &grid.cells {
            let (mut ours, mut peer) = (Vec::new(), Vec::new());
            for &seed in &grid.seeds {
                let found = read_checked(
                    &folder.join("records").join(cell.run_name(seed)),
                    cell,
                    seed,
                )?;
                ours.extend(found.map(|record| (seed, record)));
                let found =
                    read_checked(&folder.join("peer").join(cell.run_name(seed)), cell, seed)?;
                peer.extend(found.map(|record| (seed, record)));
            }
            cells.push(CellResults {
                cell: cell.clone(),
                ours,
                peer,
            });
        }
        Ok(Self {
            grid: grid.clone(),
            cells,
        })
    }

    /// Cells of one task, in the grid's order.
    pub(crate) fn of_task(&self, task: Task) -> impl Iterator<Item = &CellResults> {
        self.cells.iter().filter(move |cell| cell.cell.task == task)
    }

    /// Every record of ours.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Record> {
        self.cells
            .iter()
            .flat_map(|cell| cell.ours.iter().map(|(_, record)| record))
    }

    /// Whether no run is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }
}

fn read_checked(folder: &Path, cell: &Cell, seed: u64) -> Result<Option<Record>> {
    let record = Record::read(folder)?;
    if let Some(record) = &record {
        record
            .check(cell, seed)
            .with_context(|| format!("the record {}", folder.display()))?;
    }
    Ok(record)
}

/// Folders below `<folder>/records` that are no run of the grid.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn strays(grid: &Grid, folder: &Path) -> Result<Vec<PathBuf>> {
    let records = folder.join("records");
    if !records.is_dir() {
        return Ok(Vec::new());
    }
    let known: Vec<String> = grid
        .cells
        .iter()
        .flat_map(|cell| grid.seeds.iter().map(|&seed| cell.run_name(seed)))
        .collect();
    let mut found = Vec::new();
    for entry in
        fs::read_dir(&records).with_context(|| format!("cannot read {}", records.display()))?
    {
        let entry = entry?;
        if !known.contains(&entry.file_name().to_string_lossy().into_owned()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

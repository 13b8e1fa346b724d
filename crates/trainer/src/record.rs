//! The run record, `run.json`: what a run was and what came out of it.
//!
//! Tables and figures are rendered from these files and never typed, so everything they need is
//! here, and reading is the exact reverse of writing. A score that is not a number is `null`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lowburn_glue::{Metric, Scores, Task};
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::error::TrainError;

/// Everything about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of lowburn.
    pub version: String,
    /// Versions of what the numbers depend on.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
    /// Identity of the run, see [`crate::digest()`].
    pub digest: String,
    /// The full resolved configuration.
    pub config: RunConfig,
    /// SHA-256 of every file that went in.
    pub digests: Digests,
    /// The device's name, with what it is: `flex`, `cuda:0 (NVIDIA H100 PCIe)`.
    pub device: String,
    /// Threads of the process.
    pub threads: usize,
    /// The processor's name.
    pub cpu: String,
    /// Parameter counts.
    pub parameters: ParameterCounts,
    /// Every evaluation, in order.
    pub evaluations: Vec<EvaluationRecord>,
    /// The best one; `None` while the run is on its way to the first.
    pub best: Option<Best>,
    /// Optimiser steps done.
    pub steps: u64,
    /// Those of them that moved nothing, because their gradients overflowed f16.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_steps: u64,
    /// Where the time went.
    pub timing: Timing,
    /// Largest resident memory of the processes of this run.
    pub peak_memory_bytes: u64,
    /// Whether the run is done.
    pub status: Status,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// SHA-256 of the inputs, by file name relative to its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Files of the base checkpoint, tokenizer included.
    pub model: BTreeMap<String, String>,
    /// Parquet files of the training and evaluation splits.
    pub data: BTreeMap<String, String>,
    /// Files of the adapter the run starts from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub init_adapter: BTreeMap<String, String>,
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterCounts {
    /// All, adapters included.
    pub total: usize,
    /// Those the optimiser moves.
    pub trainable: usize,
    /// LoRA factors.
    pub adapter: usize,
    /// The classification head.
    pub head: usize,
}

/// One split, evaluated once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Optimiser steps done at the time.
    pub step: u64,
    /// Epochs done at the time, as a fraction.
    pub epoch: f64,
    /// The split.
    pub split: String,
    /// Rows of the split.
    pub rows: usize,
    /// Mean loss; `None` when it is not a number.
    pub loss: Option<f64>,
    /// All metrics of the task.
    pub scores: Scores,
}

/// The evaluation that decides which parameters are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimiser steps done at the time.
    pub step: u64,
    /// Epochs done at the time, as a fraction.
    pub epoch: f64,
    /// The task's first metric.
    pub metric: Metric,
    /// Its value; `None` when it never was a number.
    pub value: Option<f64>,
    /// All metrics of that split.
    pub scores: Scores,
}

impl Best {
    /// The candidate an evaluation of a task's first split makes.
    #[must_use]
    pub fn candidate(task: Task, evaluation: &EvaluationRecord) -> Self {
        let metric = task.metrics()[0];
        Self {
            step: evaluation.step,
            epoch: evaluation.epoch,
            metric,
            value: evaluation
                .scores
                .get(metric)
                .filter(|value| !value.is_nan()),
            scores: evaluation.scores.clone(),
        }
    }

    /// Whether `self` replaces `best`: strictly better, any number before no number, so that
    /// ties go to the earlier.
    #[must_use]
    pub fn beats(&self, best: Option<&Self>) -> bool {
        match (self.value, best.map(|best| best.value)) {
            (_, None) => true,
            (Some(_), Some(None)) => true,
            (Some(new), Some(Some(old))) => new > old,
            (None, Some(_)) => false,
        }
    }
}

/// Where the time went, in seconds; summed over the processes of a resumed run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Optimiser steps.
    pub train_seconds: f64,
    /// Evaluations.
    pub eval_seconds: f64,
    /// Everything, loading and saving included.
    pub total_seconds: f64,
    /// Training rows a second of optimiser steps.
    pub examples_per_second: f64,
    /// Real tokens a second of optimiser steps, padding not counted.
    pub tokens_per_second: f64,
}

/// Whether a run is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Started, perhaps killed since.
    Running,
    /// All steps done, everything on disk.
    Finished,
}

/// Burn's version, which the workspace pins exactly.
const BURN: &str = "0.22.1";

/// Versions of this program and of the library it computes with.
pub(crate) fn versions() -> BTreeMap<String, String> {
    [("lowburn", env!("CARGO_PKG_VERSION")), ("burn", BURN)]
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .into()
}

impl RunRecord {
    /// Name of the record in an output folder.
    pub const FILE: &'static str = "run.json";

    /// Reads a record.
    ///
    /// # Errors
    /// When the file cannot be read or is not a run record.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = fs::read_to_string(path).map_err(TrainError::io("read", path))?;
        serde_json::from_str(&text).map_err(|error| TrainError::State {
            path: path.to_path_buf(),
            reason: format!("is not a run record of this version ({error})"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(value: Option<f64>) -> Best {
        Best {
            step: 1,
            epoch: 1.0,
            metric: Metric::Accuracy,
            value,
            scores: Scores::default(),
        }
    }

    #[test]
    fn the_version_of_burn_is_the_pinned_one() {
        let workspace = include_str!("../../../Cargo.toml");
        let pinned = format!("burn = {{ version = \"={BURN}\"");
        assert!(workspace.contains(&pinned), "{pinned}");
    }

    #[test]
    fn ties_go_to_the_earlier_and_nan_never_wins() {
        assert!(best(Some(0.5)).beats(None));
        assert!(best(None).beats(None));
        assert!(best(Some(-0.1)).beats(Some(&best(None))));
        assert!(!best(None).beats(Some(&best(None))));
        assert!(!best(None).beats(Some(&best(Some(-1.0)))));
        assert!(!best(Some(0.5)).beats(Some(&best(Some(0.5)))));
        assert!(best(Some(0.6)).beats(Some(&best(Some(0.5)))));
    }
}

//! What makes a record the record of a run of the grid: its side, the model, the whole recipe, and for a pair of records
//! the same files.
//!
//! The peer's records are checked as strictly as ours: a comparison of two different things looks just like a comparison.

use std::collections::BTreeSet;
use std::fmt::Debug;

use anyhow::{Result, bail};
use lowburn_lora::Targets;
use lowburn_trainer::Warmup;
use serde_json::Value;

use super::{Record, RecordConfig};
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

impl Record {
    /// Refuses a record that another side, another model or another recipe made.
    ///
    /// # Errors
    /// Naming the first thing that differs, what it is and what it should be.
    pub(crate) fn check(&self, side: Side, cell: &Cell, seed: u64) -> Result<()> {
        let (wanted, model) = match side {
            Side::Ours => (None, cell.model.as_str()),
            Side::Peer => (Some(PEER_FRAMEWORK), cell.short_model()),
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
        differ(
            "method",
            config.method.as_str(),
            cell.approach.method().name(),
        )?;
        differ("rank, alpha and dropout", found_lora, lora)?;
        if targets.is_some() {
            differ("targets", config.targets(), targets)?;
        }
        differ("lr", config.lr, cell.lr)?;
        differ("epochs", config.epochs, cell.epochs)?;
        let batch = config.batch_size * config.accumulate;
        differ("batch_size x accumulate", batch, cell.batch_size)?;
        differ("weight_decay", config.weight_decay, cell.weight_decay)?;
        differ("warmup", config.warmup(), Some(cell.warmup))?;
        differ("max_length", config.max_length, cell.max_length)?;
        differ(
            "group_by_length",
            config.group_by_length,
            cell.group_by_length,
        )?;
        differ("head_dropout", config.head_dropout, cell.head_dropout)?;
        if matches!(cell.approach, Approach::Lora { .. }) {
            let started = !self.digests.init_adapter.is_empty();
            differ("a start from an adapter", started, cell.from_mnli)?;
        }
        differ("train_rows", config.train_rows, cell.train_rows)?;
        differ("max_steps", config.max_steps, cell.max_steps)?;
        differ("dtype", config.dtype, cell.dtype)?;
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

    /// The warm-up, as either side writes it.
    fn warmup(&self) -> Option<Warmup> {
        let ratio = self.warmup["ratio"].as_f64().or(self.warmup_ratio);
        let steps = || self.warmup["steps"].as_u64().or(self.warmup_steps);
        ratio
            .map(Warmup::Ratio)
            .or_else(|| steps().map(Warmup::Steps))
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
        ..
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

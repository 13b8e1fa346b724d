//! All records of a grid, ours and the peer's, each checked against the recipe that it claims to be of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowburn_glue::Task;

use crate::grid::{Approach, Cell, Grid};
use crate::record::{Parameters, Record, Side};

/// Our records, below the folder of a grid's results.
const RECORDS: &str = "records";

/// The peer's, below the same folder; `scripts/peer/grid.py` writes them there.
const PEER: &str = "peer";

/// All records of a grid: ours, and the peer's where there are any.
#[derive(Debug)]
pub(crate) struct Results {
    /// The grid.
    pub(crate) grid: Grid,
    /// One for each cell, in the grid's order.
    pub(crate) cells: Vec<CellResults>,
}

/// Records of one cell.
#[derive(Debug, Clone)]
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
    /// For a file that is no record, a record that another recipe made, and a peer that saw other inputs.
    pub(crate) fn load(grid: &Grid, folder: &Path) -> Result<Self> {
        let mut cells = Vec::new();
        for cell in &grid.cells {
            let (mut ours, mut peer) = (Vec::new(), Vec::new());
            for &seed in &grid.seeds {
                let read = |side| read_checked(folder, side, cell, seed);
                ours.extend(read(Side::Ours)?.map(|record| (seed, record)));
                peer.extend(read(Side::Peer)?.map(|record| (seed, record)));
            }
            if let (Some((_, ours)), Some((_, peer))) = (ours.first(), peer.first()) {
                ours.check_same_inputs(peer)
                    .with_context(|| format!("the records of {}", cell.name()))?;
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

    /// The records of one model, as the results of a grid.
    pub(crate) fn of_model(&self, model: &str) -> Self {
        let cells = self.cells.iter().filter(|cell| cell.cell.model == model);
        Self {
            grid: self.grid.of_model(model),
            cells: cells.cloned().collect(),
        }
    }

    /// Cells of one task, in the grid's order.
    pub(crate) fn of_task(&self, task: Task) -> impl Iterator<Item = &CellResults> {
        self.cells.iter().filter(move |cell| cell.cell.task == task)
    }

    /// The methods that the peer has runs of, each once.
    pub(crate) fn peer_methods(&self) -> impl Iterator<Item = &Approach> {
        let mut seen = BTreeSet::new();
        let with_runs = self.cells.iter().filter(|cell| !cell.peer.is_empty());
        with_runs
            .map(|cell| &cell.cell.approach)
            .filter(move |approach| seen.insert(approach.slug()))
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

fn read_checked(folder: &Path, side: Side, cell: &Cell, seed: u64) -> Result<Option<Record>> {
    let place = match side {
        Side::Ours => RECORDS,
        Side::Peer => PEER,
    };
    let folder = folder.join(place).join(cell.run_name(seed));
    let record = Record::read(&folder)?;
    if let Some(record) = &record {
        record
            .check(side, cell, seed)
            .with_context(|| format!("the record {}", folder.display()))?;
    }
    Ok(record)
}

/// The folder of one of our records.
pub(crate) fn record_folder(results: &Path, run: &str) -> PathBuf {
    results.join(RECORDS).join(run)
}

/// Folders among the records of either side that are no run of the grid.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn strays(grid: &Grid, folder: &Path) -> Result<Vec<PathBuf>> {
    let known: Vec<String> = grid
        .cells
        .iter()
        .flat_map(|cell| grid.seeds.iter().map(|&seed| cell.run_name(seed)))
        .collect();
    let mut found = Vec::new();
    for records in [folder.join(RECORDS), folder.join(PEER)] {
        if !records.is_dir() {
            continue;
        }
        let entries =
            fs::read_dir(&records).with_context(|| format!("cannot read {}", records.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", records.display()))?;
            if !known.contains(&entry.file_name().to_string_lossy().into_owned()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

//! What a grid would do: every run with its recipe, its state, and an estimate of what it takes.
//!
//! Nothing is fetched for it. What is not on this machine is estimated from the published shapes and sizes.

use std::path::Path;

use anyhow::{Result, bail};

use super::inputs::Inputs;
use super::runs::{Machine, Run, Todo, method, plan, skip_recorded};
use crate::estimate::{Shape, Tasks, free_memory, micro_batch, pace};
use crate::grid::{Cell, Grid};
use crate::report::{Align, Table, bytes, duration};

/// What was asked of `reproduce`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Folder of adapters and states.
    pub(crate) work: &'a Path,
    /// Folder of records.
    pub(crate) results: &'a Path,
    /// Parts of names.
    pub(crate) filters: &'a [String],
    /// How runs share the machine.
    pub(crate) machine: Machine,
    /// Whether records count as done.
    pub(crate) skip_recorded: bool,
}

/// The cells that have a run which a filter picks, and those that they start from.
///
/// # Errors
/// When no run matches.
pub(crate) fn chosen(grid: &Grid, filters: &[String]) -> Result<Grid> {
    let wanted = |cell: &Cell| {
        let mut names = grid.seeds.iter().map(|&seed| cell.run_name(seed));
        filters.is_empty()
            || names.any(|name| filters.iter().any(|filter| name.contains(filter.as_str())))
    };
    let picked: Vec<&Cell> = grid.cells.iter().filter(|cell| wanted(cell)).collect();
    if picked.is_empty() {
        bail!(
            "no run of the grid {} matches --filter {}",
            grid.name,
            filters.join(" ")
        );
    }
    let starts: Vec<&Cell> = picked
        .iter()
        .filter_map(|cell| grid.start_of(cell))
        .collect();
    let cells = grid
        .cells
        .iter()
        .filter(|cell| picked.contains(cell) || starts.contains(cell));
    Ok(Grid {
        cells: cells.cloned().collect(),
        ..grid.clone()
    })
}

/// The table of all runs, and what they come to.
///
/// # Errors
/// For the first recipe that cannot be trained, and for inputs that are here and wrong.
pub(crate) fn dry_run(grid: &Grid, inputs: &Inputs, asked: Asked<'_>) -> Result<(String, String)> {
    let runs = planned(grid, inputs, asked)?;
    let mut tasks = Tasks::new(inputs.data.as_deref());
    let pace = pace(asked.machine.jobs);
    let mut table = Table::new([
        ("Run", Align::Left),
        ("Start", Align::Left),
        ("lr", Align::Right),
        ("Epochs", Align::Right),
        ("Batch", Align::Right),
        ("Length", Align::Right),
        ("Memory", Align::Right),
        ("Time", Align::Right),
        ("Digest", Align::Left),
        ("State", Align::Left),
    ]);
    let (mut seconds, mut count, mut open, mut unknown) = (0.0, 0, 0, false);
    for (cell, name) in picks(grid, asked.filters) {
        let run = runs.iter().find(|run| run.name == name);
        count += 1;
        let takes = takes(cell, run, inputs, &mut tasks, asked.machine, pace)?;
        let done = run.is_some_and(|run| matches!(run.todo, Todo::Nothing | Todo::Recorded));
        if !done {
            open += 1;
            seconds += takes.seconds.unwrap_or(0.0);
            unknown |= takes.seconds.is_none();
        }
        table.row([
            name,
            grid.start_of(cell).map_or("", |_| "mnli").to_owned(),
            cell.lr.to_string(),
            cell.epochs.to_string(),
            batch(cell, takes.rows),
            cell.max_length.to_string(),
            takes.memory.map_or("unknown".to_owned(), bytes),
            takes.seconds.map_or("unknown".to_owned(), duration),
            run.and_then(|run| run.digest.as_deref())
                .unwrap_or_default()
                .chars()
                .take(12)
                .collect(),
            run.map_or("not fetched", |run| run.todo.word()).to_owned(),
        ]);
    }
    let jobs = asked.machine.jobs.max(1) as f64;
    let more = if unknown { ", and what is unknown" } else { "" };
    let sum = format!(
        "{count} runs, {open} of them to do in about {}{more} on this machine: {:.0} GFLOP/s for each of {} at a \
         time. Times are of rows without padding, memory is of the longest rows; both are estimates.",
        duration(seconds / jobs),
        pace / 1e9,
        asked.machine.jobs,
    );
    Ok((table.markdown(), sum))
}

/// The runs that a filter picks and those that they start from, seed by seed.
pub(crate) fn picks<'a>(grid: &'a Grid, filters: &[String]) -> Vec<(&'a Cell, String)> {
    let mut picks = Vec::new();
    for &seed in &grid.seeds {
        let names = grid.cells.iter().map(|cell| (cell, cell.run_name(seed)));
        picks.extend(names.filter(|(_, name)| picked(name, grid, seed, filters)));
    }
    picks
}

/// The run that a run of a cell starts from, by the name of either.
pub(crate) fn start_name(grid: &Grid, cell: &Cell, name: &str) -> Option<String> {
    let start = grid.start_of(cell)?;
    let seed = name.strip_prefix(&cell.name())?;
    Some(format!("{}{seed}", start.name()))
}

/// Whether a filter picks a run, or one that starts from it.
fn picked(name: &str, grid: &Grid, seed: u64, filters: &[String]) -> bool {
    let matches = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    matches(name)
        || grid.cells.iter().any(|cell| {
            let start = grid.start_of(cell).map(|start| start.run_name(seed));
            start.as_deref() == Some(name) && matches(&cell.run_name(seed))
        })
}

/// The runs whose model and data are here.
pub(crate) fn planned(grid: &Grid, inputs: &Inputs, asked: Asked<'_>) -> Result<Vec<Run>> {
    let here = |cell: &&Cell| inputs.data.is_some() && inputs.model(&cell.model).is_some();
    let here = Grid {
        cells: grid.cells.iter().filter(here).cloned().collect(),
        ..grid.clone()
    };
    if here.cells.is_empty() || chosen(&here, asked.filters).is_err() {
        return Ok(Vec::new());
    }
    let mut runs = plan(&here, inputs, asked.work, asked.filters, asked.machine)?;
    if asked.skip_recorded {
        skip_recorded(&mut runs, asked.results);
    }
    Ok(runs)
}

/// What a run takes; what is not known is not there.
struct Takes {
    rows: usize,
    memory: Option<u64>,
    seconds: Option<f64>,
}

fn takes(
    cell: &Cell,
    run: Option<&Run>,
    inputs: &Inputs,
    tasks: &mut Tasks<'_>,
    machine: Machine,
    pace: f64,
) -> Result<Takes> {
    let (method, lora) = method(cell)?;
    let shape = Shape::of(cell, inputs.model(&cell.model))?;
    let free = free_memory().map(|bytes| bytes / 10 * 8 / machine.jobs.max(1) as u64);
    let rows = match (run, machine.micro_batch, &shape) {
        (Some(run), ..) => run.config.batch_size,
        (None, None, Some(shape)) => {
            micro_batch(shape, cell, method, lora.as_ref(), free.unwrap_or(u64::MAX))?
        }
        (None, most, _) => {
            let most = most.unwrap_or(cell.batch_size).min(cell.batch_size).max(1);
            (1..=most)
                .rev()
                .find(|rows| cell.batch_size.is_multiple_of(*rows))
                .unwrap_or(1)
        }
    };
    let Some(shape) = shape else {
        return Ok(Takes {
            rows,
            memory: None,
            seconds: None,
        });
    };
    let operations = tasks
        .get(cell.task)?
        .map(|sizes| shape.operations(cell, method, &sizes));
    Ok(Takes {
        rows,
        memory: Some(shape.memory(cell, method, lora.as_ref(), rows)?),
        seconds: operations.map(|operations| operations / pace),
    })
}

/// `128`, or `128 = 16 x 8` where it is accumulated.
fn batch(cell: &Cell, rows: usize) -> String {
    if rows == cell.batch_size {
        return rows.to_string();
    }
    format!(
        "{} = {rows} x {}",
        cell.batch_size,
        cell.batch_size / rows.max(1)
    )
}

//! What a grid would do: every run with its recipe, its state, and an estimate of what it takes.
//!
//! Nothing is fetched for it. What is not on this machine is estimated from the published shapes and sizes.

use std::path::Path;

use anyhow::Result;
use lowburn_trainer::{DeviceKind, DeviceName};

use super::inputs::Inputs;
use super::picks::Pick;
use super::runs::{Run, plan, skip_recorded};
use crate::estimate::{Machine, Shape, Tasks, pace};
use crate::grid::Cell;
use crate::report::{Align, Table, bytes, duration};

/// What was asked of `reproduce`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The runs that are meant.
    pub(crate) picks: &'a [Pick<'a>],
    /// Folder of adapters and states.
    pub(crate) work: &'a Path,
    /// Folder of records.
    pub(crate) results: &'a Path,
    /// How runs share the machine.
    pub(crate) machine: Machine,
    /// What they compute on, or one of several like it.
    pub(crate) device: DeviceName,
    /// Whether records count as done.
    pub(crate) skip_recorded: bool,
}

/// The table of all runs, and what they come to.
///
/// # Errors
/// For the first recipe that cannot be trained, and for inputs that are here and wrong.
pub(crate) fn dry_run(inputs: &Inputs, asked: Asked<'_>) -> Result<(String, String)> {
    let runs = planned(inputs, asked)?;
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
    for pick in asked.picks {
        let (cell, name) = (pick.cell, pick.name());
        let run = runs.iter().find(|run| run.name == name);
        count += 1;
        let takes = takes(cell, run, inputs, &mut tasks, asked.machine, pace)?;
        if !run.is_some_and(Run::is_done) {
            open += 1;
            seconds += takes.seconds.unwrap_or(0.0);
            unknown |= takes.seconds.is_none();
        }
        table.row([
            name,
            pick.start.map_or("", |_| "mnli").to_owned(),
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
    let elsewhere = match asked.device.kind() {
        DeviceKind::Flex => String::new(),
        _ => format!(
            " They are of the processor; the runs are for {}.",
            asked.device
        ),
    };
    let sum = format!(
        "{count} runs, {open} of them to do in about {}{more} on this machine: {:.0} GFLOP/s for each of {} at a \
         time. Times are of rows without padding, memory is of the longest rows; both are estimates.{elsewhere}",
        duration(seconds / jobs),
        pace / 1e9,
        asked.machine.jobs,
    );
    Ok((table.markdown(), sum))
}

/// The runs whose model and data are here.
///
/// # Errors
/// For the first recipe that cannot be trained.
pub(crate) fn planned(inputs: &Inputs, asked: Asked<'_>) -> Result<Vec<Run>> {
    let mut here = asked.picks.to_vec();
    here.retain(|pick| inputs.data.is_some() && inputs.model(&pick.cell.model).is_some());
    let mut runs = plan(&here, inputs, asked.work, asked.machine, asked.device)?;
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
    let shape = Shape::of(cell, inputs.model(&cell.model))?;
    let rows = match run {
        Some(run) => run.config.batch_size,
        None => machine.rows_at_once(cell, shape.as_ref())?,
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
        .map(|sizes| shape.operations(cell, &sizes));
    Ok(Takes {
        rows,
        memory: Some(shape.memory(cell, rows, machine.checkpoint_activations)?),
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

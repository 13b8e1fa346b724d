//! From a grid to runs: one for each cell and seed, checked as a whole before anything is trained.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowburn_trainer::{
    DeviceName, Method, RunConfig, RunPlan, RunRecord, Start, Status, digest, kept_folder,
};

use super::inputs::Inputs;
use super::picks::Pick;
use crate::estimate::{Machine, Shape};
use crate::grid::{Approach, Cell};
use crate::record::Record;
use crate::results::record_folder;

/// One run to be done, or done.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// `mrpc-lora-r8-seed0`.
    pub(crate) name: String,
    /// What to train, as far as it can be said yet: what another run must leave first is not in it.
    pub(crate) config: RunConfig,
    /// The run's identity; `None` while another run must be done first.
    pub(crate) digest: Option<String>,
    /// Its folder: adapter, logs and state.
    pub(crate) folder: PathBuf,
    /// The run that it starts from.
    pub(crate) parent: Option<Parent>,
    /// What there is to do.
    pub(crate) todo: Todo,
}

/// A run that another starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Its name.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
}

impl Run {
    /// Settles what to train now that the run it starts from is done: what that one left becomes the start, LoRA factors
    /// and head, or the whole checkpoint.
    ///
    /// # Errors
    /// When what was left does not fit the recipe.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if let Some(parent) = &self.parent {
            let left = parent.folder.join(kept_folder(self.config.method));
            match self.config.method {
                Method::Full => self.config.model = left,
                _ => self.config.init_adapter = Some(left),
            }
        }
        let checked = checked(&self.config);
        let checked = checked.with_context(|| format!("in the run {}", self.name))?;
        let found = digest(&checked).with_context(|| format!("in the run {}", self.name))?;
        self.config = checked.config().clone();
        self.todo = look(&self.folder, &found);
        self.digest = Some(found);
        Ok(())
    }

    /// Whether there is nothing to train.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.todo, Todo::Nothing | Todo::Recorded)
    }

    /// Whether it is finished in the work folder.
    fn is_finished(&self) -> bool {
        self.todo == Todo::Nothing
    }
}

/// What the work folder says about a run, or the records do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Todo {
    /// It is finished.
    Nothing,
    /// A finished record of it is among the results, and the user lets that count.
    Recorded,
    /// It was interrupted.
    Continue,
    /// It was never started.
    Train,
    /// Another configuration or other inputs lie there, or something unreadable.
    Replace,
    /// The run that it starts from must be done first.
    Waits,
}

impl Todo {
    /// How the trainer is to start.
    pub(crate) fn start(&self) -> Start {
        match self {
            Todo::Train | Todo::Replace => Start::Overwrite,
            Todo::Nothing | Todo::Recorded | Todo::Continue | Todo::Waits => Start::Resume,
        }
    }

    /// The word in the plan.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Todo::Nothing => "done",
            Todo::Recorded => "recorded",
            Todo::Continue => "goes on",
            Todo::Train => "to do",
            Todo::Replace => "again, something in it changed",
            Todo::Waits => "after its start",
        }
    }
}

/// The runs, in the order of the picks, each for this device or one of its kind.
///
/// # Errors
/// For the first recipe that cannot be trained.
pub(crate) fn plan(
    picks: &[Pick<'_>],
    inputs: &Inputs,
    work: &Path,
    machine: Machine,
    device: DeviceName,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for pick in picks {
        let run = one(pick, inputs, work, machine, device);
        runs.push(run.with_context(|| format!("in the run {}", pick.name()))?);
    }
    // What is no start of its own first, so that it is known which starts are done.
    for run in runs.iter_mut().filter(|run| run.parent.is_none()) {
        run.settle()?;
    }
    let done: Vec<String> = runs
        .iter()
        .filter(|run| run.is_finished())
        .map(|run| run.name.clone())
        .collect();
    let ready = |run: &&mut Run| {
        run.parent
            .as_ref()
            .is_some_and(|parent| done.contains(&parent.name))
    };
    for run in runs.iter_mut().filter(ready) {
        run.settle()?;
    }
    Ok(runs)
}

/// A run whose recipe is checked, apart from what another run must leave first.
fn one(
    pick: &Pick<'_>,
    inputs: &Inputs,
    work: &Path,
    machine: Machine,
    device: DeviceName,
) -> Result<Run> {
    let (cell, name) = (pick.cell, pick.name());
    let folder = work.join(&name);
    let model = inputs.model(&cell.model).context("its model is not here")?;
    let data = inputs.data.as_deref().context("its data is not here")?;
    let mut config = run_config(cell, pick.seed, model, data)?;
    config.device = device;
    config.threads = Some(machine.threads);
    config.checkpoint_activations = machine.checkpoint_activations;
    config.batch_size = match as_before(cell, &folder).filter(|_| machine.micro_batch.is_none()) {
        Some(rows) => rows,
        None => machine.rows_at_once(cell, Shape::of(cell, Some(model))?.as_ref())?,
    };
    config.accumulate = cell.batch_size / config.batch_size;
    checked(&config)?;
    Ok(Run {
        config,
        digest: None,
        folder,
        parent: pick.start_name().map(|name| Parent {
            folder: work.join(&name),
            name,
        }),
        name,
        todo: Todo::Waits,
    })
}

/// Checks a run apart from its device. That is looked for by the process that does the run: it may be on another
/// machine, and a card that was opened here would lack that memory until the whole grid is done.
fn checked(config: &RunConfig) -> Result<RunPlan> {
    let anywhere = RunConfig {
        device: DeviceName::FLEX,
        ..config.clone()
    };
    Ok(anywhere.check()?.on(config.device))
}

/// Rows of a forward pass in the run that lies there, which may go on elsewhere or with less memory free; `None` if there is
/// none of this batch.
fn as_before(cell: &Cell, folder: &Path) -> Option<usize> {
    let config = RunRecord::read(&folder.join(RunRecord::FILE)).ok()?.config;
    (config.batch_size * config.accumulate == cell.batch_size).then_some(config.batch_size)
}

/// What a run's folder says, for the run of this digest.
pub(crate) fn look(folder: &Path, digest: &str) -> Todo {
    if !folder.join(RunRecord::FILE).exists() {
        return Todo::Train;
    }
    match RunRecord::read(&folder.join(RunRecord::FILE)) {
        Ok(record) if record.digest != digest => Todo::Replace,
        Ok(record) if record.status == Status::Finished => Todo::Nothing,
        Ok(_) => Todo::Continue,
        Err(_) => Todo::Replace,
    }
}

/// Lets finished records count: a run whose digest one of them has is not to be done, here or anywhere.
///
/// The digest holds the whole recipe, every input file and the format of digests, so a record of another recipe, of
/// other inputs or of an older format never counts. Nor does the record of a run that another one still has to start from:
/// a record holds no parameters.
pub(crate) fn skip_recorded(runs: &mut [Run], results: &Path) {
    let needed: Vec<String> = runs
        .iter()
        .filter(|run| !run.is_finished())
        .filter_map(|run| run.parent.as_ref().map(|parent| parent.name.clone()))
        .collect();
    for run in runs {
        let record = record_folder(results, &run.name);
        let recorded = run
            .digest
            .as_deref()
            .is_some_and(|digest| is_recorded(&record, digest));
        if run.todo != Todo::Nothing && recorded && !needed.contains(&run.name) {
            run.todo = Todo::Recorded;
        }
    }
}

/// Whether a folder holds the finished record, log included, of the run of this digest. Files that cannot be read are
/// no record: the run is then trained, and its record written anew.
fn is_recorded(folder: &Path, digest: &str) -> bool {
    let record = Record::read(folder).ok().flatten();
    let same = record.is_some_and(|record| record.digest.as_deref() == Some(digest));
    same && folder.join("log.jsonl").is_file()
}

fn run_config(cell: &Cell, seed: u64, model: &Path, data: &Path) -> Result<RunConfig> {
    let position_branch = match &cell.approach {
        Approach::Lora {
            position_branch, ..
        } => *position_branch,
        _ => None,
    };
    Ok(RunConfig {
        model: model.to_owned(),
        model_name: cell.model.clone(),
        task: cell.task,
        data_dir: data.to_owned(),
        method: cell.approach.method(),
        lora: cell.approach.lora()?,
        position_branch,
        init_adapter: None,
        epochs: cell.epochs,
        batch_size: cell.batch_size,
        accumulate: 1,
        lr: cell.lr,
        weight_decay: cell.weight_decay,
        warmup: cell.warmup,
        max_length: cell.max_length,
        seed,
        head_dropout: cell.head_dropout,
        shuffle: true,
        group_by_length: cell.group_by_length,
        train_rows: cell.train_rows,
        max_steps: cell.max_steps,
        eval_every: cell.eval_every,
        device: DeviceName::FLEX,
        threads: None,
        checkpoint_activations: false,
        dtype: cell.dtype,
    })
}

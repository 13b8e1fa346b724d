//! From a grid to runs: one for each cell and seed, checked as a whole before anything is trained.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lowburn_lora::LoraConfig;
use lowburn_trainer::{DeviceName, Method, RunConfig, RunRecord, Start, Status, Warmup, digest};

use crate::grid::{Approach, Cell, Grid};
use crate::record::Record;
use crate::results::record_folder;
use crate::workspace;

/// The model's and the data's folder of a grid.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    /// The checkpoint.
    pub(crate) model: PathBuf,
    /// One folder a task.
    pub(crate) data: PathBuf,
}

impl Inputs {
    /// Finds what a grid names: the embedded `mini` assets, folders that the user gave, or what is on the hub, which is
    /// fetched as far as it is not in the cache.
    ///
    /// # Errors
    /// When it is none of these, or does not hold what it should.
    pub(crate) fn find(grid: &Grid, models: Option<&Path>, data: Option<&Path>) -> Result<Self> {
        let unpacked =
            || lowburn_hub::unpack_mini(&workspace::target().join("lowburn").join("assets"));
        let model = if grid.model == lowburn_hub::MINI {
            unpacked()?.model
        } else {
            let below = models.map(|models| models.join(&grid.model));
            let folder = below.filter(|folder| folder.is_dir());
            let argument = folder.map(|folder| folder.to_string_lossy().into_owned());
            let argument = argument.as_ref().unwrap_or(&grid.model);
            let found = lowburn::model(argument, false).with_context(|| {
                format!(
                    "the grid {} needs the checkpoint {}: give the folder that holds it with --models, or check its \
                     name on the hub",
                    grid.name, grid.model
                )
            });
            found?.path
        };
        let data = if grid.data == lowburn_hub::MINI {
            unpacked()?.data
        } else {
            let argument = data.map(|data| data.to_string_lossy().into_owned());
            let argument = argument.as_ref().unwrap_or(&grid.data);
            let found = lowburn::training_data(argument, &grid.tasks(), false).with_context(|| {
                format!(
                    "the grid {} needs the data {}: give its folder, with one folder a task, with --data",
                    grid.name, grid.data
                )
            });
            found?.path
        };
        Ok(Self { model, data })
    }
}

/// One run to be done, or done.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// `mrpc-lora-r8-seed0`.
    pub(crate) name: String,
    /// What to train.
    pub(crate) config: RunConfig,
    /// The run's identity.
    pub(crate) digest: String,
    /// Its folder: adapter, logs and state.
    pub(crate) folder: PathBuf,
    /// What there is to do.
    pub(crate) todo: Todo,
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
}

impl Todo {
    /// How the trainer is to start.
    pub(crate) fn start(&self) -> Start {
        match self {
            Todo::Train | Todo::Replace => Start::Overwrite,
            Todo::Nothing | Todo::Recorded | Todo::Continue => Start::Resume,
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
        }
    }
}

/// All runs of a grid whose names hold one of the filters (all for none), seed by seed, so that every cell has its
/// first number early.
///
/// # Errors
/// For the first recipe that cannot be trained, and when no run matches.
pub(crate) fn plan(
    grid: &Grid,
    inputs: &Inputs,
    work: &Path,
    filters: &[String],
    threads: usize,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for &seed in &grid.seeds {
        for cell in &grid.cells {
            let name = cell.run_name(seed);
            if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
                continue;
            }
            let config = run_config(grid, cell, seed, inputs, threads)
                .with_context(|| format!("in the run {name}"))?;
            let checked = config
                .check()
                .with_context(|| format!("in the run {name}"))?;
            let digest = digest(&checked).with_context(|| format!("in the run {name}"))?;
            let folder = work.join(&name);
            let todo = look(&folder, &digest);
            runs.push(Run {
                name,
                config: checked.config().clone(),
                digest,
                folder,
                todo,
            });
        }
    }
    if runs.is_empty() {
        bail!(
            "no run of the grid {} matches --filter {}",
            grid.name,
            filters.join(" ")
        );
    }
    Ok(runs)
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
/// other inputs or of an older format never counts.
pub(crate) fn skip_recorded(runs: &mut [Run], results: &Path) {
    for run in runs {
        let record = record_folder(results, &run.name);
        if run.todo != Todo::Nothing && is_recorded(&record, &run.digest) {
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

fn run_config(
    grid: &Grid,
    cell: &Cell,
    seed: u64,
    inputs: &Inputs,
    threads: usize,
) -> Result<RunConfig> {
    let (method, lora) = match &cell.approach {
        Approach::Lora {
            rank,
            alpha,
            targets,
            dropout,
        } => {
            let lora = LoraConfig::new(*rank, *alpha, targets.parse()?);
            (
                Method::Lora,
                Some(LoraConfig {
                    dropout: *dropout,
                    ..lora
                }),
            )
        }
        Approach::Full => (Method::Full, None),
        Approach::Head => (Method::Head, None),
        Approach::Bitfit => (Method::Bitfit, None),
    };
    Ok(RunConfig {
        model: inputs.model.clone(),
        model_name: grid.model.clone(),
        task: cell.task,
        data_dir: inputs.data.clone(),
        method,
        lora,
        position_branch: None,
        init_adapter: None,
        epochs: cell.epochs,
        batch_size: cell.batch_size,
        accumulate: cell.accumulate,
        lr: cell.lr,
        weight_decay: cell.weight_decay,
        warmup: Warmup::Ratio(cell.warmup_ratio),
        max_length: cell.max_length,
        seed,
        shuffle: true,
        group_by_length: cell.group_by_length,
        train_rows: None,
        max_steps: None,
        eval_every: cell.eval_every,
        device: DeviceName::Flex,
        threads: Some(threads),
    })
}

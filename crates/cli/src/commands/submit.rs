//! `lowburn submit`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use lowburn_glue::{
    Dataset, Label, Prediction, SubmissionFile, Task, submission_table, submission_zip,
};
use lowburn_trainer::{
    Dtype, PredictConfig, PredictInput, PredictionRow, RunRecord, Source, Status, kept_folder,
    predict, write_atomic,
};

use super::{check_output, check_parent, note};
use crate::args::{SubmitArgs, TaskModel};
use crate::locate;
use crate::progress::{Progress, Verbosity};

/// A model's folder, which a run's folder holds for full fine-tuning.
const CHECKPOINT: &str = "config.json";

pub(super) fn execute(args: &SubmitArgs) -> anyhow::Result<()> {
    check_output(&args.output, args.overwrite, false)?;
    check_parent(&args.output)?;
    ensure!(
        args.output
            .extension()
            .is_some_and(|extension| extension == "zip"),
        "output {}: the server takes a zip archive; end the name with .zip",
        args.output.display()
    );
    let sources = sources(args)?;
    let quiet = args.common.quiet;
    // All of the data before the first prediction, which may be the beginning of hours.
    let mut data = BTreeMap::new();
    for file in SubmissionFile::ALL {
        if sources.contains_key(&file.task) {
            let located = locate::data(&args.data_dir, file.data, file.split, quiet)?;
            Dataset::load(&located.path, file.data, file.split)?;
            data.insert(file.name, located.path);
        }
    }
    let mut tables = BTreeMap::new();
    for file in SubmissionFile::ALL {
        let table = match sources.get(&file.task).zip(data.remove(file.name)) {
            Some((source, data)) => predicted(args, source, data, file)?,
            None => {
                let text = format!(
                    "{}: no model; every row gets the same prediction",
                    file.name
                );
                note(quiet, &text);
                filled(file)
            }
        };
        tables.insert(file.name, table);
    }
    write_atomic(&args.output, &submission_zip(&tables)?)?;
    note(
        quiet,
        &format!("{} files in {}", tables.len(), args.output.display()),
    );
    Ok(())
}

/// The model of each task; all nine, unless the others may be filled in.
fn sources(args: &SubmitArgs) -> anyhow::Result<BTreeMap<Task, Source>> {
    let mut sources = BTreeMap::new();
    for given in &args.models {
        let TaskModel { task, folder } = given;
        if *task == Task::Ax {
            bail!(
                "ax={}: the diagnostic set is predicted by the model of mnli; leave it out",
                folder.display()
            );
        }
        if sources
            .insert(*task, source(args, *task, folder)?)
            .is_some()
        {
            bail!("{task} is given twice; give one model for each task");
        }
    }
    let wanted = Task::ALL.into_iter().filter(|task| *task != Task::Ax);
    let missing: Vec<String> = wanted
        .filter(|task| !sources.contains_key(task))
        .map(|task| task.to_string())
        .collect();
    if !missing.is_empty() && !args.fill {
        bail!(
            "the server takes predictions for all tasks, and there is no model for {}: give TASK=FOLDER for each, or \
             --fill to let such a task have one constant prediction",
            missing.join(", ")
        );
    }
    Ok(sources)
}

/// What a folder is: a run, a checkpoint, or an adapter upon `--model`.
fn source(args: &SubmitArgs, task: Task, folder: &Path) -> anyhow::Result<Source> {
    let upon = |model: PathBuf, adapter: Option<PathBuf>, dtype: Dtype| Source {
        model,
        adapter,
        any_base: false,
        position_branch: None,
        dtype,
    };
    let plain = |model, adapter| upon(model, adapter, Dtype::F32);
    let base = |model: &str| locate::model(model, args.common.quiet).map(|found| found.path);
    if folder.join(RunRecord::FILE).is_file() {
        let record = RunRecord::read(&folder.join(RunRecord::FILE))?;
        let config = record.config;
        ensure!(
            config.task == task,
            "{task}={}: that run is of {}; give a run of {task}",
            folder.display(),
            config.task
        );
        ensure!(
            record.status == Status::Finished,
            "{task}={}: that run is not finished; go on with `lowburn train --resume`",
            folder.display()
        );
        let kept = folder.join(kept_folder(config.method));
        if kept.join(CHECKPOINT).is_file() {
            return Ok(plain(kept, None));
        }
        let model = match &args.model {
            Some(model) => base(model)?,
            None => config.model,
        };
        // Upon the numbers that it was evaluated with.
        return Ok(upon(model, Some(kept), config.dtype));
    }
    if folder.join(CHECKPOINT).is_file() {
        return Ok(plain(folder.to_path_buf(), None));
    }
    ensure!(
        folder.is_dir(),
        "{}: there is no such folder; give a run, a checkpoint or an adapter",
        folder.display()
    );
    let model = args.model.as_deref().with_context(|| {
        format!(
            "{} is neither a run nor a checkpoint: if it is an adapter, give its base with --model",
            folder.display()
        )
    })?;
    Ok(plain(base(model)?, Some(folder.to_path_buf())))
}

fn predicted(
    args: &SubmitArgs,
    source: &Source,
    data_dir: PathBuf,
    file: SubmissionFile,
) -> anyhow::Result<String> {
    let quiet = args.common.quiet;
    note(
        quiet,
        &format!("{}: {} of {}", file.name, file.split, file.data),
    );
    let config = PredictConfig {
        source: source.clone(),
        task: file.data,
        input: PredictInput::Split {
            data_dir,
            split: file.split.to_owned(),
        },
        batch_size: args.batch.batch_size,
        max_length: args.batch.max_length,
        device: args.common.device,
    };
    let mut progress = Progress::new(Verbosity::of(quiet));
    let rows = predict(&config, &mut progress).with_context(|| format!("for {}.tsv", file.name))?;
    drop(progress);
    if rows.len() != file.rows {
        note(
            quiet,
            &format!(
                "warning: {} has {} rows and GLUE's has {}: the server would refuse it",
                file.name,
                rows.len(),
                file.rows
            ),
        );
    }
    Ok(table(file.data, &rows))
}

/// Predictions in GLUE's layout.
pub(super) fn table(task: Task, rows: &[PredictionRow]) -> String {
    let prediction = |row: &PredictionRow| match row.prediction {
        Label::Class(class) => Prediction::Class(class),
        Label::Score(score) => Prediction::Score(score),
    };
    submission_table(task, rows.iter().map(|row| (row.idx, prediction(row))))
}

fn filled(file: SubmissionFile) -> String {
    let constant = match file.data.is_regression() {
        true => Prediction::Score(0.0),
        false => Prediction::Class(0),
    };
    submission_table(file.data, (0..file.rows as i64).map(|row| (row, constant)))
}

//! `lowburn train`.

use lowburn_lora::{LoraConfig, Targets, read_peft};
use lowburn_models::Method;
use lowburn_trainer::{
    Evaluation, RunConfig, RunRecord, Start, TrainError, Warmup, kept_folder, train,
};

use super::print;
use crate::args::{LogFormat, LoraArgs, TrainArgs};
use crate::guard::is_full;
use crate::locate;
use crate::progress::{Progress, Verbosity};
use crate::show::{duration, score_table};
use crate::tensorboard::TensorBoard;

pub(super) fn execute(args: &TrainArgs) -> anyhow::Result<()> {
    let plan = train_config(args)?.check()?;
    let start = match (args.resume, args.overwrite) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::Fresh,
    };
    let mut progress = Progress::new(Verbosity::of(args.common.quiet));
    let record = match args.log {
        None => train(&plan, &args.output, start, &mut progress),
        Some(LogFormat::Tensorboard) => {
            let mut observer = TensorBoard::new(&args.output, &mut progress);
            train(&plan, &args.output, start, &mut observer)
        }
    };
    let record = record.map_err(stopped)?;
    drop(progress);
    print(&summary(&record, args))
}

/// A run that a full disk stopped can go on, which no other command can.
fn stopped(error: TrainError) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    if is_full(&error) {
        return anyhow::anyhow!("{error}; free some space and go on with --resume");
    }
    error
}

/// The run that was typed, defaults filled in.
///
/// # Errors
/// When a name leads to no folder or the adapter to start from cannot be read.
pub fn train_config(args: &TrainArgs) -> anyhow::Result<RunConfig> {
    let quiet = args.common.quiet;
    let model = locate::model(&args.model, quiet)?;
    let data = locate::training_data(&args.data_dir, &[args.task], quiet)?;
    let recipe = &args.recipe;
    let warmup = match (recipe.warmup_ratio, recipe.warmup_steps) {
        (_, Some(steps)) => Warmup::Steps(steps),
        (ratio, None) => Warmup::Ratio(ratio.unwrap_or_default()),
    };
    Ok(RunConfig {
        model: model.path,
        model_name: model.name,
        task: args.task,
        data_dir: data.path,
        method: args.method,
        lora: adapter(args)?,
        position_branch: args.lora_position_branch,
        init_adapter: args.init_adapter.clone(),
        epochs: recipe.epochs,
        batch_size: recipe.batch_size,
        accumulate: recipe.accumulate,
        lr: recipe.lr,
        weight_decay: recipe.weight_decay,
        warmup,
        max_length: recipe.max_length,
        seed: recipe.seed,
        head_dropout: recipe.head_dropout,
        shuffle: recipe.shuffle,
        group_by_length: recipe.group_by_length,
        train_rows: recipe.train_rows,
        max_steps: recipe.max_steps,
        eval_every: recipe.eval_every,
        device: args.common.device,
        threads: args.common.threads,
        checkpoint_activations: args.memory.checkpoint_activations,
        dtype: args.memory.dtype,
    })
}

/// The adapter that was typed: on top of the defaults, or of the folder to start from.
fn adapter(args: &TrainArgs) -> anyhow::Result<Option<LoraConfig>> {
    check_lora(&args.lora, args.method)?;
    if args.method != Method::Lora {
        return Ok(None);
    }
    match &args.init_adapter {
        Some(_) if !args.lora.any() => Ok(None),
        Some(folder) => {
            let mut config = read_peft(folder)?.config;
            set(&mut config, &args.lora);
            Ok(Some(config))
        }
        None => Ok(Some(lora_config(&args.lora))),
    }
}

/// The adapter's options belong to one method.
pub(super) fn check_lora(args: &LoraArgs, method: Method) -> anyhow::Result<()> {
    let typed = args.typed();
    if method == Method::Lora || typed.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "{} needs --method lora, and the method is {method}: leave it out or change the method",
        typed.join(" ")
    )
}

/// The adapter that was typed, with the defaults that the help shows.
pub(super) fn lora_config(args: &LoraArgs) -> LoraConfig {
    let mut config = LoraConfig::new(8, 16.0, Targets::names(["query", "value"]));
    set(&mut config, args);
    config
}

fn set(config: &mut LoraConfig, args: &LoraArgs) {
    config.rank = args.rank.unwrap_or(config.rank);
    config.alpha = args.alpha.unwrap_or(config.alpha);
    config.dropout = args.lora_dropout.unwrap_or(config.dropout);
    config.use_rslora |= args.rslora;
    config.init = args.lora_init.unwrap_or(config.init);
    if let Some(targets) = &args.target {
        config.targets = targets.clone();
    }
}

/// The best evaluation of all splits, and where things are.
fn summary(record: &RunRecord, args: &TrainArgs) -> String {
    let step = record.best.as_ref().map_or(0, |best| best.step);
    let best: Vec<Evaluation> = record
        .evaluations
        .iter()
        .filter(|evaluation| evaluation.step == step)
        .map(|evaluation| Evaluation {
            task: record.config.task,
            split: evaluation.split.clone(),
            rows: evaluation.rows,
            loss: evaluation.loss,
            scores: evaluation.scores.clone(),
        })
        .collect();
    format!(
        "{}best after {step} of {} steps, {} in all; kept in {}\n",
        score_table(&best),
        record.steps,
        duration(record.timing.total_seconds),
        args.output.join(kept_folder(args.method)).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_a_full_disk_stopped_can_go_on() {
        let error = stopped(TrainError::Io {
            action: "write",
            path: "run/log.jsonl".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        });
        let line = crate::guard::one_line(&error);
        assert!(line.starts_with("cannot write run/log.jsonl: "), "{line}");
        assert!(
            line.ends_with("; free some space and go on with --resume"),
            "{line}"
        );
    }
}

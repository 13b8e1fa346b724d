//! `lowburn eval`.

use lowburn_trainer::{EvalConfig, Source, evaluate};

use super::print;
use crate::args::{EvalArgs, ModelArgs};
use crate::locate;
use crate::progress::{Progress, Verbosity};
use crate::show::score_table;

pub(super) fn execute(args: &EvalArgs) -> anyhow::Result<()> {
    let config = EvalConfig {
        source: source(&args.model, args.common.quiet)?,
        task: args.task,
        data_dir: locate::data(&args.data_dir, args.task, &args.split, args.common.quiet)?.path,
        split: args.split.clone(),
        batch_size: args.batch.batch_size,
        max_length: args.batch.max_length,
        device: args.common.device,
    };
    let mut progress = Progress::new(Verbosity::of(args.common.quiet));
    let evaluations = evaluate(&config, &mut progress)?;
    drop(progress);
    if !args.json {
        return print(&score_table(&evaluations));
    }
    let mut text = String::new();
    for evaluation in &evaluations {
        text.push_str(&serde_json::to_string(evaluation)?);
        text.push('\n');
    }
    print(&text)
}

/// The model that was typed.
pub(super) fn source(args: &ModelArgs, quiet: bool) -> anyhow::Result<Source> {
    Ok(Source {
        model: locate::model(&args.model, quiet)?.path,
        adapter: args.adapter.clone(),
        any_base: args.any_base,
        position_branch: args.lora_position_branch,
        dtype: args.dtype,
    })
}

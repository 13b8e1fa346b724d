//! `lowburn eval`.

use lowburn_hub as hub;
use lowburn_trainer::{EvalConfig, Source, evaluate};

use super::print;
use crate::args::{EvalArgs, ModelArgs};
use crate::progress::{Progress, Verbosity};
use crate::show::score_table;

pub(super) fn execute(args: &EvalArgs) -> anyhow::Result<()> {
    let config = EvalConfig {
        source: source(&args.model)?,
        task: args.task,
        data_dir: hub::data(&args.data_dir)?.path,
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
pub(super) fn source(args: &ModelArgs) -> anyhow::Result<Source> {
    Ok(Source {
        model: hub::model(&args.model)?.path,
        adapter: args.adapter.clone(),
        any_base: args.any_base,
        position_branch: args.lora_position_branch,
    })
}

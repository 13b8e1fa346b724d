//! `lowburn merge`.

use lowburn_hub as hub;
use lowburn_trainer::{Source, merge};

use super::{check_output, note, write_folder};
use crate::args::MergeArgs;

pub(super) fn execute(args: &MergeArgs) -> anyhow::Result<()> {
    check_output(&args.output, args.overwrite, true)?;
    let source = Source {
        model: hub::model(&args.model)?.path,
        adapter: Some(args.adapter.clone()),
        any_base: args.any_base,
    };
    let merged = merge(&source, args.common.device)?;
    write_folder(&args.output, "config.json", |folder| {
        Ok(merged.save(folder)?)
    })?;
    note(
        args.common.quiet,
        &format!("merged checkpoint in {}", args.output.display()),
    );
    Ok(())
}

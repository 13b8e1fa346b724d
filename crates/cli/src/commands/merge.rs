//! `lowburn merge`.

use lowburn_trainer::{Dtype, Source, merge};

use super::{check_output, note, same_place, write_folder};
use crate::args::MergeArgs;
use crate::locate;
use crate::progress::{Progress, Verbosity};

pub(super) fn execute(args: &MergeArgs) -> anyhow::Result<()> {
    check_output(&args.new.output, args.new.overwrite, true)?;
    let source = Source {
        model: locate::model(&args.model, args.common.quiet)?.path,
        adapter: Some(args.adapter.clone()),
        any_base: args.any_base,
        position_branch: args.lora_position_branch,
        dtype: Dtype::F32,
    };
    if same_place(&args.new.output, &source.model) {
        anyhow::bail!(
            "output folder {} is the base itself, which would be lost: give another --output",
            args.new.output.display()
        );
    }
    let mut progress = Progress::new(Verbosity::of(args.common.quiet));
    let merged = merge(&source, args.common.device, &mut progress)?;
    drop(progress);
    write_folder(&args.new.output, "config.json", |folder| {
        Ok(merged.save(folder)?)
    })?;
    note(
        args.common.quiet,
        &format!("merged checkpoint in {}", args.new.output.display()),
    );
    Ok(())
}

//! `lowburn convert`.

use anyhow::Context;
use lowburn_lora::{read_loralib, read_peft, write_loralib, write_peft};

use super::{check_output, check_parent, note, write_folder};
use crate::args::ConvertArgs;

pub(super) fn execute(args: &ConvertArgs) -> anyhow::Result<()> {
    let to_folder = args.from.is_some();
    check_output(&args.output, args.overwrite, to_folder)?;
    if !to_folder {
        check_parent(&args.output)?; // a folder is made with all above it
    }
    let adapter = if to_folder {
        let alpha = args
            .alpha
            .context("--from loralib needs --alpha: the file does not hold it, and a wrong one silently ruins the scores")?;
        read_loralib(&args.input, alpha)?
    } else {
        read_peft(&args.input)?
    };
    if to_folder {
        write_folder(&args.output, "adapter_config.json", |folder| {
            Ok(write_peft(&adapter, folder)?)
        })?;
    } else {
        write_loralib(&adapter, &args.output)?;
    }
    let text = format!(
        "{} layers of rank {} (alpha {}) and {} tensors saved in full, in {}",
        adapter.factors.len(),
        adapter.config.rank,
        adapter.config.alpha,
        adapter.saved.len(),
        args.output.display()
    );
    note(args.quiet, &text);
    let shared = |module: &String| module.ends_with("query_proj") || module.ends_with("key_proj");
    if to_folder && adapter.factors.keys().any(shared) {
        note(
            args.quiet,
            "adapters that the LoRA authors trained on DeBERTa-v2 leave positions alone: eval, predict and train \
             --init-adapter need --lora-position-branch authors with them",
        );
    }
    Ok(())
}

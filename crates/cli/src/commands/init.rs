//! `lowburn init`.

use anyhow::Context;
use lowburn_glue::Tokenizer;
use lowburn_models::{ModelConfig, random_classifier, save_checkpoint};

use super::{check_output, note, write_folder};
use crate::args::InitArgs;

pub(super) fn execute(args: &InitArgs) -> anyhow::Result<()> {
    check_output(&args.new.output, args.new.overwrite, true)?;
    let config = ModelConfig::from_file(&args.config)?;
    let tokenizer = args
        .tokenizer
        .as_deref()
        .map(Tokenizer::from_dir)
        .transpose()?;
    if let Some(tokenizer) = &tokenizer
        && tokenizer.max_id() as usize >= config.vocab_size
    {
        anyhow::bail!(
            "{}: the tokenizer gives ids up to {} and vocab_size in {} is {}: raise vocab_size or take another tokenizer",
            tokenizer.path().display(),
            tokenizer.max_id(),
            args.config.display(),
            config.vocab_size
        );
    }
    let device = args.common.device.open()?;
    let labels = config.num_labels.unwrap_or(2);
    let model = random_classifier(&config, labels, args.seed, &device)?;
    write_folder(&args.new.output, "config.json", |folder| {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        save_checkpoint(&model, &config, config.labels.as_deref(), folder)?;
        if let Some(tokenizer) = &tokenizer {
            tokenizer.save(folder)?;
        }
        Ok(())
    })?;
    note(
        args.common.quiet,
        &format!("random checkpoint in {}", args.new.output.display()),
    );
    Ok(())
}

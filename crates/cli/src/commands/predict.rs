//! `lowburn predict`.

use std::path::Path;

use anyhow::Context;
use lowburn_trainer::{PredictConfig, PredictInput, PredictionRow, predict, write_atomic};

use super::{check_parent, evaluate::source, note, print, same_place, submit::table};
use crate::args::PredictArgs;
use crate::locate;
use crate::progress::{Progress, Verbosity};

/// The two layouts of predictions.
#[derive(Clone, Copy)]
enum Layout {
    Jsonl,
    Tsv,
}

pub(super) fn execute(args: &PredictArgs) -> anyhow::Result<()> {
    let layout = match &args.output {
        Some(path) => {
            check_parent(path)?;
            layout(path)?
        }
        None => Layout::Jsonl,
    };
    if let (Some(output), Some(input)) = (&args.output, &args.input)
        && same_place(output, input)
    {
        anyhow::bail!(
            "output {} is the input itself, which would be lost: give another --output",
            output.display()
        );
    }
    let config = PredictConfig {
        source: source(&args.model, args.common.quiet)?,
        task: args.task,
        input: input(args)?,
        batch_size: args.batch.batch_size,
        max_length: args.batch.max_length,
        device: args.common.device,
    };
    let mut progress = Progress::new(Verbosity::of(args.common.quiet));
    let rows = predict(&config, &mut progress)?;
    drop(progress);
    let text = match layout {
        Layout::Jsonl => jsonl(&rows)?,
        Layout::Tsv => table(args.task, &rows),
    };
    let Some(path) = &args.output else {
        return print(&text);
    };
    write_atomic(path, text.as_bytes())?;
    note(
        args.common.quiet,
        &format!("{} predictions in {}", rows.len(), path.display()),
    );
    Ok(())
}

fn layout(path: &Path) -> anyhow::Result<Layout> {
    if path.is_dir() {
        anyhow::bail!("output {} is a folder: give a file", path.display());
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => Ok(Layout::Jsonl),
        Some("tsv") => Ok(Layout::Tsv),
        _ => anyhow::bail!(
            "output {}: the name decides the layout; end it with .jsonl or .tsv",
            path.display()
        ),
    }
}

fn input(args: &PredictArgs) -> anyhow::Result<PredictInput> {
    if let Some(text) = &args.text {
        return Ok(PredictInput::Text {
            text: text.clone(),
            pair: args.text_pair.clone(),
        });
    }
    if let Some(path) = &args.input {
        return Ok(PredictInput::File(path.clone()));
    }
    let split = args.split.clone().context("--data-dir needs --split")?;
    let data_dir = args.data_dir.as_deref().unwrap_or(lowburn_hub::GLUE);
    Ok(PredictInput::Split {
        data_dir: locate::data(data_dir, args.task, &split, args.common.quiet)?.path,
        split,
    })
}

fn jsonl(rows: &[PredictionRow]) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowburn_glue::{Label, Task};

    fn row(idx: i64, prediction: Label) -> PredictionRow {
        PredictionRow {
            idx,
            label: None,
            prediction,
            logits: vec![0.5, -0.25],
            probabilities: vec![0.75, 0.25],
        }
    }

    #[test]
    fn tsv_is_what_glue_takes() {
        let rows = [row(7, Label::Class(1))];
        assert_eq!(
            table(Task::Rte, &rows),
            "index\tprediction\n7\tnot_entailment\n"
        );
        assert_eq!(table(Task::Sst2, &rows), "index\tprediction\n7\t1\n");
        let rows = [row(0, Label::Score(2.34567))];
        assert_eq!(table(Task::Stsb, &rows), "index\tprediction\n0\t2.346\n");
    }

    #[test]
    fn jsonl_has_the_fields_of_the_contract() {
        let text = jsonl(&[row(7, Label::Class(1))]).expect("JSON");
        assert_eq!(
            text,
            "{\"idx\":7,\"label\":null,\"prediction\":1,\"logits\":[0.5,-0.25],\"probabilities\":[0.75,0.25]}\n"
        );
    }
}

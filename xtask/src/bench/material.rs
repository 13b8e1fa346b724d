//! What a benchmark runs on: a checkpoint with random weights in a shape like the published ones, and rows of the wanted length.
//!
//! Speed does not depend on what the weights are, so nothing is downloaded. Both lie in the build folder and are made
//! once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use clap::Parser;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use crate::workspace;

/// The shapes that are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// roberta-base's.
    RobertaBase,
    /// DeBERTa-v2 with as many layers as wide: 12 of 768, with the convolution and the distances of the published ones.
    DebertaV2,
}

impl Shape {
    /// Part of a folder's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::RobertaBase => "roberta-base",
            Shape::DebertaV2 => "deberta-v2-12x768",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Shape::RobertaBase => include_str!("roberta-base.json"),
            Shape::DebertaV2 => include_str!("deberta-v2.json"),
        }
    }
}

/// Words that every byte-level tokenizer knows in a few tokens each; a row repeats them in a turning order.
const WORDS: [&str; 16] = [
    "the", "film", "was", "a", "slow", "but", "honest", "story", "of", "two", "friends", "who",
    "never", "found", "their", "way",
];

/// Folders for one benchmark.
pub(crate) struct Material {
    /// Checkpoint with tokenizer.
    pub(crate) model: PathBuf,
    /// Data folder with `sst2`.
    pub(crate) data: PathBuf,
}

/// Makes what is not there yet.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn prepare(
    shape: Shape,
    layers: usize,
    dropout: f64,
    rows: usize,
    words: usize,
) -> Result<Material> {
    let root = root();
    let deep = match layers {
        LAYERS => String::new(),
        other => format!("-{other}-layers"),
    };
    let model = root.join(format!("{}{deep}-dropout{dropout}", shape.name()));
    if !model.join("config.json").exists() {
        checkpoint(shape, &model, &mini_tokenizer()?, |config| {
            config["num_hidden_layers"] = Value::from(layers);
            set_dropout(config, dropout);
        })?;
    }
    let data = root.join("data");
    write_sst2(&data, rows, words, 16)?;
    Ok(Material { model, data })
}

/// Writes training and evaluation rows of so many words.
fn write_sst2(data: &Path, rows: usize, words: usize, evaluated: usize) -> Result<()> {
    for (split, rows) in [("train", rows), ("validation", evaluated)] {
        let path = data
            .join("sst2")
            .join(format!("{split}-00000-of-00001.parquet"));
        write_split(&path, rows, words)?;
    }
    Ok(())
}

/// A data folder with `sst2`: rows of so many words, and enough evaluation rows for the largest batch of an evaluation.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn rows(name: &str, rows: usize, words: usize) -> Result<PathBuf> {
    let data = root().join(name);
    write_sst2(&data, rows, words, rows.max(32))?;
    Ok(data)
}

/// A checkpoint with random weights and the tokenizer of the embedded model, made if it is not there yet.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn made(name: &str, config: &Value) -> Result<PathBuf> {
    let model = root().join(name);
    if !model.join("config.json").exists() {
        initialise(config, &model, &mini_tokenizer()?)?;
    }
    Ok(model)
}

/// The folder of the embedded model, whose tokenizer it is.
fn mini_tokenizer() -> Result<PathBuf> {
    let assets = workspace::target().join("lowburn").join("assets");
    Ok(lowburn_hub::unpack_mini(&assets)?.model)
}

/// Layers of the shapes.
pub(crate) const LAYERS: usize = 12;

fn root() -> PathBuf {
    workspace::target().join("lowburn").join("bench")
}

/// A checkpoint in roberta-base's shape with random weights and the tokenizer of another one, so that rows are as long as real
/// ones are.
///
/// # Errors
/// When there is no such tokenizer, or a file cannot be written.
pub(crate) fn with_tokenizer(tokenizer: &Path, dropout: f64) -> Result<PathBuf> {
    let model = root().join(format!("roberta-base-real-dropout{dropout}"));
    if !model.join("config.json").exists() {
        let text = std::fs::read_to_string(tokenizer.join("config.json"))
            .with_context(|| format!("{} has no config.json", tokenizer.display()))?;
        let theirs: Value = serde_json::from_str(&text)?;
        checkpoint(Shape::RobertaBase, &model, tokenizer, |config| {
            for name in ["pad_token_id", "bos_token_id", "eos_token_id"] {
                config[name] = theirs[name].clone();
            }
            set_dropout(config, dropout);
        })?;
    }
    Ok(model)
}

/// The checkpoint with an adapter merged into it: trained for one step, so that it has a head.
///
/// # Errors
/// Those of training and merging.
pub(crate) fn merged(base: &Path, data: &Path) -> Result<PathBuf> {
    let model = root().join("roberta-base-merged");
    if model.join("config.json").exists() {
        return Ok(model);
    }
    let run = root().join("merged-run");
    let train = "train --task mrpc --method lora --epochs 1 --batch-size 4 --train-rows 4 --lr 1e-3 --weight-decay 0 \
                 --warmup-steps 0 --max-length 128 --seed 0";
    lowburn(
        train,
        &[("--model", base), ("--data-dir", data), ("--output", &run)],
    )?;
    let adapter = run.join("adapter");
    lowburn(
        "merge",
        &[
            ("--model", base),
            ("--adapter", &adapter),
            ("--output", &model),
        ],
    )?;
    Ok(model)
}

/// A command of the binary, quietly, over whatever its output was.
fn lowburn(words: &str, paths: &[(&str, &Path)]) -> Result<()> {
    let mut line: Vec<String> = ["lowburn"]
        .into_iter()
        .chain(words.split_whitespace())
        .chain(["--quiet", "--overwrite"])
        .map(str::to_owned)
        .collect();
    for (name, path) in paths {
        line.extend([(*name).to_owned(), path.to_string_lossy().into_owned()]);
    }
    lowburn::execute(&lowburn::Cli::try_parse_from(line)?.command)
}

fn set_dropout(config: &mut Value, dropout: f64) {
    for name in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[name] = Value::from(dropout);
    }
}

fn checkpoint(
    shape: Shape,
    model: &Path,
    tokenizer: &Path,
    change: impl FnOnce(&mut Value),
) -> Result<()> {
    let mut config: Value = serde_json::from_str(shape.config())?;
    change(&mut config);
    initialise(&config, model, tokenizer)
}

fn initialise(config: &Value, model: &Path, tokenizer: &Path) -> Result<()> {
    let path = root().join("config.json");
    workspace::write(&path, &serde_json::to_string_pretty(config)?)?;
    lowburn(
        "init --seed 0",
        &[
            ("--config", &path),
            ("--tokenizer", tokenizer),
            ("--output", model),
        ],
    )
}

fn write_split(path: &Path, rows: usize, words: usize) -> Result<()> {
    let sentence = |row: usize| {
        let words: Vec<&str> = (0..words)
            .map(|index| WORDS[(row * 7 + index * 5 + index / 16) % WORDS.len()])
            .collect();
        words.join(" ")
    };
    let sentences: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(sentence)));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..rows).map(|row| (row % 2) as i64),
    ));
    let indices: ArrayRef = Arc::new(Int32Array::from_iter_values(
        (0..rows).map(|row| row as i32),
    ));
    let batch =
        RecordBatch::try_from_iter([("sentence", sentences), ("label", labels), ("idx", indices)])?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lowburn_glue::{Dataset, Task};

    #[test]
    fn the_rows_are_read_back_as_sst2() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch
            .path()
            .join("sst2")
            .join("train-00000-of-00001.parquet");
        write_split(&path, 5, 20).unwrap();
        let rows = Dataset::load(scratch.path(), Task::Sst2, "train").unwrap();
        assert_eq!(rows.len(), 5);
        assert_eq!(rows.examples[0].text.split(' ').count(), 20);
        assert_ne!(rows.examples[0].text, rows.examples[1].text);
    }

    #[test]
    fn the_shapes_are_some_that_the_models_take() {
        for shape in [Shape::RobertaBase, Shape::DebertaV2] {
            let path = Path::new("config.json");
            let config =
                lowburn_models::ModelConfig::parse(shape.config().as_bytes(), path).unwrap();
            assert_eq!((config.hidden_size, config.num_hidden_layers), (768, 12));
        }
    }
}

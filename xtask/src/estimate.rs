//! What a run would take, in time and memory, before anything is loaded: from the model's configuration, the size of
//! the data, and how fast this machine multiplies matrices.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use lowburn_glue::{Dataset, Task};
use lowburn_models::{Kind, Method, ModelConfig, manifest};
use lowburn_trainer::{EvalEvery, TrainingShape, forecast};

use crate::grid::Cell;

/// Configurations of published checkpoints, for models that are not on this machine yet.
const PUBLISHED: [(&str, &str); 4] = [
    (
        "roberta-base",
        r#"{"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}"#,
    ),
    (
        "roberta-large",
        r#"{"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
            "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}"#,
    ),
    (
        "deberta-v2-xlarge",
        r#"{"model_type": "deberta-v2", "vocab_size": 128100, "max_position_embeddings": 512, "type_vocab_size": 0,
            "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 24, "num_hidden_layers": 24,
            "relative_attention": true, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
            "pos_att_type": "p2c|c2p", "conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": false}"#,
    ),
    (
        "deberta-v2-xxlarge",
        r#"{"model_type": "deberta-v2", "vocab_size": 128100, "max_position_embeddings": 512, "type_vocab_size": 0,
            "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 24, "num_hidden_layers": 48,
            "relative_attention": true, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
            "pos_att_type": "p2c|c2p", "conv_kernel_size": 3, "conv_act": "gelu", "position_biased_input": false}"#,
    ),
];

/// Characters of English text in a token, special tokens counted in; 3.6 to 4.6 on GLUE's tasks.
const CHARACTERS: f64 = 4.2;

/// Share of the speed of large matrix products that a training step reaches here.
const EFFICIENCY: f64 = 0.6;

/// How much a model is worth in operations.
pub(crate) struct Shape {
    config: ModelConfig,
    /// Numbers in the matrices that every token is multiplied with.
    matrices: f64,
}

impl Shape {
    /// The shape of a model that is there, or of a published one; `None` for a name that says nothing.
    ///
    /// # Errors
    /// When the folder's configuration is wrong.
    pub(crate) fn of(cell: &Cell, folder: Option<&Path>) -> Result<Option<Self>> {
        let config = match folder {
            Some(folder) => ModelConfig::from_dir(folder)?,
            None => {
                let short = cell.short_model();
                let Some((_, text)) = PUBLISHED.iter().find(|(name, _)| *name == short) else {
                    return Ok(None);
                };
                ModelConfig::parse(text.as_bytes(), Path::new(short))?
            }
        };
        let matrices = manifest(&config, 2)
            .iter()
            .filter(|spec| spec.kind == Kind::Weight && !spec.in_head())
            .map(|spec| spec.elements() as f64)
            .sum();
        Ok(Some(Self { config, matrices }))
    }

    /// Bytes of a run with so many rows in a forward pass, all as long as the recipe allows; `again`: with layers that
    /// are computed again in the backward pass.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub(crate) fn memory(&self, cell: &Cell, rows: usize, again: bool) -> Result<u64> {
        let (method, lora) = (cell.approach.method(), cell.approach.lora()?);
        let shape = TrainingShape {
            batch_size: rows,
            max_length: cell.max_length,
            accumulate: cell.batch_size.div_ceil(rows.max(1)),
            dtype: cell.dtype,
            checkpoint_activations: again,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            evaluation_rows: None,
            tokenizer_bytes: None,
        };
        let labels = cell.task.num_labels();
        let forecast = forecast(&self.config, method, lora.as_ref(), labels, &shape)?;
        Ok(forecast.memory.total)
    }

    /// Floating-point operations of a whole run, evaluations included.
    pub(crate) fn operations(&self, cell: &Cell, sizes: &Sizes) -> f64 {
        let hidden = self.config.hidden_size as f64;
        let layers = self.config.num_hidden_layers as f64;
        let tokens = sizes.tokens.min(cell.max_length as f64);
        // A multiplication and an addition each; scores and their use in attention are two products of the length.
        let forward = 2.0 * self.matrices + 4.0 * layers * hidden * tokens;
        let passes = match cell.approach.method() {
            Method::Full => 3.0,
            Method::Lora | Method::Bitfit => 2.0,
            Method::Head => 1.0,
        };
        let rows = cell
            .train_rows
            .map_or(sizes.train, |most| sizes.train.min(most as f64));
        let steps = (rows / cell.batch_size as f64).ceil().max(1.0);
        let all = cell.epochs as f64 * steps;
        let done = cell.max_steps.map_or(all, |most| all.min(most as f64));
        let trained = rows * cell.epochs as f64 * done / all;
        let evaluations = match cell.eval_every {
            EvalEvery::Epoch => (done / steps).ceil(),
            EvalEvery::Steps(every) => (done / every.max(1) as f64).ceil(),
        };
        tokens * forward * (trained * passes + sizes.dev * evaluations.max(1.0))
    }
}

/// How large a task is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    train: f64,
    dev: f64,
    /// Tokens of a row in the mean.
    tokens: f64,
}

impl Sizes {
    /// Of the files that are there, or GLUE's own.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    fn of(task: Task, data: Option<&Path>) -> Result<Option<Self>> {
        let Some(data) = data else {
            return Ok(Self::of_glue(task));
        };
        let train = Dataset::load(data, task, "train")?;
        let mut dev = 0;
        for split in task.evaluation_splits() {
            dev += Dataset::load(data, task, split)?.len();
        }
        let length = |text: &str| text.chars().count();
        let pair = |text: &Option<String>| text.as_deref().map_or(0, length);
        let rows = train.examples.iter();
        let characters: usize = rows
            .map(|row| length(&row.text) + pair(&row.text_pair))
            .sum();
        Ok(Some(Self {
            train: train.len() as f64,
            dev: dev as f64,
            tokens: characters as f64 / CHARACTERS / train.len() as f64,
        }))
    }

    /// Rows of the published files, and mean tokens of a row in a vocabulary of 30,000 pieces.
    fn of_glue(task: Task) -> Option<Self> {
        let (train, dev, tokens) = match task {
            Task::Cola => (8_551, 1_043, 13),
            Task::Sst2 => (67_349, 872, 13),
            Task::Mrpc => (3_668, 408, 54),
            Task::Qqp => (363_846, 40_430, 30),
            Task::Stsb => (5_749, 1_500, 29),
            Task::Mnli => (392_702, 19_647, 39),
            Task::Qnli => (104_743, 5_463, 51),
            Task::Rte => (2_490, 277, 70),
            Task::Wnli => (635, 71, 37),
            Task::Ax => return None,
        };
        Some(Self {
            train: f64::from(train),
            dev: f64::from(dev),
            tokens: f64::from(tokens),
        })
    }
}

/// Sizes of tasks, each read once.
pub(crate) struct Tasks<'a> {
    data: Option<&'a Path>,
    known: BTreeMap<Task, Option<Sizes>>,
}

impl<'a> Tasks<'a> {
    /// Of a data folder, or of GLUE where the data is not there yet.
    pub(crate) fn new(data: Option<&'a Path>) -> Self {
        Self {
            data,
            known: BTreeMap::new(),
        }
    }

    /// One task's.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub(crate) fn get(&mut self, task: Task) -> Result<Option<Sizes>> {
        if let Some(sizes) = self.known.get(&task) {
            return Ok(*sizes);
        }
        let sizes = Sizes::of(task, self.data).with_context(|| format!("the data of {task}"))?;
        self.known.insert(task, sizes);
        Ok(sizes)
    }
}

/// Operations a second that a run may expect with so many of this process's threads.
pub(crate) fn pace(jobs: usize) -> f64 {
    lowburn_trainer::matrix_rate() * EFFICIENCY / jobs.max(1) as f64
}

/// How the runs of a grid share the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Runs at a time.
    pub(crate) jobs: usize,
    /// Threads of each.
    pub(crate) threads: usize,
    /// Rows of a forward pass at most; `None`: as many as fit the memory.
    pub(crate) micro_batch: Option<usize>,
    /// Layers are computed again in the backward pass.
    pub(crate) checkpoint_activations: bool,
}

impl Machine {
    /// Bytes that a run may take: its share of most of what is free; `None` where the system does not tell.
    fn memory_of_a_run(self) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024 / 10 * 8 / self.jobs.max(1) as u64)
    }

    /// Rows of a forward pass: a divisor of the recipe's batch, as large as was allowed or as the memory allows.
    ///
    /// # Errors
    /// When the adapter does not fit the model.
    pub(crate) fn rows_at_once(self, cell: &Cell, shape: Option<&Shape>) -> Result<usize> {
        let batch = cell.batch_size;
        if let Some(most) = self.micro_batch {
            return Ok(divisors(batch).find(|rows| *rows <= most).unwrap_or(1));
        }
        match (shape, self.memory_of_a_run()) {
            (Some(shape), Some(bytes)) => {
                micro_batch(shape, cell, bytes, self.checkpoint_activations)
            }
            _ => Ok(batch),
        }
    }
}

/// The divisors of a batch, the largest first.
fn divisors(batch: usize) -> impl Iterator<Item = usize> {
    (1..=batch)
        .rev()
        .filter(move |rows| batch.is_multiple_of(*rows))
}

/// The largest number of rows that divides the batch and with which a run takes at most `bytes`, or no more than with one row.
fn micro_batch(shape: &Shape, cell: &Cell, bytes: u64, again: bool) -> Result<usize> {
    // An evaluation takes what it takes: rows that do not make it more cost nothing.
    let least = shape.memory(cell, 1, again)?;
    for rows in divisors(cell.batch_size) {
        if shape.memory(cell, rows, again)? <= bytes.max(least) {
            return Ok(rows);
        }
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Approach, Grid};

    fn cell() -> Cell {
        let grid = Grid::load("authors").unwrap();
        let mut cells = grid.cells.into_iter();
        cells
            .find(|cell| cell.name() == "roberta-base-rte-lora-r8")
            .unwrap()
    }

    #[test]
    fn published_shapes_have_the_published_sizes() {
        let mut cell = cell();
        // Encoders without embeddings: 85 million in roberta-base, 302 in roberta-large.
        for (model, millions) in [
            ("roberta-base", 85.0),
            ("a/roberta-large@b", 302.0),
            ("deberta-v2-xlarge", 687.0),
        ] {
            cell.model = model.to_owned();
            let shape = Shape::of(&cell, None).unwrap().unwrap();
            assert!(
                (shape.matrices / 1e6 - millions).abs() < 1.0,
                "{model}: {}",
                shape.matrices
            );
        }
        cell.model = "somebody/something".to_owned();
        assert!(Shape::of(&cell, None).unwrap().is_none());
    }

    #[test]
    fn methods_cost_what_their_passes_do() {
        let cell = cell();
        let shape = Shape::of(&cell, None).unwrap().unwrap();
        let sizes = Sizes {
            train: 1000.0,
            dev: 0.0,
            tokens: 50.0,
        };
        let of = |method: Method| {
            let mut cell = cell.clone();
            cell.approach = match method {
                Method::Full => Approach::Full,
                Method::Head => Approach::Head,
                _ => cell.approach,
            };
            shape.operations(&cell, &sizes)
        };
        assert_eq!(of(Method::Full) / of(Method::Head), 3.0);
        assert_eq!(of(Method::Lora) / of(Method::Head), 2.0);
        // 6 operations a parameter and token, and attention's products.
        let expected = 1000.0 * 80.0 * 50.0 * 6.0 * 85e6;
        let ratio = of(Method::Full) / expected;
        assert!((1.0..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_batch_is_cut_until_it_fits() {
        let mut cell = cell();
        cell.approach = Approach::Full;
        let shape = Shape::of(&cell, None).unwrap().unwrap();
        let of = |bytes| micro_batch(&shape, &cell, bytes, false).unwrap();
        assert_eq!(of(u64::MAX), cell.batch_size);
        let takes = |rows| shape.memory(&cell, rows, false).unwrap();
        assert_eq!(takes(of(0)), takes(1));
        assert!(takes(cell.batch_size) > takes(1));
        let rows = of(16 << 30);
        assert!(
            rows > 1 && rows < cell.batch_size && cell.batch_size.is_multiple_of(rows),
            "{rows}"
        );
        let again = |again| micro_batch(&shape, &cell, 6 << 30, again).unwrap();
        assert!(again(true) > again(false));
    }
}

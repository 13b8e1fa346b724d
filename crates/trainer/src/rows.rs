//! A data set ready for a model: tokenised rows, and batches of them.

use std::path::Path;

use lowburn_glue::{Batch, Dataset, Encoding, Label, Task, Tokenizer, collate};
use lowburn_models::{ModelConfig, ModelInput};

use crate::error::TrainError;

/// Tokenised rows of one split.
pub(crate) struct Rows {
    pub(crate) dataset: Dataset,
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    pad_id: u32,
}

impl Rows {
    /// Tokenises a split, rows in parallel; batches are padded with the model's own padding id.
    pub(crate) fn new(
        dataset: Dataset,
        tokenizer: &Tokenizer,
        max_length: usize,
        model: &ModelConfig,
    ) -> Result<Self, TrainError> {
        let encodings = tokenizer.encode_dataset(&dataset, max_length)?;
        check_types(&encodings, tokenizer, model)?;
        Ok(Self::tokenised(dataset, encodings, model.pad_id()))
    }

    /// Rows whose tokens are known already, one encoding for each example.
    pub(crate) fn tokenised(dataset: Dataset, encodings: Vec<Encoding>, pad_id: u32) -> Self {
        let lengths = encodings.iter().map(|row| row.ids.len()).collect();
        Self {
            dataset,
            encodings,
            lengths,
            pad_id,
        }
    }

    /// A split that has its labels.
    pub(crate) fn dataset(data_dir: &Path, task: Task, split: &str) -> Result<Dataset, TrainError> {
        let dataset = Dataset::load(data_dir, task, split)?;
        dataset.require_labels()?;
        Ok(dataset)
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.encodings.len()
    }

    /// Tokens of every row.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The labels of all rows; those without one are left out.
    pub(crate) fn labels(&self) -> Vec<Label> {
        let examples = self.dataset.examples.iter();
        examples.filter_map(|example| example.label).collect()
    }

    /// The rows of these numbers as one batch, padded to its longest.
    pub(crate) fn batch(&self, indices: &[usize]) -> Batch {
        collate(
            &self.encodings,
            &self.dataset.examples,
            indices,
            self.pad_id,
        )
    }
}

/// A batch as the model wants it.
pub(crate) fn model_input(batch: Batch) -> ModelInput {
    ModelInput::new(batch.ids, batch.rows, batch.length, batch.lengths)
        .with_type_ids(batch.type_ids)
}

/// Whether every token type has an embedding, in a model that has such embeddings.
fn check_types(
    encodings: &[Encoding],
    tokenizer: &Tokenizer,
    model: &ModelConfig,
) -> Result<(), TrainError> {
    let largest = encodings.iter().flat_map(|row| &row.type_ids).max();
    match (model.token_types(), largest) {
        (Some(known), Some(&largest)) if largest as usize >= known => Err(TrainError::Mismatch {
            path: tokenizer.path().to_path_buf(),
            reason: format!(
                "it gives tokens the type {largest} and the model has {known} (type_vocab_size in \
                 config.json): tokenizer and checkpoint are not of one model; take both from the \
                 same place"
            ),
        }),
        _ => Ok(()),
    }
}

/// Whether every id the tokenizer can give has an embedding.
pub(crate) fn check_vocabulary(
    folder: &Path,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
) -> Result<(), TrainError> {
    let (largest, size) = (tokenizer.max_id() as usize, config.vocab_size);
    if largest < size {
        return Ok(());
    }
    Err(TrainError::Mismatch {
        path: folder.to_path_buf(),
        reason: format!(
            "the tokenizer gives ids up to {largest} and the embedding has {size} rows (vocab_size \
             in config.json): tokenizer and checkpoint are not of one model; take both from the \
             same place"
        ),
    })
}

//! The peak memory of a training run on flex, from the configuration of a model alone.
//!
//! What a run takes is followed block by block through a simulated process ([`process`]): it loads the checkpoint,
//! takes steps, evaluates and saves. A forward pass ([`passes`], [`tape`]) takes what the operations of
//! `lowburn-models` and `lowburn-kernels` take and keeps what their gradients need, the way back ([`undo`]) gives it
//! up in the order of Burn's autodiff, and the memory itself ([`heap`]) is the program's page pool, rounding, kept
//! blocks and all. No factor was fitted to measured runs; only what the program takes beside tensors ([`PROGRAM`] and
//! its neighbours) was measured.
//!
//! Whoever changes what an operation keeps changes [`tape`] with it; `cargo xtask bench --estimate` lays the two side
//! by side.

mod heap;
mod kept;
mod passes;
mod process;
mod sizes;
mod tape;
mod undo;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use lowburn_lora::ResolvedAdapter;
use lowburn_models::{Dtype, Method, ModelConfig};
use serde::Serialize;

use heap::Part;
use sizes::Sizes;

/// Bytes of a process before it has a model: 20 MB of code as far as it is used, and a small data set.
const PROGRAM: u64 = 24 << 20;

/// Bytes of a thread: the touched part of its stack, and what products of matrices pack for it.
const THREAD: u64 = 1 << 20;

/// Files that a tokenizer is made of, the first that are there, and the bytes that it takes for each byte of theirs.
/// `tokenizer.json` is a tree of JSON first, and pieces of SentencePiece are a tree of their characters.
const TOKENIZERS: [(&[&str], u64); 3] = [
    (&["tokenizer.json"], 48),
    (&["vocab.json", "merges.txt"], 16),
    (&["spm.model"], 52),
];

/// Bytes of a tokenizer for each token that it knows, where there is no file to go by.
const TOKEN: u64 = 1000;

/// What the memory of a run depends on beside model and method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingShape {
    /// Rows of a forward pass.
    pub batch_size: usize,
    /// Real tokens of each row, at most; padding takes nothing.
    pub max_length: usize,
    /// Forward passes of one optimiser step.
    pub accumulate: usize,
    /// How the frozen base is stored.
    pub dtype: Dtype,
    /// Layers are computed again in the backward pass.
    pub checkpoint_activations: bool,
    /// Threads of the process.
    pub threads: usize,
    /// Rows of the evaluation split, where they are fewer than a batch of an evaluation (32, or `batch_size` if that is
    /// more).
    pub evaluation_rows: Option<usize>,
    /// Bytes that the tokenizer takes, see [`tokenizer_bytes`]; `None`: as one that knows as many tokens as the model.
    pub tokenizer_bytes: Option<u64>,
}

/// Bytes of a training run when most is in use, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// All parameters.
    pub weights: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// Both moments of what is trained.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass, and what passes between operations.
    pub activations: u64,
    /// Work memory of operations, and blocks that are kept for the next of their size.
    pub buffers: u64,
    /// The program itself, its threads, the tokenizer.
    pub program: u64,
    /// The sum: the largest resident memory of the process.
    pub total: u64,
    /// What the process does when most is in use.
    pub phase: Phase,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The checkpoint is read.
    #[default]
    Loading,
    /// Forward, backward and update.
    Step,
    /// The evaluation split goes through the model.
    Evaluation,
    /// The state is written.
    Saving,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loading => "while loading",
            Self::Step => "in a training step",
            Self::Evaluation => "in an evaluation",
            Self::Saving => "while saving",
        })
    }
}

/// Bytes of memory that the tokenizer in a checkpoint's folder takes, by the sizes of its files; `None` where there is
/// none. Nothing is read.
#[must_use]
pub fn tokenizer_bytes(folder: &Path) -> Option<u64> {
    TOKENIZERS.iter().find_map(|(files, factor)| {
        let sizes = files
            .iter()
            .map(|file| Some(folder.join(file).metadata().ok()?.len()));
        let sizes: Vec<u64> = sizes.collect::<Option<_>>()?;
        let bytes = sizes.into_iter().fold(0, u64::saturating_add);
        Some(bytes.saturating_mul(*factor))
    })
}

/// The peak of a run, with the adapters of these modules.
pub(crate) fn estimate(
    model: &ModelConfig,
    method: Method,
    adapters: &BTreeMap<String, ResolvedAdapter>,
    labels: usize,
    shape: &TrainingShape,
) -> MemoryEstimate {
    let sizes = Sizes::new(model, method, adapters, labels, shape.dtype);
    let heap = process::run(&sizes, shape);
    let fullest = heap.fullest();
    let [weights, gradients, optimizer, activations] = [
        Part::Weights,
        Part::Gradients,
        Part::Optimizer,
        Part::Activations,
    ]
    .map(|part| fullest.of(part));
    let threads = THREAD.saturating_mul(shape.threads as u64);
    let tokenizer = shape
        .tokenizer_bytes
        .unwrap_or_else(|| TOKEN.saturating_mul(model.vocab_size as u64));
    let program = PROGRAM.saturating_add(threads).saturating_add(tokenizer);
    let named = [weights, gradients, optimizer, activations];
    let named = named.into_iter().fold(0, u64::saturating_add);
    MemoryEstimate {
        weights,
        gradients,
        optimizer,
        activations,
        buffers: heap.peak().saturating_sub(named),
        program,
        total: heap.peak().saturating_add(program),
        phase: fullest.phase,
    }
}

#[cfg(test)]
mod tests;

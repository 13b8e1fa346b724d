//! RoBERTa and DeBERTa-v2 for sequence classification on Burn: the encoders, Hugging Face
//! checkpoints in and out, and what fine-tuning needs of a model.
//!
//! Names are Hugging Face's everywhere (`roberta.encoder.layer.0.attention.self.query`), so that an
//! adapter, a report and an error speak of the same tensor as the rest of the field. Loading is
//! checked both ways: a tensor that is missing, misshapen or unexpected is an error that names it.
//!
//! The models are numerically transformers' `RobertaForSequenceClassification` and
//! `DebertaV2ForSequenceClassification`; tests compare hidden states, logits and gradients with
//! them. One skeleton serves both: what DeBERTa-v2 adds (disentangled attention, a convolution, a
//! pooler) are options of its modules. Everything between the matrix products is fused
//! (`lowburn-kernels`), and the last layer is computed for token 0 only, which is all that the head
//! reads. [`SequenceClassifier::forward_keeping_inputs`] trades time for memory: it keeps the input of
//! each layer only, and the backward pass computes the rest again.
//!
//! This crate knows no task, no data and no training loop.

mod access;
mod adapt;
mod architecture;
mod attention;
mod backbone;
mod build;
mod checkpoint;
mod classifier;
mod config;
mod convolution;
mod disentangled;
mod dtype;
mod embeddings;
mod error;
mod input;
mod layers;
mod load;
mod manifest;
mod mode;
mod named;
mod random;
mod recompute;
mod save;

pub use access::UnknownMethod;
pub use adapt::{HeadPolicy, Method, is_factor};
pub use architecture::{Architecture, is_head};
pub use attention::{AttentionBlock, Layer, SelfAttention};
pub use backbone::{Backbone, Encoder};
pub use checkpoint::weight_files;
pub use classifier::{DenseHead, Head, PooledHead, Pooler, SequenceClassifier};
pub use config::{
    Activation, ConvolutionConfig, DebertaV2Config, Family, ModelConfig, RelativeConfig,
    RobertaConfig,
};
pub use convolution::{Conv1d, ConvLayer};
pub use disentangled::{
    LoraPositionBranch, PositionBranch, RelativePositions, UnknownPositionBranch,
};
pub use dtype::Dtype;
pub use embeddings::{Counting, Embeddings, Table};
pub use error::ModelError;
pub use input::ModelInput;
pub use layers::{Intermediate, LayerNorm, SubLayerOutput};
pub use load::{HeadOrigin, LoadOptions, LoadReport, load_classifier, random_classifier};
pub use manifest::{Kind, TensorSpec, manifest};
pub use mode::Mode;
pub use named::{NamedMapper, NamedVisitor, is_transposed, map_named, visit_named};
pub use recompute::KeptInputs;
pub use save::save_checkpoint;

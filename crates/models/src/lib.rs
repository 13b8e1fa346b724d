//! RoBERTa for sequence classification on Burn: the encoder, Hugging Face checkpoints in and out,
//! and what fine-tuning needs of a model.
//!
//! Names are Hugging Face's everywhere (`roberta.encoder.layer.0.attention.self.query`), so that an
//! adapter, a report and an error speak of the same tensor as the rest of the field. Loading is
//! checked both ways: a tensor that is missing, misshapen or unexpected is an error that names it.
//!
//! The encoder is numerically transformers' `RobertaForSequenceClassification`; tests compare
//! hidden states, logits and gradients with it. Everything between the matrix products is fused
//! (`lowburn-kernels`), and the last layer is computed for token 0 only, which is all that the head
//! reads.
//!
//! This crate knows no task, no data and no training loop.

mod access;
mod adapt;
mod build;
mod checkpoint;
mod classifier;
mod config;
mod error;
mod fields;
mod input;
mod layers;
mod load;
mod manifest;
mod mode;
mod named;
mod random;
mod roberta;
mod save;

pub use access::UnknownMethod;
pub use adapt::{HeadPolicy, Method, is_factor};
pub use checkpoint::weight_files;
pub use classifier::{Head, SequenceClassifier};
pub use config::{Activation, ModelConfig, RobertaConfig};
pub use error::ModelError;
pub use input::ModelInput;
pub use layers::{Intermediate, LayerNorm, SubLayerOutput};
pub use load::{HeadOrigin, LoadOptions, LoadReport, load_classifier, random_classifier};
pub use manifest::{Kind, TensorSpec, is_head, manifest};
pub use mode::Mode;
pub use named::{NamedMapper, NamedVisitor, is_transposed, map_named, visit_named};
pub use roberta::{AttentionBlock, Embeddings, Encoder, Layer, Roberta, SelfAttention, Table};
pub use save::save_checkpoint;

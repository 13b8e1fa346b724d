//! An encoder with a classification head (`RobertaForSequenceClassification` and
//! `DebertaV2ForSequenceClassification` in transformers).

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use lowburn_kernels::dropout;
use lowburn_lora::Linear;

use crate::architecture::Architecture;
use crate::backbone::Backbone;
use crate::config::Activation;
use crate::input::ModelInput;
use crate::layers::activate;
use crate::mode::Mode;

/// An encoder for sequence classification or, with one label, regression.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// The encoder.
    pub backbone: Backbone,
    /// The head.
    pub head: Head,
    /// Which of the architectures it is.
    #[module(skip)]
    pub architecture: Architecture,
}

/// From the vector of token 0 to the logits.
#[derive(Module, Debug)]
pub enum Head {
    /// RoBERTa's.
    Dense(DenseHead),
    /// DeBERTa-v2's.
    Pooled(PooledHead),
}

/// Token 0 -> dropout -> dense -> tanh -> dropout -> out_proj.
#[derive(Module, Debug)]
pub struct DenseHead {
    /// `[d, d]`.
    pub dense: Linear,
    /// `[d, labels]`.
    pub out_proj: Linear,
    /// Probability of both dropouts.
    pub dropout: f64,
}

/// Token 0 -> pooler -> dropout -> classifier.
#[derive(Module, Debug)]
pub struct PooledHead {
    /// Before the classifier.
    pub pooler: Pooler,
    /// `[d, labels]`.
    pub classifier: Linear,
    /// Probability of the dropout between them.
    pub dropout: f64,
}

/// Dropout -> dense -> activation (`ContextPooler` in transformers).
#[derive(Module, Debug)]
pub struct Pooler {
    /// `[d, d]`.
    pub dense: Linear,
    /// Probability of the dropout.
    pub dropout: f64,
    /// The activation.
    #[module(skip)]
    pub activation: Activation,
}

impl SequenceClassifier {
    /// The logits.
    ///
    /// # Shapes
    /// Returns `[batch, labels]`.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        let first = self.backbone.first_token(input, mode);
        self.head.forward(first, mode)
    }

    /// Sets the dropout before the output layer (RoBERTa: both dropouts of the head), in the place of the
    /// checkpoint's `classifier_dropout` or `cls_dropout`.
    pub fn set_head_dropout(&mut self, probability: f64) {
        match &mut self.head {
            Head::Dense(head) => head.dropout = probability,
            Head::Pooled(head) => head.dropout = probability,
        }
    }

    /// Number of logits.
    pub fn num_labels(&self) -> usize {
        let output = match &self.head {
            Head::Dense(head) => &head.out_proj,
            Head::Pooled(head) => &head.classifier,
        };
        output.sizes()[1]
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.backbone.device()
    }
}

impl Head {
    /// # Shapes
    /// - `first`: `[batch, d]`
    /// - returns `[batch, labels]`
    pub fn forward(&self, first: Tensor<2>, mode: &mut Mode) -> Tensor<2> {
        let first = first.cast(DType::F32);
        match self {
            Self::Dense(head) => {
                let x = dropout(first, mode.dropout(head.dropout));
                let x = head.dense.forward(x, mode.key()).tanh();
                let x = dropout(x, mode.dropout(head.dropout));
                head.out_proj.forward(x, mode.key())
            }
            Self::Pooled(head) => {
                let pooler = &head.pooler;
                let x = dropout(first, mode.dropout(pooler.dropout));
                let x = pooler.dense.forward(x, mode.key());
                let x = activate(x, pooler.activation);
                let x = dropout(x, mode.dropout(head.dropout));
                head.classifier.forward(x, mode.key())
            }
        }
    }
}

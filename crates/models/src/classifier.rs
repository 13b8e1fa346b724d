//! An encoder with a classification head (`RobertaForSequenceClassification` in transformers).

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lowburn_kernels::dropout;
use lowburn_lora::Linear;

use crate::input::ModelInput;
use crate::mode::Mode;
use crate::roberta::Roberta;

/// RoBERTa for sequence classification or, with one label, regression.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// The encoder.
    pub roberta: Roberta,
    /// The head.
    pub classifier: Head,
}

/// Token 0 -> dropout -> dense -> tanh -> dropout -> out_proj.
#[derive(Module, Debug)]
pub struct Head {
    /// `[d, d]`.
    pub dense: Linear,
    /// `[d, labels]`.
    pub out_proj: Linear,
    /// Probability of both dropouts.
    pub dropout: f64,
}

impl SequenceClassifier {
    /// The logits.
    ///
    /// # Shapes
    /// Returns `[batch, labels]`.
    pub fn forward(&self, input: &ModelInput, mode: &mut Mode) -> Tensor<2> {
        let first = self.roberta.first_token(input, mode);
        self.classifier.forward(first, mode)
    }

    /// Number of logits.
    pub fn num_labels(&self) -> usize {
        self.classifier.out_proj.sizes()[1]
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.roberta.device()
    }
}

impl Head {
    /// # Shapes
    /// - `first`: `[batch, d]`
    /// - returns `[batch, labels]`
    pub fn forward(&self, first: Tensor<2>, mode: &mut Mode) -> Tensor<2> {
        let x = dropout(first, mode.dropout(self.dropout));
        let x = self.dense.forward(x, mode.key()).tanh();
        let x = dropout(x, mode.dropout(self.dropout));
        self.out_proj.forward(x, mode.key())
    }
}

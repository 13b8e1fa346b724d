//! From tensors by name to modules.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use lowburn_lora::Linear;

use crate::ModelError;
use crate::classifier::{Head, SequenceClassifier};
use crate::config::ModelConfig;
use crate::layers::{Intermediate, LayerNorm, SubLayerOutput};
use crate::roberta::{AttentionBlock, Embeddings, Encoder, Layer, Roberta, SelfAttention, Table};

/// Where the tensors of a model come from, by Hugging Face's name, one at a time.
pub(crate) trait TensorSource {
    /// The tensor, in the shape of the manifest.
    fn take(&mut self, name: &str) -> Result<TensorData, ModelError>;
}

struct Builder<'a> {
    source: &'a mut dyn TensorSource,
    device: &'a Device,
}

/// A sequence classifier whose tensors come from `source`.
pub(crate) fn classifier(
    config: &ModelConfig,
    source: &mut dyn TensorSource,
    device: &Device,
) -> Result<SequenceClassifier, ModelError> {
    let c = config.roberta();
    let mut build = Builder { source, device };
    let embeddings = Embeddings {
        word_embeddings: build.table("roberta.embeddings.word_embeddings")?,
        position_embeddings: build.table("roberta.embeddings.position_embeddings")?,
        token_type_embeddings: build.table("roberta.embeddings.token_type_embeddings")?,
        layer_norm: build.norm("roberta.embeddings", c.layer_norm_eps)?,
        dropout: c.hidden_dropout_prob,
        pad: c.pad_token_id,
    };
    let mut layers = Vec::with_capacity(c.num_hidden_layers);
    for i in 0..c.num_hidden_layers {
        let layer = format!("roberta.encoder.layer.{i}");
        layers.push(Layer {
            attention: AttentionBlock {
                self_attention: SelfAttention {
                    query: build.linear(&format!("{layer}.attention.self.query"))?,
                    key: build.linear(&format!("{layer}.attention.self.key"))?,
                    value: build.linear(&format!("{layer}.attention.self.value"))?,
                    heads: c.num_attention_heads,
                    dropout: c.attention_probs_dropout_prob,
                },
                output: build.output(&format!("{layer}.attention.output"), config)?,
            },
            intermediate: Intermediate {
                dense: build.linear(&format!("{layer}.intermediate.dense"))?,
                activation: c.hidden_act,
            },
            output: build.output(&format!("{layer}.output"), config)?,
        });
    }
    Ok(SequenceClassifier {
        roberta: Roberta {
            embeddings,
            encoder: Encoder { layer: layers },
        },
        classifier: Head {
            dense: build.linear("classifier.dense")?,
            out_proj: build.linear("classifier.out_proj")?,
            dropout: c.classifier_dropout,
        },
    })
}

impl Builder<'_> {
    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>, ModelError> {
        Ok(Tensor::from_data(self.source.take(name)?, self.device))
    }

    fn vector(&mut self, name: &str) -> Result<Param<Tensor<1>>, ModelError> {
        Ok(Param::from_tensor(self.tensor::<1>(name)?))
    }

    fn table(&mut self, name: &str) -> Result<Table, ModelError> {
        let weight = Param::from_tensor(self.tensor(&format!("{name}.weight"))?);
        Ok(Table { weight })
    }

    fn linear(&mut self, name: &str) -> Result<Linear, ModelError> {
        // [out, in] in the file; a transposed view costs nothing, and the products read it as well.
        let weight = self.tensor::<2>(&format!("{name}.weight"))?.transpose();
        let bias = self.tensor(&format!("{name}.bias"))?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&mut self, parent: &str, epsilon: f64) -> Result<LayerNorm, ModelError> {
        Ok(LayerNorm {
            gamma: self.vector(&format!("{parent}.LayerNorm.weight"))?,
            beta: self.vector(&format!("{parent}.LayerNorm.bias"))?,
            epsilon,
        })
    }

    fn output(&mut self, name: &str, config: &ModelConfig) -> Result<SubLayerOutput, ModelError> {
        let c = config.roberta();
        Ok(SubLayerOutput {
            dense: self.linear(&format!("{name}.dense"))?,
            layer_norm: self.norm(name, c.layer_norm_eps)?,
            dropout: c.hidden_dropout_prob,
        })
    }
}

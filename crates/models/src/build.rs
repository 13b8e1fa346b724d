//! From tensors by name to modules.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use lowburn_lora::Linear;

use crate::ModelError;
use crate::attention::{AttentionBlock, Layer, SelfAttention};
use crate::backbone::{Backbone, Encoder};
use crate::classifier::{DenseHead, Head, PooledHead, Pooler, SequenceClassifier};
use crate::config::{DebertaV2Config, Family, ModelConfig};
use crate::convolution::{Conv1d, ConvLayer};
use crate::disentangled::{PositionBranch, RelativePositions};
use crate::dtype::Dtype;
use crate::embeddings::{Counting, Embeddings, Table};
use crate::layers::{Intermediate, LayerNorm, SubLayerOutput};

/// Where the tensors of a model come from, by Hugging Face's name, one at a time.
pub(crate) trait TensorSource {
    /// The tensor, in the shape of the manifest.
    fn take(&mut self, name: &str) -> Result<TensorData, ModelError>;
}

struct Builder<'a> {
    config: &'a ModelConfig,
    source: &'a mut dyn TensorSource,
    dtype: Dtype,
    device: &'a Device,
}

/// A sequence classifier whose tensors come from `source`, the matrices below the head stored in `dtype`.
pub(crate) fn classifier(
    config: &ModelConfig,
    source: &mut dyn TensorSource,
    dtype: Dtype,
    device: &Device,
) -> Result<SequenceClassifier, ModelError> {
    let mut build = Builder {
        config,
        source,
        dtype,
        device,
    };
    let architecture = config.architecture();
    let prefix = architecture.prefix();
    Ok(SequenceClassifier {
        backbone: Backbone {
            embeddings: build.embeddings(&format!("{prefix}.embeddings"))?,
            encoder: build.encoder(&format!("{prefix}.encoder"))?,
        },
        head: build.head()?,
        architecture,
    })
}

impl Builder<'_> {
    fn embeddings(&mut self, name: &str) -> Result<Embeddings, ModelError> {
        let c = self.config;
        let (positions, counting) = match &c.family {
            Family::Roberta(_) => (true, Counting::AfterPadding(c.pad_token_id)),
            Family::DebertaV2(own) => (own.position_biased_input, Counting::FromZero),
        };
        let mut table = |there: bool, part: &str| {
            let name = format!("{name}.{part}_embeddings");
            there.then(|| self.table(&name)).transpose()
        };
        let position_embeddings = table(positions, "position")?;
        let token_type_embeddings = table(c.type_vocab_size > 0, "token_type")?;
        let embed_proj = match c.embedding_size() == c.hidden_size {
            true => None,
            false => Some(Linear::new(
                self.matrix(&format!("{name}.embed_proj"))?,
                None,
            )),
        };
        Ok(Embeddings {
            word_embeddings: self.table(&format!("{name}.word_embeddings"))?,
            position_embeddings,
            token_type_embeddings,
            embed_proj,
            layer_norm: self.norm(name)?,
            dropout: c.hidden_dropout_prob,
            counting,
        })
    }

    fn encoder(&mut self, name: &str) -> Result<Encoder, ModelError> {
        let mut layer = Vec::with_capacity(self.config.num_hidden_layers);
        for i in 0..self.config.num_hidden_layers {
            layer.push(self.layer(&format!("{name}.layer.{i}"))?);
        }
        let (relative, conv) = match &self.config.family {
            Family::Roberta(_) => (None, None),
            Family::DebertaV2(own) => (self.relative(own, name)?, self.conv(own, name)?),
        };
        Ok(Encoder {
            layer,
            relative,
            conv,
        })
    }

    fn layer(&mut self, name: &str) -> Result<Layer, ModelError> {
        Ok(Layer {
            attention: AttentionBlock {
                self_attention: self.self_attention(&format!("{name}.attention.self"))?,
                output: self.output(&format!("{name}.attention.output"))?,
            },
            intermediate: Intermediate {
                dense: self.linear(&format!("{name}.intermediate.dense"))?,
                activation: self.config.hidden_act,
            },
            output: self.output(&format!("{name}.output"))?,
        })
    }

    fn self_attention(&mut self, name: &str) -> Result<SelfAttention, ModelError> {
        let c = self.config;
        let mut projection = |part| {
            let part = c.architecture().projection(part);
            self.linear(&format!("{name}.{part}"))
        };
        let (query, key) = (projection("query")?, projection("key")?);
        let value = projection("value")?;
        let (position, terms) = match &c.family {
            Family::Roberta(_) => (None, 1),
            Family::DebertaV2(own) => (self.position(own, name)?, own.score_terms),
        };
        let size = c.hidden_size / c.num_attention_heads;
        Ok(SelfAttention {
            query,
            key,
            value,
            position,
            heads: c.num_attention_heads,
            scale: ((size * terms) as f64).sqrt().recip(),
            dropout: c.attention_probs_dropout_prob,
        })
    }

    fn position(
        &mut self,
        own: &DebertaV2Config,
        name: &str,
    ) -> Result<Option<PositionBranch>, ModelError> {
        let Some(relative) = own.relative else {
            return Ok(None);
        };
        let own = self.config.position_projections();
        let mut projection = |part: &str| {
            let there = own.contains(&part);
            let name = format!("{name}.{part}");
            there.then(|| self.linear(&name)).transpose()
        };
        Ok(Some(PositionBranch {
            pos_key_proj: projection("pos_key_proj")?,
            pos_query_proj: projection("pos_query_proj")?,
            c2p: relative.c2p,
            p2c: relative.p2c,
            adapted: true,
            dropout: self.config.hidden_dropout_prob,
        }))
    }

    fn relative(
        &mut self,
        own: &DebertaV2Config,
        encoder: &str,
    ) -> Result<Option<RelativePositions>, ModelError> {
        let Some(config) = own.relative else {
            return Ok(None);
        };
        let layer_norm = match config.normalised {
            true => Some(self.norm(encoder)?),
            false => None,
        };
        Ok(Some(RelativePositions {
            rel_embeddings: self.table(&format!("{encoder}.rel_embeddings"))?,
            layer_norm,
            config,
        }))
    }

    fn conv(
        &mut self,
        own: &DebertaV2Config,
        encoder: &str,
    ) -> Result<Option<ConvLayer>, ModelError> {
        let Some(config) = own.convolution else {
            return Ok(None);
        };
        let name = format!("{encoder}.conv");
        Ok(Some(ConvLayer {
            conv: Conv1d {
                weight: Param::from_tensor(self.tensor(&format!("{name}.conv.weight"))?),
                bias: self.vector(&format!("{name}.conv.bias"))?,
                groups: config.groups,
            },
            layer_norm: self.norm(&name)?,
            dropout: self.config.hidden_dropout_prob,
            activation: config.activation,
        }))
    }

    fn head(&mut self) -> Result<Head, ModelError> {
        let output = self.config.architecture().output_layer();
        Ok(match &self.config.family {
            Family::Roberta(own) => Head::Dense(DenseHead {
                dense: self.linear("classifier.dense")?,
                out_proj: self.linear(output)?,
                dropout: own.classifier_dropout,
            }),
            Family::DebertaV2(own) => Head::Pooled(PooledHead {
                pooler: Pooler {
                    dense: self.linear("pooler.dense")?,
                    dropout: own.pooler_dropout,
                    activation: own.pooler_hidden_act,
                },
                classifier: self.linear(output)?,
                dropout: own.cls_dropout,
            }),
        })
    }

    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>, ModelError> {
        let dtype = self.dtype.of(name, D);
        Ok(Tensor::from_data(
            self.source.take(name)?,
            (self.device, dtype.burn()),
        ))
    }

    fn vector(&mut self, name: &str) -> Result<Param<Tensor<1>>, ModelError> {
        Ok(Param::from_tensor(self.tensor::<1>(name)?))
    }

    fn table(&mut self, name: &str) -> Result<Table, ModelError> {
        let weight = Param::from_tensor(self.tensor(&format!("{name}.weight"))?);
        Ok(Table { weight })
    }

    /// [out, in] in the file; a transposed view costs nothing, and the products read it as well.
    fn matrix(&mut self, name: &str) -> Result<Tensor<2>, ModelError> {
        Ok(self.tensor::<2>(&format!("{name}.weight"))?.transpose())
    }

    fn linear(&mut self, name: &str) -> Result<Linear, ModelError> {
        let weight = self.matrix(name)?;
        let bias = self.tensor(&format!("{name}.bias"))?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&mut self, parent: &str) -> Result<LayerNorm, ModelError> {
        Ok(LayerNorm {
            gamma: self.vector(&format!("{parent}.LayerNorm.weight"))?,
            beta: self.vector(&format!("{parent}.LayerNorm.bias"))?,
            epsilon: self.config.layer_norm_eps,
        })
    }

    fn output(&mut self, name: &str) -> Result<SubLayerOutput, ModelError> {
        Ok(SubLayerOutput {
            dense: self.linear(&format!("{name}.dense"))?,
            layer_norm: self.norm(name)?,
            dropout: self.config.hidden_dropout_prob,
        })
    }
}

//! What the suite computes with: two small models with random weights, and rows of unequal lengths.
//!
//! Everything is a function of fixed seeds and made on the processor, so that every device gets the same numbers.
//! Weights are five times as large as a new model's, and what would start at 0 or 1 is drawn (biases, LayerNorms, the
//! factor B of adapters): a mistake anywhere then shows in the logits.

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use lowburn_glue::{Dataset, Encoding, Example, Label, Task};
use lowburn_kernels::{derive_key, normal};
use lowburn_lora::{LoraConfig, Targets};
use lowburn_models::{
    Architecture, Method, ModelConfig, NamedMapper, SequenceClassifier, map_named,
    random_classifier,
};
use serde_json::{Value, json};

use crate::error::TrainError;
use crate::rows::Rows;

/// Standard deviation of all weights.
const SPREAD: f64 = 0.1;
/// Fixes weights and adapters.
const SEED: u64 = 11;
/// Rows of the data set, with 1 to as many tokens.
const ROWS: usize = 24;
const VOCABULARY: u64 = 500;
const PADDING: u64 = 1;
const LABELS: usize = 3;

/// A model and its data.
pub(super) struct Subject {
    config: ModelConfig,
    pub(super) rows: Rows,
    /// Row numbers of the micro-batches of one step after the other: five rows and three.
    pub(super) groups: Vec<Vec<Vec<usize>>>,
}

impl Subject {
    pub(super) fn new(architecture: Architecture) -> Result<Self, TrainError> {
        let own = match architecture {
            Architecture::Roberta => roberta(),
            Architecture::DebertaV2 => deberta(),
        };
        let config = config(own)?;
        let encodings = (0..ROWS).map(encoding).collect();
        let rows = Rows::tokenised(dataset(), encodings, config.pad_id());
        let group = |first: usize| -> Vec<Vec<usize>> {
            vec![
                (first..first + 5).collect(),
                (first + 5..first + 8).collect(),
            ]
        };
        Ok(Self {
            config,
            rows,
            groups: (0..ROWS).step_by(8).map(group).collect(),
        })
    }

    /// The architecture's name as its authors write it.
    pub(super) fn name(&self) -> &'static str {
        match self.config.architecture() {
            Architecture::Roberta => "RoBERTa",
            Architecture::DebertaV2 => "DeBERTa-v2",
        }
    }

    /// The rows of the first micro-batch.
    pub(super) fn first(&self) -> &[usize] {
        &self.groups[0][0]
    }

    /// The model on a device, with adapters on all linear layers for LoRA.
    pub(super) fn model(
        &self,
        method: Method,
        device: &Device,
    ) -> Result<SequenceClassifier, TrainError> {
        let mut model = random_classifier(&self.config, LABELS, SEED, device)?;
        if method == Method::Lora {
            let mut lora = LoraConfig::new(4, 6.0, Targets::AllLinear);
            lora.dropout = 0.1;
            let lora = model.architecture.lora_config(lora);
            let plan = lora.plan(&model.linear_names())?;
            model.attach(&plan, lora.init, SEED);
        }
        Ok(map_named(model, &mut Draw(0)).set_trainable(method))
    }
}

/// Draws what a new model starts at a constant.
struct Draw(u64);

impl NamedMapper for Draw {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let scale = name.ends_with("LayerNorm.weight");
        if !scale && !name.ends_with(".bias") && !name.ends_with(".lora_B.weight") {
            return param;
        }
        let (value, key) = (param.val(), derive_key(SEED, self.0));
        let shape = value.dims();
        let start = if scale { 1.0 } else { 0.0 };
        let count = shape.iter().product::<usize>() as u64;
        let drawn: Vec<f32> = (0..count)
            .map(|i| (start + SPREAD * normal(key, i)) as f32)
            .collect();
        let drawn = Tensor::from_data(TensorData::new(drawn, shape), &value.device());
        Param::initialized(param.id, drawn)
    }
}

/// Four heads of 16.
fn roberta() -> Value {
    json!({
        "model_type": "roberta", "hidden_size": 64, "num_attention_heads": 4, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    })
}

/// Three heads of 32, and every option that the published models have: a convolution, buckets of distances, projections
/// that positions share, a narrower embedding, a pooler.
fn deberta() -> Value {
    json!({
        "model_type": "deberta-v2", "hidden_size": 96, "num_attention_heads": 3, "type_vocab_size": 2,
        "embedding_size": 64, "relative_attention": true, "position_buckets": 8,
        "pos_att_type": "p2c|c2p", "share_att_key": true, "norm_rel_ebd": "layer_norm",
        "position_biased_input": false, "conv_kernel_size": 3, "conv_act": "gelu",
        "pooler_dropout": 0.1,
    })
}

/// A configuration from an architecture's own fields and the common ones.
fn config(mut fields: Value) -> Result<ModelConfig, TrainError> {
    let common = [
        ("vocab_size", json!(VOCABULARY)),
        ("num_hidden_layers", json!(3)),
        ("intermediate_size", json!(160)),
        ("max_position_embeddings", json!(64)),
        ("pad_token_id", json!(PADDING)),
        ("initializer_range", json!(SPREAD)),
        ("hidden_dropout_prob", json!(0.1)),
        ("attention_probs_dropout_prob", json!(0.1)),
    ];
    for (name, value) in common {
        fields[name] = value;
    }
    let text = fields.to_string();
    let path = Path::new("the device suite's config.json");
    Ok(ModelConfig::parse(text.as_bytes(), path)?)
}

/// Row `row`: 24 rows have every length from 1 to 24, not in order.
fn encoding(row: usize) -> Encoding {
    let length = 1 + (7 * row + 11) % ROWS;
    let key = derive_key(SEED, row as u64);
    let others = VOCABULARY - PADDING - 1;
    let id = |place: usize| (PADDING + 1 + derive_key(key, place as u64) % others) as u32;
    Encoding {
        ids: (0..length).map(id).collect(),
        type_ids: (0..length)
            .map(|place| u32::from(2 * place >= length))
            .collect(),
    }
}

/// Labels in no order, and no text.
fn dataset() -> Dataset {
    let example = |row: usize| Example {
        idx: row as i64,
        text: String::new(),
        text_pair: None,
        label: Some(Label::Class((row * row + row / 3) % LABELS)),
    };
    Dataset {
        task: Task::Mnli,
        split: "train".to_owned(),
        examples: (0..ROWS).map(example).collect(),
        path: PathBuf::new(),
        sha256: String::new(),
        files: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters;

    #[test]
    fn rows_differ_in_length_and_are_whole_in_every_step() {
        for architecture in Architecture::ALL {
            let subject = Subject::new(architecture).expect("a subject");
            let mut lengths = subject.rows.lengths().to_vec();
            assert!(lengths[..5].windows(2).all(|pair| pair[0] != pair[1]));
            lengths.sort_unstable();
            assert!(lengths.into_iter().eq(1..=ROWS));
            let mut seen: Vec<usize> = subject.groups.concat().concat();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..ROWS));
            let batch = subject.rows.batch(subject.first());
            assert_eq!(batch.labels.len(), 5);
            assert!(batch.tokens() < batch.rows * batch.length, "some padding");
            let real = (0..batch.rows).flat_map(|row| {
                let start = row * batch.length;
                &batch.ids[start..start + batch.lengths[row]]
            });
            assert!(real.into_iter().all(|id| *id > 1 && *id < 500));
        }
    }

    #[test]
    fn nothing_starts_at_a_constant() {
        for architecture in Architecture::ALL {
            let subject = Subject::new(architecture).expect("a subject");
            for method in [Method::Lora, Method::Full] {
                let device = Device::flex().autodiff();
                let model = subject.model(method, &device).expect("a model");
                let trained = parameters::values(&model);
                let factors = trained.iter().filter(|t| t.name.contains(".lora_"));
                assert_eq!(factors.count() > 0, method == Method::Lora);
                for tensor in trained {
                    let first = tensor.values[0];
                    let constant = tensor.values.iter().all(|value| *value == first);
                    assert!(!constant, "{architecture}, {method}: {}", tensor.name);
                }
            }
        }
    }
}

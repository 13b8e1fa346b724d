//! config.json: every field that changes the mathematics is honoured or refused by name.

mod deberta_v2;
mod fields;
mod json;
mod roberta;

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ModelError;
use crate::architecture::Architecture;
use fields::Fields;

pub use deberta_v2::{ConvolutionConfig, DebertaV2Config, RelativeConfig};
pub use roberta::RobertaConfig;

/// A feed-forward activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// x Phi(x), by erf.
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU approximated by tanh.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    /// max(x, 0).
    #[serde(rename = "relu")]
    Relu,
    /// x sigmoid(x).
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// tanh(x).
    #[serde(rename = "tanh")]
    Tanh,
}

/// The hyperparameters of an encoder with a classification head, named as in config.json.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width d.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub hidden_act: Activation,
    /// Dropout of embeddings and sub-layers.
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Rows of the position embedding, or the longest input in pretraining where there is none.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding; 0 where there is none.
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of the padding token.
    pub pad_token_id: usize,
    /// Number of labels that the file's label names (or `num_labels`) say, if it says.
    pub num_labels: Option<usize>,
    /// The label names, in the order of their ids, if the file has them.
    pub labels: Option<Vec<String>>,
    /// What only this architecture has.
    pub family: Family,
    /// The file's own fields, kept for saving.
    pub raw: Map<String, Value>,
}

/// What only one architecture has.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// RoBERTa.
    Roberta(RobertaConfig),
    /// DeBERTa-v2.
    DebertaV2(DebertaV2Config),
}

/// What transformers assumes where config.json is silent.
struct Defaults {
    type_vocab_size: usize,
    layer_norm_eps: f64,
    pad_token_id: usize,
}

/// More layers than any encoder ever published.
const MOST_LAYERS: usize = 1024;

/// More labels than any classifier of sentences ever published.
const MOST_LABELS: usize = 1 << 16;

/// Tokens of a row, for a model that sets no limit, beyond which a number is taken for a slip.
const LONGEST_ROW: usize = 1 << 16;

/// More parameters than any encoder ever published (XLM-R XXL has 10.7 billion).
const MOST_PARAMETERS: u128 = 1 << 34;

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// The file is missing, not JSON, of another architecture, or a field is absurd or not
    /// supported. The message names the field and its value.
    pub fn from_dir(dir: &Path) -> Result<Self, ModelError> {
        Self::from_file(&dir.join("config.json"))
    }

    /// Reads a config.json wherever it lies; see [`ModelConfig::from_dir`].
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => ModelError::Config {
                path: path.to_owned(),
                problem: "no such file; give a Hugging Face model folder, which has one".into(),
            },
            _ => ModelError::io(path, "reading the configuration")(source),
        })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a config.json; `path` is for messages.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, ModelError> {
        let problem = |problem: String| ModelError::Config {
            path: path.to_owned(),
            problem,
        };
        let raw: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|e| problem(format!("not a JSON object: {e}; get the file again")))?;
        let fields = Fields::new(&raw, path);
        let known = Architecture::ALL.map(|a| format!("{:?}", a.model_type()));
        let known = known.join(" and ");
        let Some(name) = fields.get("model_type") else {
            return Err(problem(format!(
                "model_type is missing; this build knows {known}, choose a checkpoint of these"
            )));
        };
        let architecture = Architecture::ALL
            .into_iter()
            .find(|known| name == known.model_type());
        match architecture {
            Some(Architecture::Roberta) => RobertaConfig::read(&fields),
            Some(Architecture::DebertaV2) => DebertaV2Config::read(&fields),
            None => Err(problem(format!(
                "model_type is {name}, and this build knows {known}; choose a checkpoint of these"
            ))),
        }
    }

    /// The architecture.
    pub fn architecture(&self) -> Architecture {
        match self.family {
            Family::Roberta(_) => Architecture::Roberta,
            Family::DebertaV2(_) => Architecture::DebertaV2,
        }
    }

    /// Longest sequence, in tokens, that the model was made for (`max_position_embeddings`): the length to
    /// take where nobody asks for one.
    pub fn trained_length(&self) -> usize {
        match self.family {
            Family::Roberta(_) => self.max_position_embeddings - self.pad_token_id - 1,
            Family::DebertaV2(_) => self.max_position_embeddings,
        }
    }

    /// Longest sequence, in tokens, that the model takes: more than [`ModelConfig::trained_length`] where it
    /// has no table of absolute positions.
    pub fn max_length(&self) -> usize {
        let trained = self.trained_length();
        match &self.family {
            Family::DebertaV2(own) if !own.position_biased_input => {
                let buckets = own.relative.and_then(|relative| relative.longest_row());
                buckets.unwrap_or(LONGEST_ROW).max(trained)
            }
            _ => trained,
        }
    }

    /// Id of the padding token.
    pub fn pad_id(&self) -> u32 {
        self.pad_token_id as u32
    }

    /// Token types that the model tells apart: inputs with higher ones have no embedding. RoBERTa
    /// takes every token for type 0, whatever the tokenizer says.
    pub fn token_types(&self) -> Option<usize> {
        match self.family {
            Family::DebertaV2(_) if self.type_vocab_size > 0 => Some(self.type_vocab_size),
            _ => None,
        }
    }

    /// True where positions are projected by the attention's own key and query (`share_att_key`),
    /// so that an adapter there may act on positions too.
    pub fn shares_position_projections(&self) -> bool {
        match &self.family {
            Family::Roberta(_) => false,
            Family::DebertaV2(own) => own.relative.is_some_and(|r| r.share_att_key),
        }
    }

    /// Width of the word embedding, which DeBERTa-v2 may project to `hidden_size`.
    pub fn embedding_size(&self) -> usize {
        match &self.family {
            Family::Roberta(_) => self.hidden_size,
            Family::DebertaV2(deberta) => deberta.embedding_size,
        }
    }

    /// The fields that both architectures have; `family` is what the caller read of its own.
    fn shared(
        fields: &Fields<'_>,
        defaults: &Defaults,
        family: Family,
    ) -> Result<Self, ModelError> {
        for name in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            fields.refuse_unless(name, &[false.into()])?;
        }
        fields.refuse_unless("chunk_size_feed_forward", &[0.into()])?;
        fields.refuse_unless("pruned_heads", &[Map::new().into()])?;
        fields.refuse_unless("quantization_config", &[])?;
        let config = Self {
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size: fields.size("hidden_size", None)?,
            num_hidden_layers: fields.size("num_hidden_layers", None)?,
            num_attention_heads: fields.size("num_attention_heads", None)?,
            intermediate_size: fields.size("intermediate_size", None)?,
            hidden_act: fields.activation("hidden_act", Activation::Gelu)?,
            hidden_dropout_prob: fields.probability("hidden_dropout_prob", Some(0.1))?,
            attention_probs_dropout_prob: fields
                .probability("attention_probs_dropout_prob", Some(0.1))?,
            max_position_embeddings: fields.size("max_position_embeddings", None)?,
            type_vocab_size: fields.whole("type_vocab_size", Some(defaults.type_vocab_size))?,
            initializer_range: fields.positive("initializer_range", Some(0.02))?,
            layer_norm_eps: fields.positive("layer_norm_eps", Some(defaults.layer_norm_eps))?,
            pad_token_id: fields.whole("pad_token_id", Some(defaults.pad_token_id))?,
            num_labels: fields.num_labels()?,
            labels: fields.labels()?,
            family,
            raw: fields.raw().clone(),
        };
        config.check(fields)?;
        Ok(config)
    }

    fn check(&self, fields: &Fields<'_>) -> Result<(), ModelError> {
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if hidden % heads != 0 {
            return Err(fields.wrong(format!(
                "hidden_size {hidden} is not a multiple of num_attention_heads {heads}; correct the wrong one"
            )));
        }
        let (pad, vocab) = (self.pad_token_id, self.vocab_size);
        if pad >= vocab {
            return Err(fields.wrong(format!(
                "pad_token_id {pad} is not below vocab_size {vocab}; correct the wrong one"
            )));
        }
        let layers = self.num_hidden_layers;
        if layers > MOST_LAYERS {
            return Err(fields.wrong(format!(
                "num_hidden_layers is {layers}; expected at most {MOST_LAYERS}"
            )));
        }
        if let Some(labels) = self.num_labels.filter(|labels| *labels > MOST_LABELS) {
            return Err(fields.wrong(format!(
                "id2label or num_labels gives {labels} labels; expected at most {MOST_LABELS}"
            )));
        }
        fields.check_problem(self.num_labels)?;
        let parameters = self.matrix_elements();
        if parameters > MOST_PARAMETERS {
            return Err(fields.wrong(format!(
                "vocab_size {vocab}, max_position_embeddings {}, type_vocab_size {}, hidden_size {hidden}, \
                 intermediate_size {} and num_hidden_layers {layers} make {parameters} parameters; \
                 expected at most {MOST_PARAMETERS}, correct the one that is too large",
                self.max_position_embeddings, self.type_vocab_size, self.intermediate_size,
            )));
        }
        Ok(())
    }

    /// Elements of the large matrices; sizes of single fields are bounded, so that it cannot overflow.
    fn matrix_elements(&self) -> u128 {
        let wide = |n: usize| n as u128;
        let (hidden, inner) = (wide(self.hidden_size), wide(self.intermediate_size));
        let rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size;
        let layer = 4 * hidden * hidden + 2 * hidden * inner;
        let own = match &self.family {
            Family::Roberta(_) => 0,
            Family::DebertaV2(own) => own.matrix_elements(self),
        };
        wide(rows) * wide(self.embedding_size())
            + wide(self.num_hidden_layers) * layer
            + hidden * hidden
            + wide(self.num_labels.unwrap_or(0)) * hidden
            + own
    }
}

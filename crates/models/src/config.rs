//! config.json: every field that changes the mathematics is honoured or refused by name.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ModelError;
use crate::fields::Fields;

/// The configuration of an encoder, whichever architecture it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// RoBERTa (Liu et al. 2019).
    Roberta(RobertaConfig),
}

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
}

/// RoBERTa's hyperparameters, named as in config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct RobertaConfig {
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
    /// Dropout of the head; the hidden dropout when the file has null.
    pub classifier_dropout: f64,
    /// Rows of the position embedding; usable positions are this minus `pad_token_id` + 1.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding. Row 0 is used for every token.
    pub type_vocab_size: usize,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of the padding token, from which positions count.
    pub pad_token_id: usize,
    /// Number of labels that the file's label names (or `num_labels`) say, if it says.
    pub num_labels: Option<usize>,
    /// The label names, in the order of their ids, if the file has them.
    pub labels: Option<Vec<String>>,
    /// The file's own fields, kept for saving.
    pub raw: Map<String, Value>,
}

/// More layers than any encoder ever published.
const MOST_LAYERS: usize = 1024;

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
        match fields.get("model_type") {
            Some(Value::String(name)) if name == "roberta" => {
                RobertaConfig::read(&fields).map(Self::Roberta)
            }
            Some(other) => Err(problem(format!(
                "model_type is {other}, and this build knows \"roberta\"; choose a RoBERTa checkpoint"
            ))),
            None => Err(problem(
                "model_type is missing; expected \"roberta\", choose a RoBERTa checkpoint".into(),
            )),
        }
    }

    /// The RoBERTa configuration.
    pub fn roberta(&self) -> &RobertaConfig {
        match self {
            Self::Roberta(config) => config,
        }
    }

    /// Longest sequence, in tokens, that has positions.
    pub fn max_length(&self) -> usize {
        let config = self.roberta();
        config.max_position_embeddings - config.pad_token_id - 1
    }

    /// Id of the padding token.
    pub fn pad_id(&self) -> u32 {
        self.roberta().pad_token_id as u32
    }

    /// Rows of the word embedding: every token id must be smaller.
    pub fn vocab_size(&self) -> usize {
        self.roberta().vocab_size
    }

    /// The label names of config.json, in the order of their ids, if it has them.
    pub fn labels(&self) -> Option<&[String]> {
        self.roberta().labels.as_deref()
    }

    /// Number of labels that config.json states.
    pub fn num_labels(&self) -> Option<usize> {
        self.roberta().num_labels
    }

    /// The config.json of a sequence classifier with these labels, every other field as it was read.
    pub fn to_classifier_json(&self, num_labels: usize, labels: Option<&[String]>) -> Value {
        let mut raw = self.roberta().raw.clone();
        raw.insert(
            "architectures".into(),
            serde_json::json!(["RobertaForSequenceClassification"]),
        );
        raw.remove("torch_dtype");
        raw.insert("dtype".into(), "float32".into());
        raw.remove("num_labels");
        let name = |i: usize| match labels {
            Some(labels) if labels.len() == num_labels => labels[i].clone(),
            _ => format!("LABEL_{i}"),
        };
        let names: Vec<String> = (0..num_labels).map(name).collect();
        let by_id: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (i.to_string(), n.clone().into()))
            .collect();
        let by_name: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (n.clone(), i.into()))
            .collect();
        raw.insert("id2label".into(), by_id.into());
        raw.insert("label2id".into(), by_name.into());
        raw.into()
    }
}

impl RobertaConfig {
    fn read(fields: &Fields<'_>) -> Result<Self, ModelError> {
        fields.refuse_unless("position_embedding_type", &["absolute".into()])?;
        for name in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            fields.refuse_unless(name, &[false.into()])?;
        }
        fields.refuse_unless("chunk_size_feed_forward", &[0.into()])?;
        fields.refuse_unless("pruned_heads", &[Map::new().into()])?;
        fields.refuse_unless("quantization_config", &[])?;
        let hidden_dropout_prob = fields.probability("hidden_dropout_prob", Some(0.1))?;
        let classifier_dropout =
            fields.probability("classifier_dropout", Some(hidden_dropout_prob))?;
        let config = Self {
            vocab_size: fields.size("vocab_size", None)?,
            hidden_size: fields.size("hidden_size", None)?,
            num_hidden_layers: fields.size("num_hidden_layers", None)?,
            num_attention_heads: fields.size("num_attention_heads", None)?,
            intermediate_size: fields.size("intermediate_size", None)?,
            hidden_act: fields.activation()?,
            hidden_dropout_prob,
            attention_probs_dropout_prob: fields
                .probability("attention_probs_dropout_prob", Some(0.1))?,
            classifier_dropout,
            max_position_embeddings: fields.size("max_position_embeddings", None)?,
            type_vocab_size: fields.size("type_vocab_size", Some(2))?,
            initializer_range: fields.positive("initializer_range", Some(0.02))?,
            layer_norm_eps: fields.positive("layer_norm_eps", Some(1e-12))?,
            pad_token_id: fields.whole("pad_token_id", Some(1))?,
            num_labels: fields.num_labels()?,
            labels: fields.labels()?,
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
        let positions = self.max_position_embeddings;
        if positions < pad + 2 {
            return Err(fields.wrong(format!(
                "max_position_embeddings {positions} leaves no position after pad_token_id {pad}; \
                 expected at least {}",
                pad + 2
            )));
        }
        let layers = self.num_hidden_layers;
        if layers > MOST_LAYERS {
            return Err(fields.wrong(format!(
                "num_hidden_layers is {layers}; expected at most {MOST_LAYERS}"
            )));
        }
        let parameters = self.matrix_elements();
        if parameters > MOST_PARAMETERS {
            return Err(fields.wrong(format!(
                "vocab_size {vocab}, max_position_embeddings {positions}, type_vocab_size {}, hidden_size {hidden}, \
                 intermediate_size {} and num_hidden_layers {layers} make {parameters} parameters; \
                 expected at most {MOST_PARAMETERS}, correct the one that is too large",
                self.type_vocab_size, self.intermediate_size,
            )));
        }
        Ok(())
    }

    /// Elements of all the matrices but the head's output; sizes of single fields are bounded, so that it cannot overflow.
    fn matrix_elements(&self) -> u128 {
        let wide = |n: usize| n as u128;
        let (hidden, inner) = (wide(self.hidden_size), wide(self.intermediate_size));
        let rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size;
        let layer = 4 * hidden * hidden + 2 * hidden * inner;
        wide(rows) * hidden + wide(self.num_hidden_layers) * layer + hidden * hidden
    }
}

//! The tensors of a checkpoint: their names in Hugging Face's files, shapes, and how new ones start.

use crate::config::{ModelConfig, RobertaConfig};

/// What a tensor is, which decides how a new one is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A linear weight `[out, in]`: N(0, initializer_range).
    Weight,
    /// An embedding table: N(0, initializer_range), one row (the padding's) zero if given.
    Table(Option<usize>),
    /// A bias or a LayerNorm's shift: 0.
    Zeros,
    /// A LayerNorm's scale: 1.
    Ones,
}

/// A tensor that a checkpoint must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in Hugging Face's files.
    pub name: String,
    /// The shape in Hugging Face's files.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: Kind,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor of the classification head.
    pub fn in_head(&self) -> bool {
        is_head(&self.name)
    }
}

/// True for the name of a tensor or module of the classification head.
pub fn is_head(name: &str) -> bool {
    name.split('.').next() == Some("classifier")
}

/// Every tensor of a sequence classifier with this configuration, in the order of the modules.
pub fn manifest(config: &ModelConfig, num_labels: usize) -> Vec<TensorSpec> {
    let c = config.roberta();
    let mut list = List::default();
    list.embeddings(c);
    for i in 0..c.num_hidden_layers {
        let layer = format!("roberta.encoder.layer.{i}");
        for name in ["query", "key", "value"] {
            list.linear(
                &format!("{layer}.attention.self.{name}"),
                c.hidden_size,
                c.hidden_size,
            );
        }
        list.linear(
            &format!("{layer}.attention.output.dense"),
            c.hidden_size,
            c.hidden_size,
        );
        list.norm(
            &format!("{layer}.attention.output.LayerNorm"),
            c.hidden_size,
        );
        list.linear(
            &format!("{layer}.intermediate.dense"),
            c.hidden_size,
            c.intermediate_size,
        );
        list.linear(
            &format!("{layer}.output.dense"),
            c.intermediate_size,
            c.hidden_size,
        );
        list.norm(&format!("{layer}.output.LayerNorm"), c.hidden_size);
    }
    list.linear("classifier.dense", c.hidden_size, c.hidden_size);
    list.linear("classifier.out_proj", c.hidden_size, num_labels);
    list.0
}

#[derive(Default)]
struct List(Vec<TensorSpec>);

impl List {
    fn push(&mut self, name: String, shape: &[usize], kind: Kind) {
        self.0.push(TensorSpec {
            name,
            shape: shape.to_vec(),
            kind,
        });
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.push(format!("{name}.weight"), &[outputs, inputs], Kind::Weight);
        self.push(format!("{name}.bias"), &[outputs], Kind::Zeros);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.weight"), &[width], Kind::Ones);
        self.push(format!("{name}.bias"), &[width], Kind::Zeros);
    }

    fn embeddings(&mut self, c: &RobertaConfig) {
        let tables = [
            ("word", c.vocab_size, Some(c.pad_token_id)),
            ("position", c.max_position_embeddings, Some(c.pad_token_id)),
            ("token_type", c.type_vocab_size, None),
        ];
        for (name, entries, zero) in tables {
            let name = format!("roberta.embeddings.{name}_embeddings.weight");
            self.push(name, &[entries, c.hidden_size], Kind::Table(zero));
        }
        self.norm("roberta.embeddings.LayerNorm", c.hidden_size);
    }
}

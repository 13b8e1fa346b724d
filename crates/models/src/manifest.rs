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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lowburn_lora::LoraConfig;

    use super::*;

    /// A configuration of RoBERTa's published vocabulary and positions.
    fn roberta([hidden, inner, heads, layers]: [usize; 4]) -> ModelConfig {
        let json = serde_json::json!({
            "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514,
            "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5,
            "hidden_size": hidden, "intermediate_size": inner,
            "num_attention_heads": heads, "num_hidden_layers": layers,
        });
        ModelConfig::parse(json.to_string().as_bytes(), Path::new("config.json")).unwrap()
    }

    const BASE: [usize; 4] = [768, 3072, 12, 12];
    const LARGE: [usize; 4] = [1024, 4096, 16, 24];

    fn count(specs: &[TensorSpec], wanted: impl Fn(&TensorSpec) -> bool) -> usize {
        let wanted = specs.iter().filter(|spec| wanted(spec));
        wanted.map(TensorSpec::elements).sum()
    }

    /// Parameters of A and B over all the layers that the targets take in.
    fn factors(specs: &[TensorSpec], rank: usize, targets: &str) -> usize {
        let layers: Vec<(String, usize)> = specs
            .iter()
            .filter(|spec| spec.kind == Kind::Weight && !spec.in_head())
            .map(|spec| {
                let module = spec.name.strip_suffix(".weight").unwrap();
                (module.to_owned(), spec.shape.iter().sum())
            })
            .collect();
        let names: Vec<String> = layers.iter().map(|(name, _)| name.clone()).collect();
        let config = LoraConfig::new(rank, 16.0, targets.parse().unwrap());
        let plan = config.plan(&names).unwrap();
        let sizes = layers
            .iter()
            .filter_map(|(name, sizes)| Some(plan.get(name)?.rank * sizes));
        sizes.sum()
    }

    #[test]
    fn parameters_are_as_many_as_published() {
        // The totals are those of transformers' RobertaForSequenceClassification with 2 labels.
        let base = manifest(&roberta(BASE), 2);
        assert_eq!(count(&base, |_| true), 124_647_170);
        assert_eq!(count(&manifest(&roberta(LARGE), 2), |_| true), 355_361_794);
    }

    #[test]
    fn heads_are_as_large_as_in_the_paper() {
        for (labels, expected) in [(1, 591_361), (2, 592_130), (3, 592_899)] {
            let specs = manifest(&roberta(BASE), labels);
            assert_eq!(count(&specs, TensorSpec::in_head), expected);
            let specs = manifest(&roberta(LARGE), labels);
            assert_eq!(
                count(&specs, TensorSpec::in_head),
                1_049_600 + 1_025 * labels
            );
        }
    }

    #[test]
    fn adapters_are_as_large_as_in_the_paper() {
        let (base, large) = (manifest(&roberta(BASE), 2), manifest(&roberta(LARGE), 2));
        assert_eq!(factors(&base, 8, "query,value"), 294_912);
        assert_eq!(factors(&large, 8, "query,value"), 786_432);
        // Six matrices a layer: four of d x d, and two of d x 4 d.
        assert_eq!(
            factors(&base, 1, "all-linear"),
            12 * (4 * 2 * 768 + 2 * 5 * 768)
        );
    }
}

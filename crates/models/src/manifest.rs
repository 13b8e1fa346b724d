//! The tensors of a checkpoint: their names in Hugging Face's files, shapes, and how new ones start.

use crate::architecture::{Architecture, is_head};
use crate::config::{DebertaV2Config, Family, ModelConfig};

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

/// Every tensor of a sequence classifier with this configuration, in the order of the modules.
pub fn manifest(config: &ModelConfig, num_labels: usize) -> Vec<TensorSpec> {
    let prefix = config.architecture().prefix();
    let mut list = List::default();
    list.embeddings(config, prefix);
    for i in 0..config.num_hidden_layers {
        list.layer(config, &format!("{prefix}.encoder.layer.{i}"));
    }
    if let Family::DebertaV2(own) = &config.family {
        list.around_the_layers(config, own, &format!("{prefix}.encoder"));
    }
    list.head(config, num_labels);
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

    fn embeddings(&mut self, c: &ModelConfig, prefix: &str) {
        let pad = Some(c.pad_token_id);
        let (positions, padded) = match &c.family {
            Family::Roberta(_) => (true, pad),
            Family::DebertaV2(own) => (own.position_biased_input, None),
        };
        let tables = [
            ("word", c.vocab_size, pad),
            (
                "position",
                if positions {
                    c.max_position_embeddings
                } else {
                    0
                },
                padded,
            ),
            ("token_type", c.type_vocab_size, None),
        ];
        let width = c.embedding_size();
        for (name, entries, zero) in tables.into_iter().filter(|(_, entries, _)| *entries > 0) {
            let name = format!("{prefix}.embeddings.{name}_embeddings.weight");
            self.push(name, &[entries, width], Kind::Table(zero));
        }
        if width != c.hidden_size {
            let name = format!("{prefix}.embeddings.embed_proj.weight");
            self.push(name, &[c.hidden_size, width], Kind::Weight);
        }
        self.norm(&format!("{prefix}.embeddings.LayerNorm"), c.hidden_size);
    }

    fn layer(&mut self, c: &ModelConfig, layer: &str) {
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        let own = format!("{layer}.attention.self");
        for name in ["query", "key", "value"] {
            let name = c.architecture().projection(name);
            self.linear(&format!("{own}.{name}"), hidden, hidden);
        }
        for name in c.position_projections() {
            self.linear(&format!("{own}.{name}"), hidden, hidden);
        }
        self.linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
        self.norm(&format!("{layer}.attention.output.LayerNorm"), hidden);
        self.linear(&format!("{layer}.intermediate.dense"), hidden, inner);
        self.linear(&format!("{layer}.output.dense"), inner, hidden);
        self.norm(&format!("{layer}.output.LayerNorm"), hidden);
    }

    /// What DeBERTa-v2's stack of layers has beside them: position embeddings and a convolution.
    fn around_the_layers(&mut self, c: &ModelConfig, own: &DebertaV2Config, encoder: &str) {
        let hidden = c.hidden_size;
        if let Some(relative) = own.relative {
            let shape = [2 * relative.span(), hidden];
            let name = format!("{encoder}.rel_embeddings.weight");
            self.push(name, &shape, Kind::Table(None));
            if relative.normalised {
                self.norm(&format!("{encoder}.LayerNorm"), hidden);
            }
        }
        if let Some(convolution) = own.convolution {
            let inputs = hidden / convolution.groups;
            let shape = [hidden, inputs, convolution.kernel_size];
            self.push(format!("{encoder}.conv.conv.weight"), &shape, Kind::Weight);
            self.push(format!("{encoder}.conv.conv.bias"), &[hidden], Kind::Zeros);
            self.norm(&format!("{encoder}.conv.LayerNorm"), hidden);
        }
    }

    fn head(&mut self, c: &ModelConfig, num_labels: usize) {
        let dense = match c.architecture() {
            Architecture::Roberta => "classifier.dense",
            Architecture::DebertaV2 => "pooler.dense",
        };
        self.linear(dense, c.hidden_size, c.hidden_size);
        let output = c.architecture().output_layer();
        self.linear(output, c.hidden_size, num_labels);
    }
}

impl ModelConfig {
    /// The matrices of a layer that project position embeddings, where positions have their own.
    pub(crate) fn position_projections(&self) -> Vec<&'static str> {
        let Family::DebertaV2(own) = &self.family else {
            return Vec::new();
        };
        let relative = own.relative.filter(|relative| !relative.share_att_key);
        let names = relative.map_or([None, None], |relative| {
            [
                relative.c2p.then_some("pos_key_proj"),
                relative.p2c.then_some("pos_query_proj"),
            ]
        });
        names.into_iter().flatten().collect()
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

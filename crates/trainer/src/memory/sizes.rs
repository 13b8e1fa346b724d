//! What a model and a method are for the account of memory: extents, and what of them is trained.

use std::collections::BTreeMap;

use lowburn_lora::ResolvedAdapter;
use lowburn_models::{
    Activation, Architecture, Dtype, Family, Kind, Method, ModelConfig, RelativeConfig, TensorSpec,
    is_head, manifest,
};

/// A linear layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linear {
    /// Whose gradients these are: shared layers have one number.
    pub(super) id: usize,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    /// Of its adapter; 0 where it has none.
    pub(super) rank: u64,
    /// The adapter has a dropout.
    pub(super) drops: bool,
    /// The weight is trained.
    pub(super) weight: bool,
    /// The bias is trained.
    pub(super) bias: bool,
    /// The weight is stored in 16 bit.
    pub(super) half: bool,
}

impl Linear {
    /// Whether anything of it is trained.
    pub(super) fn trains(&self) -> bool {
        self.weight || self.bias || self.rank > 0
    }
}

/// The linear layers of one layer of the encoder.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// What makes position keys and position queries, where there are any: often `key` and `query` again.
    pub(super) positions: Vec<Linear>,
    pub(super) attended: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Layer {
    /// Whether anything of its linear layers is trained.
    pub(super) fn trains(&self) -> bool {
        let own = [self.query, self.key, self.value, self.attended];
        let rest = [self.up, self.down];
        let mut all = own.iter().chain(&rest).chain(&self.positions);
        all.any(Linear::trains)
    }
}

/// The tables and what follows them.
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) width: u64,
    pub(super) words: u64,
    pub(super) positions: Option<u64>,
    pub(super) types: Option<u64>,
    pub(super) projection: Option<Linear>,
    /// Positions are the residual of the LayerNorm, types its bias: RoBERTa.
    pub(super) fused: bool,
}

/// Embeddings of distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distances {
    pub(super) config: RelativeConfig,
    /// Rows of the table.
    pub(super) entries: u64,
}

/// The convolution behind the first layer, as a product with the unfolded tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolution {
    pub(super) width: u64,
    pub(super) linear: Linear,
    pub(super) activation: Activation,
}

/// A tensor of the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) numbers: u64,
    pub(super) trained: bool,
    /// Kept in 16 bit.
    pub(super) half: bool,
    /// Read from a file, in pieces.
    pub(super) read: bool,
    /// Kept as the file has it and used as its transpose.
    pub(super) transposed: bool,
}

/// A model under a method.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) hidden: u64,
    pub(super) heads: u64,
    pub(super) activation: Activation,
    /// Sub-layers have a dropout.
    pub(super) drops: bool,
    /// Frozen matrices are stored in 16 bit.
    pub(super) half: bool,
    /// LayerNorm's scales and all tables are trained.
    pub(super) full: bool,
    /// Biases are trained.
    pub(super) biases: bool,
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    pub(super) distances: Option<Distances>,
    pub(super) convolution: Option<Convolution>,
    /// The head's.
    pub(super) dense: Linear,
    pub(super) output: Linear,
    pub(super) parameters: Vec<Parameter>,
}

/// Makes linear layers, each with a number of its own.
struct Builder<'a> {
    method: Method,
    adapters: &'a BTreeMap<String, ResolvedAdapter>,
    half: bool,
    next: usize,
}

impl Builder<'_> {
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let adapter = self.adapters.get(name);
        self.next += 1;
        Linear {
            id: self.next,
            inputs: inputs as u64,
            outputs: outputs as u64,
            rank: adapter.map_or(0, |adapter| adapter.rank as u64),
            drops: adapter.is_some_and(|adapter| adapter.dropout > 0.0),
            weight: self.method.trains(&format!("{name}.weight")),
            bias: self.method.trains(&format!("{name}.bias")),
            half: self.half && !is_head(name),
        }
    }

    fn layer(&mut self, model: &ModelConfig, name: &str) -> Layer {
        let (hidden, inner) = (model.hidden_size, model.intermediate_size);
        let own = format!("{name}.attention.self");
        let mut projection = |part| {
            let part = model.architecture().projection(part);
            self.linear(&format!("{own}.{part}"), hidden, hidden)
        };
        let (query, key) = (projection("query"), projection("key"));
        let value = projection("value");
        let mut positions = Vec::new();
        if let Some(relative) = relative(model) {
            let kinds = [
                (relative.c2p, "pos_key_proj", key),
                (relative.p2c, "pos_query_proj", query),
            ];
            for (_, part, shared) in kinds.into_iter().filter(|(used, ..)| *used) {
                positions.push(match relative.share_att_key {
                    true => shared,
                    false => self.linear(&format!("{own}.{part}"), hidden, hidden),
                });
            }
        }
        Layer {
            query,
            key,
            value,
            positions,
            attended: self.linear(&format!("{name}.attention.output.dense"), hidden, hidden),
            up: self.linear(&format!("{name}.intermediate.dense"), hidden, inner),
            down: self.linear(&format!("{name}.output.dense"), inner, hidden),
        }
    }

    fn embeddings(&mut self, model: &ModelConfig, prefix: &str) -> Embeddings {
        let there = |entries: usize| (entries > 0).then_some(entries as u64);
        let (fused, positions) = match &model.family {
            Family::DebertaV2(own) => (false, own.position_biased_input),
            _ => (true, true),
        };
        let (width, hidden) = (model.embedding_size(), model.hidden_size);
        let projected = width != hidden;
        let name = format!("{prefix}.embeddings.embed_proj");
        Embeddings {
            width: width as u64,
            words: model.vocab_size as u64,
            positions: there(model.max_position_embeddings).filter(|_| positions),
            types: there(model.type_vocab_size),
            projection: projected.then(|| self.linear(&name, width, hidden)),
            fused,
        }
    }

    fn convolution(&mut self, model: &ModelConfig, prefix: &str) -> Option<Convolution> {
        let Family::DebertaV2(own) = &model.family else {
            return None;
        };
        let config = own.convolution?;
        let inputs = model.hidden_size / config.groups * config.kernel_size;
        let name = format!("{prefix}.encoder.conv.conv");
        Some(Convolution {
            width: config.kernel_size as u64,
            linear: self.linear(&name, inputs, model.hidden_size),
            activation: config.activation,
        })
    }
}

impl Sizes {
    /// A model whose adapters are these.
    pub(super) fn new(
        model: &ModelConfig,
        method: Method,
        adapters: &BTreeMap<String, ResolvedAdapter>,
        labels: usize,
        dtype: Dtype,
    ) -> Self {
        let architecture = model.architecture();
        let prefix = architecture.prefix();
        let half = dtype.is_half() && method != Method::Full;
        let mut build = Builder {
            method,
            adapters,
            half,
            next: 0,
        };
        let dense = match architecture {
            Architecture::Roberta => "classifier.dense",
            Architecture::DebertaV2 => "pooler.dense",
        };
        let layers = 0..model.num_hidden_layers;
        let distances = relative(model).map(|config| Distances {
            config,
            entries: 2 * config.span() as u64,
        });
        Self {
            hidden: model.hidden_size as u64,
            heads: model.num_attention_heads as u64,
            activation: model.hidden_act,
            drops: model.hidden_dropout_prob > 0.0,
            half,
            full: method == Method::Full,
            biases: matches!(method, Method::Full | Method::Bitfit),
            embeddings: build.embeddings(model, prefix),
            layers: layers
                .map(|i| build.layer(model, &format!("{prefix}.encoder.layer.{i}")))
                .collect(),
            distances,
            convolution: build.convolution(model, prefix),
            dense: build.linear(dense, model.hidden_size, model.hidden_size),
            output: build.linear(architecture.output_layer(), model.hidden_size, labels),
            parameters: parameters(model, method, adapters, labels, half),
        }
    }
}

/// Disentangled attention, where the model has it.
fn relative(model: &ModelConfig) -> Option<RelativeConfig> {
    match &model.family {
        Family::DebertaV2(own) => own.relative,
        _ => None,
    }
}

/// All tensors: the checkpoint's, then the adapters'.
fn parameters(
    model: &ModelConfig,
    method: Method,
    adapters: &BTreeMap<String, ResolvedAdapter>,
    labels: usize,
    half: bool,
) -> Vec<Parameter> {
    let specs = manifest(model, labels);
    let own = |spec: &TensorSpec| {
        let matrix = spec.shape.len() > 1;
        Parameter {
            numbers: spec.elements() as u64,
            trained: method.trains(&spec.name),
            half: half && matrix && !spec.in_head(),
            read: true,
            transposed: spec.kind == Kind::Weight && spec.shape.len() == 2,
        }
    };
    let mut list: Vec<Parameter> = specs.iter().map(own).collect();
    for spec in &specs {
        let module = spec.name.strip_suffix(".weight");
        let Some(adapter) = module.and_then(|module| adapters.get(module)) else {
            continue;
        };
        for extent in &spec.shape {
            list.push(Parameter {
                numbers: extent.saturating_mul(adapter.rank) as u64,
                trained: true,
                half: false,
                read: false,
                transposed: false,
            });
        }
    }
    list
}

//! Parameters by their Hugging Face names.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::architecture::Architecture;
use crate::classifier::SequenceClassifier;

/// Called with every floating-point parameter of a model and its name in Hugging Face's files;
/// the factors of an adapter are `{module}.lora_A.weight` and `{module}.lora_B.weight`.
pub trait NamedVisitor {
    /// One parameter. Weights of linear layers are `[in, out]` here, the transpose of the files'.
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>);
}

/// Called with every floating-point parameter of a model, to replace it.
pub trait NamedMapper {
    /// One parameter; see [`NamedVisitor::visit`].
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Visits the parameters of a model in the order of its fields.
pub fn visit_named<V: NamedVisitor>(model: &SequenceClassifier, visitor: &mut V) {
    model.visit(&mut Visiting {
        architecture: model.architecture,
        path: Vec::new(),
        visitor,
    });
}

/// Replaces the parameters of a model.
pub fn map_named<V: NamedMapper>(model: SequenceClassifier, mapper: &mut V) -> SequenceClassifier {
    let architecture = model.architecture;
    model.map(&mut Mapping {
        architecture,
        path: Vec::new(),
        mapper,
    })
}

/// True for parameters whose files hold the transpose: weights of linear layers and factors.
pub fn is_transposed(name: &str, dimensions: usize) -> bool {
    dimensions == 2 && !name.ends_with("embeddings.weight")
}

struct Visiting<'a, V> {
    architecture: Architecture,
    path: Vec<String>,
    visitor: &'a mut V,
}

struct Mapping<'a, V> {
    architecture: Architecture,
    path: Vec<String>,
    mapper: &'a mut V,
}

/// The file's name of a path of fields: one rule for each field that cannot be named as in the file.
fn file_name(path: &[String], architecture: Architecture) -> String {
    let mut name = String::new();
    for segment in path {
        let segment = match segment.as_str() {
            "backbone" => architecture.prefix(),
            "query" => architecture.projection("query"),
            "key" => architecture.projection("key"),
            "value" => architecture.projection("value"),
            "self_attention" => "self",
            "layer_norm" => "LayerNorm",
            "gamma" => "weight",
            "beta" => "bias",
            // Fields and variants that have no counterpart in the files.
            "adapter" | "position" | "relative" | "head" | "Pooled" => continue,
            "Dense" => "classifier",
            "a" => "lora_A.weight",
            "b" => "lora_B.weight",
            other => other,
        };
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(segment);
    }
    name
}

impl<V: NamedVisitor> ModuleVisitor for Visiting<'_, V> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor
            .visit(&file_name(&self.path, self.architecture), param);
    }
}

impl<V: NamedMapper> ModuleMapper for Mapping<'_, V> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.mapper
            .map(&file_name(&self.path, self.architecture), param)
    }
}

//! loralib checkpoints: the `.bin` files of the LoRA authors.
//!
//! Such a file is a pickled dictionary of tensors: `MODULE.lora_A` `[r, in]`, `MODULE.lora_B`
//! `[out, r]` and the head, under plain names. It has neither alpha (the caller must know it; a
//! wrong one costs the authors' MNLI adapter 20 points without any other sign) nor the rank,
//! which the shapes give.

mod pickle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::adapter::AdapterFile;
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::files::{self, Tensors};
use crate::names::{last_part, natural_cmp};
use crate::patterns::PatternMap;
use crate::targets::Targets;
use crate::tensor::{Factors, HostTensor};

/// Reads a loralib checkpoint; `alpha` is not in the file and must be the one it was trained with.
///
/// Ranks come from the shapes: the most frequent one is the configuration's `rank`, others become
/// its `rank_pattern`. Targets are the last parts of the module names where every layer has them
/// (`query`, `value`), full names otherwise.
///
/// # Errors
///
/// A file that is not a checkpoint or is damaged, half a pair, factors whose ranks disagree,
/// trained biases (loralib's `bias="all"`), an alpha that is 0 or not finite.
pub fn read_loralib(path: &Path, alpha: f64) -> Result<AdapterFile, LoraError> {
    let (factors, saved) = sort_tensors(path, files::read_pytorch(path)?)?;
    let ranks: BTreeMap<&str, usize> = factors
        .iter()
        .filter_map(|(module, factors)| Some((module.as_str(), factors.sizes()?.0)))
        .collect();
    let rank = most_frequent(ranks.values().copied());
    let targets = targets_of(factors.keys().map(String::as_str));
    let mut config = LoraConfig::new(rank, alpha, targets);
    config.rank_pattern = ranks
        .iter()
        .filter(|(_, r)| **r != rank)
        .map(|(module, r)| (format!("^{}$", escaped(module)), *r))
        .collect::<PatternMap<usize>>();
    for parameter in saved.keys() {
        let module = root(parameter);
        if factors.keys().any(|name| root(name) == module) {
            return Err(LoraError::tensor(
                path,
                parameter,
                "not a LoRA factor, yet of the adapted model itself; trained biases and other base weights are not implemented",
            ));
        }
        if !config.modules_to_save.iter().any(|known| known == module) {
            config.modules_to_save.push(module.to_owned());
        }
    }
    config.validate()?;
    let mut adapter = AdapterFile::new(config);
    adapter.factors = factors;
    adapter.saved = saved;
    match adapter.check() {
        Err(LoraError::Inconsistent { problem }) => {
            Err(LoraError::tensor(path, "lora_A, lora_B", problem))
        }
        result => result.map(|()| adapter),
    }
}

/// Writes a loralib checkpoint that `torch.load(weights_only=True)` reads.
///
/// The order is that of the authors' files: layer by layer, A before B, then the head, weights
/// before biases. Every tensor keeps its [`dtype`](HostTensor::dtype); the file is written whole
/// or not at all. Alpha is not in it: say it to whoever gets the file.
///
/// # Errors
///
/// An adapter that contradicts itself or that the format cannot express: alphas that differ from
/// layer to layer, or rank-stabilised scaling. What the disk says.
pub fn write_loralib(adapter: &AdapterFile, path: &Path) -> Result<(), LoraError> {
    adapter.check()?;
    let cannot = |what: &str| {
        Err(LoraError::Inconsistent {
            problem: format!(
                "a loralib file has one alpha for all layers and scales by alpha / r; {what} cannot be expressed in it, write a PEFT folder instead"
            ),
        })
    };
    if adapter.config.use_rslora {
        return cannot("rank-stabilised scaling (use_rslora)");
    }
    if !adapter.config.alpha_pattern.is_empty() {
        return cannot("alpha_pattern");
    }
    let mut modules: Vec<&String> = adapter.factors.keys().collect();
    modules.sort_by(|left, right| natural_cmp(left, right));
    let mut tensors: Vec<(String, &HostTensor)> = Vec::new();
    for module in modules {
        let factors = &adapter.factors[module];
        tensors.push((format!("{module}.lora_A"), &factors.a));
        tensors.push((format!("{module}.lora_B"), &factors.b));
    }
    let mut saved: Vec<(&String, &HostTensor)> = adapter.saved.iter().collect();
    saved.sort_by(|(left, _), (right, _)| parameter_cmp(left, right));
    tensors.extend(
        saved
            .into_iter()
            .map(|(name, tensor)| (name.clone(), tensor)),
    );
    files::write_file(path, &pickle::checkpoint(&tensors)?)
}

type Sorted = (BTreeMap<String, Factors>, Tensors);

fn sort_tensors(path: &Path, tensors: Tensors) -> Result<Sorted, LoraError> {
    let mut saved = Tensors::new();
    let mut halves_a = Tensors::new();
    let mut halves_b = Tensors::new();
    for (name, tensor) in tensors {
        if name.starts_with("base_model.model.") {
            return Err(LoraError::tensor(
                path,
                &name,
                "this is a PEFT file, not a loralib one; give its folder as an adapter",
            ));
        }
        match name.rsplit_once('.') {
            Some((module, "lora_A")) => halves_a.insert(module.to_owned(), tensor),
            Some((module, "lora_B")) => halves_b.insert(module.to_owned(), tensor),
            _ => saved.insert(name, tensor),
        };
    }
    let missing = |module: &str, half: &str| {
        LoraError::tensor(
            path,
            &format!("{module}.{half}"),
            "missing, though the other factor of the module is there",
        )
    };
    let mut factors = BTreeMap::new();
    for (module, a) in halves_a {
        let Some(b) = halves_b.remove(&module) else {
            return Err(missing(&module, "lora_B"));
        };
        factors.insert(module, Factors { a, b });
    }
    if let Some(module) = halves_b.keys().next() {
        return Err(missing(module, "lora_A"));
    }
    if factors.is_empty() {
        return Err(LoraError::Damaged {
            path: path.to_path_buf(),
            format: "a loralib checkpoint",
            reason: "no tensor in it is called MODULE.lora_A or MODULE.lora_B".to_owned(),
        });
    }
    Ok((factors, saved))
}

/// The most frequent value, the largest of those that are equally frequent; 0 if there is none.
fn most_frequent(values: impl Iterator<Item = usize>) -> usize {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(0, |(value, _)| value)
}

/// Names that target these modules: the last part, if it means one place in every layer and all
/// layers from 0 on have it; the full name otherwise.
fn targets_of<'a>(modules: impl Iterator<Item = &'a str>) -> Targets {
    let mut by_last_part: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in modules {
        by_last_part
            .entry(last_part(module))
            .or_default()
            .push(module);
    }
    Targets::names(by_last_part.into_iter().flat_map(|(last, modules)| {
        if in_every_layer(&modules) {
            vec![last]
        } else {
            modules
        }
    }))
}

fn in_every_layer(modules: &[&str]) -> bool {
    let mut places = BTreeSet::new();
    let mut layers = BTreeSet::new();
    for module in modules {
        let mut parts: Vec<&str> = module.split('.').collect();
        let numbered = parts.iter().position(|part| part.parse::<usize>().is_ok());
        let Some(index) = numbered else {
            return false;
        };
        let layer = std::mem::replace(&mut parts[index], "*");
        layers.insert(layer.parse::<usize>().unwrap_or(usize::MAX));
        places.insert(parts.join("."));
    }
    places.len() == 1 && layers.iter().copied().eq(0..modules.len())
}

/// The first part of a name: `classifier` of `classifier.dense.weight`.
fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A module name as a regular expression that matches it and nothing else.
fn escaped(module: &str) -> String {
    fancy_regex::escape(module).into_owned()
}

/// Modules in order, the weight of each before its bias and anything else.
fn parameter_cmp(left: &str, right: &str) -> std::cmp::Ordering {
    fn key(name: &str) -> (&str, usize) {
        let (module, parameter) = name.rsplit_once('.').unwrap_or(("", name));
        (
            module,
            ["weight", "bias"]
                .iter()
                .position(|p| *p == parameter)
                .unwrap_or(2),
        )
    }
    let ((left_module, left_rank), (right_module, right_rank)) = (key(left), key(right));
    natural_cmp(left_module, right_module)
        .then(left_rank.cmp(&right_rank))
        .then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_short_where_that_is_safe() {
        let targets = |names: &[&str]| targets_of(names.iter().copied()).to_string();
        assert_eq!(
            targets(&["l.0.query", "l.0.value", "l.1.query", "l.1.value"]),
            "query,value"
        );
        // Layer 0 has none: "query" would take it in.
        assert_eq!(targets(&["l.1.query", "l.2.query"]), "l.1.query,l.2.query");
        // "dense" names two places.
        assert_eq!(
            targets(&["l.0.output.dense", "l.0.up.dense"]),
            "l.0.output.dense,l.0.up.dense"
        );
        assert_eq!(targets(&["pooler.dense"]), "pooler.dense");
    }

    #[test]
    fn parameters_are_in_the_order_of_torch() {
        let mut names = vec![
            "classifier.out_proj.bias",
            "classifier.dense.bias",
            "classifier.out_proj.weight",
            "classifier.dense.weight",
        ];
        names.sort_by(|a, b| parameter_cmp(a, b));
        assert_eq!(
            names,
            [
                "classifier.dense.weight",
                "classifier.dense.bias",
                "classifier.out_proj.weight",
                "classifier.out_proj.bias",
            ]
        );
    }

    #[test]
    fn ranks_by_majority() {
        assert_eq!(most_frequent([8, 4, 8, 2].into_iter()), 8);
        assert_eq!(most_frequent([4, 8].into_iter()), 8);
        assert_eq!(most_frequent(std::iter::empty()), 0);
    }
}

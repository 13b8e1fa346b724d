//! What a model is made of, what a method would train, and the memory a step would take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lowburn_lora::LoraConfig;
use lowburn_models::{Kind, LoadOptions, Method, ModelConfig, load_classifier, manifest};
use serde::Serialize;

use crate::config::DeviceName;
use crate::error::TrainError;
use crate::parameters::{self, ParameterInfo};
use crate::plan::check_max_length;
use crate::record::ParameterCounts;

/// Bytes of one number in memory: weights, gradients and moments are all 32 bit.
const NUMBER: u64 = 4;

/// What to look at.
#[derive(Debug, Clone)]
pub struct InspectConfig {
    /// Folder of the checkpoint.
    pub model: PathBuf,
    /// What would be trained.
    pub method: Method,
    /// The adapter, for [`Method::Lora`].
    pub lora: Option<LoraConfig>,
    /// Labels of the head, where the checkpoint has none.
    pub labels: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tokens of a row.
    pub max_length: usize,
    /// Where to compute.
    pub device: DeviceName,
}

/// Equal parameters of all layers together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterRow {
    /// The Hugging Face name, with `*` for the number of the layer.
    pub name: String,
    /// Extents as in a checkpoint.
    pub shape: Vec<usize>,
    /// How many there are.
    pub copies: usize,
    /// Numbers in all copies.
    pub parameters: usize,
    /// Whether the method trains them.
    pub trainable: bool,
}

/// Bytes of one training step, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// All parameters.
    pub weights: u64,
    /// Gradients of what is trained.
    pub gradients: u64,
    /// Both moments of what is trained.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass: grows with rows and tokens.
    pub activations: u64,
    /// The sum.
    pub total: u64,
}

/// A model taken apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Parameters in the order of the model.
    pub table: Vec<ParameterRow>,
    /// Sums.
    pub parameters: ParameterCounts,
    /// Memory of one training step.
    pub memory: MemoryEstimate,
}

/// Takes a checkpoint apart.
///
/// # Errors
/// When it cannot be loaded or the adapter does not fit it.
pub fn inspect(config: &InspectConfig) -> Result<Inspection, TrainError> {
    let device = config.device.open()?.autodiff();
    let model_config = ModelConfig::from_dir(&config.model)?;
    check_max_length(config.max_length, &model_config)?;
    for (field, value) in [("batch-size", config.batch_size), ("labels", config.labels)] {
        if value == 0 {
            return Err(TrainError::config(field, 0, "it must be at least 1"));
        }
    }
    let options = LoadOptions {
        num_labels: config.labels,
        head_seed: 0,
    };
    let (mut model, _, _) = load_classifier(&config.model, &options, &device)?;
    if let Some(lora) = &config.lora {
        let lora = model_config.architecture().lora_config(lora.clone());
        model.attach(&lora.plan(&model.linear_names())?, lora.init, 0);
    }
    let model = model.set_trainable(config.method);
    let parameters = parameters::count(&model);
    Ok(Inspection {
        table: group(&parameters::list(&model)),
        parameters,
        memory: estimate(
            &model_config,
            config.method,
            [config.batch_size, config.max_length],
            parameters,
        ),
    })
}

/// What a method would train and the memory that a step would take, from a configuration alone: no
/// weights are read, nothing is allocated.
///
/// # Errors
/// When the adapter does not fit the model.
pub fn forecast(
    model: &ModelConfig,
    method: Method,
    lora: Option<&LoraConfig>,
    labels: usize,
    [rows, tokens]: [usize; 2],
) -> Result<(ParameterCounts, MemoryEstimate), TrainError> {
    let mut counts = ParameterCounts::default();
    let mut sizes = BTreeMap::new();
    for spec in manifest(model, labels) {
        let size = spec.elements();
        counts.total += size;
        counts.head += if spec.in_head() { size } else { 0 };
        counts.trainable += if method.trains(&spec.name) { size } else { 0 };
        if spec.kind == Kind::Weight && spec.shape.len() == 2 && !spec.in_head() {
            let module = spec.name.trim_end_matches(".weight").to_owned();
            sizes.insert(module, spec.shape.iter().sum::<usize>());
        }
    }
    if let Some(lora) = lora {
        let lora = model.architecture().lora_config(lora.clone());
        let names: Vec<String> = sizes.keys().cloned().collect();
        for (module, settings) in lora.plan(&names)? {
            counts.adapter += settings.rank * sizes[&module];
        }
        counts.total += counts.adapter;
        counts.trainable += counts.adapter;
    }
    let memory = estimate(model, method, [rows, tokens], counts);
    Ok((counts, memory))
}

/// Puts the copies of all layers in one row.
fn group(list: &[ParameterInfo]) -> Vec<ParameterRow> {
    let mut rows: Vec<ParameterRow> = Vec::new();
    for parameter in list {
        let name = starred(&parameter.name);
        let count = parameter.shape.iter().product();
        let same = rows.iter_mut().find(|row| {
            row.name == name && row.shape == parameter.shape && row.trainable == parameter.trainable
        });
        match same {
            Some(row) => {
                row.copies += 1;
                row.parameters += count;
            }
            None => rows.push(ParameterRow {
                name,
                shape: parameter.shape.clone(),
                copies: 1,
                parameters: count,
                trainable: parameter.trainable,
            }),
        }
    }
    rows
}

/// `layer.11.output` as `layer.*.output`.
fn starred(name: &str) -> String {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| if is_number(part) { "*" } else { part })
        .collect();
    parts.join(".")
}

/// Weights, gradients and moments are exact. Of the activations the fused layers keep, for each
/// token: about eight vectors of the hidden width (inputs of the projections, q, k, v, context,
/// normalised outputs) and two of the intermediate width, and the largest passing buffer.
fn estimate(
    model: &ModelConfig,
    method: Method,
    [rows, length]: [usize; 2],
    parameters: ParameterCounts,
) -> MemoryEstimate {
    let tokens = (rows as u64).saturating_mul(length as u64);
    let (hidden, inner) = (model.hidden_size as u64, model.intermediate_size as u64);
    let per_token = 8 * hidden + 2 * inner;
    let layers = match method {
        Method::Head => 1, // nothing below the head is kept
        Method::Lora | Method::Full | Method::Bitfit => model.num_hidden_layers as u64,
    };
    let activations = tokens.saturating_mul(NUMBER * (layers * per_token + 2 * inner));
    let trainable = NUMBER * parameters.trainable as u64;
    let weights = NUMBER * parameters.total as u64;
    MemoryEstimate {
        weights,
        gradients: trainable,
        optimizer: 2 * trainable,
        activations,
        total: (weights + 3 * trainable).saturating_add(activations),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lowburn_lora::Targets;

    use super::*;

    /// Everything that is counted from names alone is what the loaded model has.
    #[test]
    fn a_forecast_is_what_inspection_finds() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
        for model in [
            "mini/model",
            "parity/deberta/models/deb_conv",
            "parity/deberta/models/deb_plain",
        ] {
            let folder = data.join(model);
            let model = ModelConfig::from_dir(&folder).expect("a configuration");
            let adapters = ["query,value", "all-linear"].map(|targets| {
                let targets: Targets = targets.parse().expect("targets");
                (Method::Lora, Some(LoraConfig::new(3, 6.0, targets)))
            });
            let others = [Method::Full, Method::Head, Method::Bitfit].map(|method| (method, None));
            for (method, lora) in adapters.into_iter().chain(others) {
                let config = InspectConfig {
                    model: folder.clone(),
                    method,
                    lora: lora.clone(),
                    labels: 2,
                    batch_size: 4,
                    max_length: 32,
                    device: DeviceName::Flex,
                };
                let found = inspect(&config).expect("an inspection");
                let (counts, memory) =
                    forecast(&model, method, lora.as_ref(), 2, [4, 32]).expect("a forecast");
                assert_eq!(
                    (counts, memory),
                    (found.parameters, found.memory),
                    "{method} of {}",
                    folder.display()
                );
            }
        }
    }

    #[test]
    fn layers_share_a_row() {
        let info = |name: &str, trainable| ParameterInfo {
            name: name.to_owned(),
            shape: vec![2, 3],
            trainable,
        };
        let rows = group(&[
            info("a.layer.0.query.weight", false),
            info("a.layer.11.query.weight", false),
            info("a.layer.11.query.weight", true),
            info("classifier.weight", true),
        ]);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].name, "a.layer.*.query.weight");
        assert_eq!((rows[0].copies, rows[0].parameters), (2, 12));
    }
}

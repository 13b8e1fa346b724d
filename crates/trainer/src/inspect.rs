//! What a model is made of, what a method would train, and the memory a run would take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lowburn_lora::{LoraConfig, ResolvedAdapter};
use lowburn_models::{Dtype, Kind, LoadOptions, Method, ModelConfig, load_classifier, manifest};
use serde::Serialize;

use crate::config::DeviceName;
use crate::error::TrainError;
use crate::memory::{self, MemoryEstimate, TrainingShape};
use crate::parameters::{self, ParameterInfo};
use crate::plan::{check_dtype, check_frozen, check_max_length};
use crate::record::ParameterCounts;
use crate::system;

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
    /// Real tokens of a row.
    pub max_length: usize,
    /// Forward passes of one optimiser step.
    pub accumulate: usize,
    /// How the frozen base is stored; not in 16 bit under [`Method::Full`].
    pub dtype: Dtype,
    /// Layers would be computed again in the backward pass.
    pub checkpoint_activations: bool,
    /// Rows of the evaluation split; see [`TrainingShape::evaluation_rows`].
    pub evaluation_rows: Option<usize>,
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

/// A model taken apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Parameters in the order of the model.
    pub table: Vec<ParameterRow>,
    /// Sums.
    pub parameters: ParameterCounts,
    /// Memory of a training run on flex.
    pub memory: MemoryEstimate,
}

/// What a run would take, from the configuration of a model alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// Sums.
    pub parameters: ParameterCounts,
    /// Memory of a training run on flex.
    pub memory: MemoryEstimate,
}

/// Labels beyond which a number is taken for a slip.
const MAX_LABELS: usize = 1 << 16;

impl InspectConfig {
    /// The model's configuration, which the values fit.
    fn check(&self) -> Result<ModelConfig, TrainError> {
        check_frozen(self.dtype, self.method)?;
        check_dtype(self.dtype, self.device)?;
        if self.labels > MAX_LABELS {
            let reason = format!("more than {MAX_LABELS} is taken for a slip");
            return Err(TrainError::config("labels", self.labels, reason));
        }
        let model = ModelConfig::from_dir(&self.model)?;
        check_max_length(self.max_length, &model)?;
        for (field, value) in [
            ("batch-size", self.batch_size),
            ("accumulate", self.accumulate),
            ("labels", self.labels),
            ("evaluation-rows", self.evaluation_rows.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(TrainError::config(field, 0, "it must be at least 1"));
            }
        }
        Ok(model)
    }

    /// What the memory depends on, with the threads of this process.
    fn shape(&self) -> TrainingShape {
        TrainingShape {
            batch_size: self.batch_size,
            max_length: self.max_length,
            accumulate: self.accumulate,
            dtype: self.dtype,
            checkpoint_activations: self.checkpoint_activations,
            threads: system::threads(),
            evaluation_rows: self.evaluation_rows,
            tokenizer_bytes: memory::tokenizer_bytes(&self.model),
        }
    }
}

/// Predicts the memory of a run on flex: reads the checkpoint's config.json and nothing else; of the tokenizer's files
/// only their lengths count.
///
/// # Errors
/// When the configuration is wrong or a value or the adapter does not fit it.
pub fn estimate(config: &InspectConfig) -> Result<Forecast, TrainError> {
    let model = config.check()?;
    forecast(
        &model,
        config.method,
        config.lora.as_ref(),
        config.labels,
        &config.shape(),
    )
}

/// Takes a checkpoint apart.
///
/// # Errors
/// When it cannot be loaded or the adapter does not fit it.
pub fn inspect(config: &InspectConfig) -> Result<Inspection, TrainError> {
    let model_config = config.check()?;
    let device = config.device.open()?.autodiff();
    let options = LoadOptions {
        num_labels: config.labels,
        head_seed: 0,
        dtype: config.dtype,
    };
    let (mut model, _, _) = load_classifier(&config.model, &options, &device)?;
    let mut adapters = BTreeMap::new();
    if let Some(lora) = &config.lora {
        let lora = model_config.architecture().lora_config(lora.clone());
        adapters = lora.plan(&model.linear_names())?;
        model.attach(&adapters, lora.init, 0);
    }
    let model = model.set_trainable(config.method);
    let (method, labels, shape) = (config.method, config.labels, config.shape());
    Ok(Inspection {
        table: group(&parameters::list(&model)),
        parameters: parameters::count(&model),
        memory: memory::estimate(&model_config, method, &adapters, labels, &shape),
    })
}

/// What a method would train and the memory that a run on flex would take, from a configuration alone: no
/// weights are read, nothing is allocated.
///
/// # Errors
/// When the adapter does not fit the model.
pub fn forecast(
    model: &ModelConfig,
    method: Method,
    lora: Option<&LoraConfig>,
    labels: usize,
    shape: &TrainingShape,
) -> Result<Forecast, TrainError> {
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
    let mut adapters: BTreeMap<String, ResolvedAdapter> = BTreeMap::new();
    if let Some(lora) = lora {
        let lora = model.architecture().lora_config(lora.clone());
        let names: Vec<String> = sizes.keys().cloned().collect();
        adapters = lora.plan(&names)?;
        for (module, settings) in &adapters {
            counts.adapter += settings.rank * sizes[module];
        }
        counts.total += counts.adapter;
        counts.trainable += counts.adapter;
    }
    Ok(Forecast {
        parameters: counts,
        memory: memory::estimate(model, method, &adapters, labels, shape),
    })
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
                    accumulate: 1,
                    dtype: Dtype::F32,
                    checkpoint_activations: true,
                    evaluation_rows: None,
                    device: DeviceName::FLEX,
                };
                let found = inspect(&config).expect("an inspection");
                let expected = Forecast {
                    parameters: found.parameters,
                    memory: found.memory,
                };
                let from_file = estimate(&config).expect("an estimate");
                let shape = config.shape();
                let alone = forecast(&model, method, lora.as_ref(), 2, &shape);
                for forecast in [from_file, alone.expect("a forecast")] {
                    assert_eq!(forecast, expected, "{method} of {}", folder.display());
                }
            }
        }
    }

    #[test]
    fn impossible_values_are_named() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini/model");
        let config = InspectConfig {
            model: folder,
            method: Method::Full,
            lora: None,
            labels: 2,
            batch_size: 4,
            max_length: 32,
            accumulate: 1,
            dtype: Dtype::F32,
            checkpoint_activations: false,
            evaluation_rows: None,
            device: DeviceName::FLEX,
        };
        let changed = |change: fn(&mut InspectConfig)| {
            let mut config = config.clone();
            change(&mut config);
            estimate(&config).expect_err("impossible").to_string()
        };
        for (message, field) in [
            (
                changed(|config| config.dtype = Dtype::Bf16),
                "--method full",
            ),
            (changed(|config| config.batch_size = 0), "batch-size"),
            (changed(|config| config.accumulate = 0), "accumulate"),
            (changed(|config| config.labels = 0), "labels"),
            (changed(|config| config.max_length = 65), "max-length"),
            (
                changed(|config| config.evaluation_rows = Some(0)),
                "evaluation-rows",
            ),
        ] {
            assert!(message.contains(field), "{field} is not in: {message}");
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

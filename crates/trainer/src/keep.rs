//! What is kept of the best evaluation: an adapter, a head, biases, or a whole checkpoint.

use std::fs;
use std::path::Path;

use lowburn_glue::Tokenizer;
use lowburn_models::{Method, ModelConfig, SequenceClassifier, save_checkpoint};

use crate::about::About;
use crate::config::RunConfig;
use crate::digest::weight_digests;
use crate::error::TrainError;
use crate::output::{recover_folder, replace_folder};
use crate::parts;
use crate::plan::RunPlan;
use crate::record::Best;

/// Writes the parameters that are worth keeping.
pub(crate) struct Keeper {
    config: RunConfig,
    about: About,
}

/// The folder below the output that holds what a method trained.
#[must_use]
pub fn kept_folder(method: Method) -> &'static str {
    match method {
        Method::Lora => "adapter",
        Method::Head => "head",
        Method::Bitfit => "bitfit",
        Method::Full => "model",
    }
}

impl Keeper {
    pub(crate) fn new(plan: &RunPlan) -> Result<Self, TrainError> {
        let config = plan.config().clone();
        let base_weights = match config.method {
            Method::Full => Default::default(),
            Method::Lora | Method::Head | Method::Bitfit => weight_digests(&config.model)?,
        };
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            task: config.task,
            labels: config.task.labels().iter().map(|&l| l.to_owned()).collect(),
            max_length: config.max_length,
            base: config.model_name.clone(),
            position_branch: config.position_branch.unwrap_or_default(),
            base_weights,
        };
        Ok(Self { config, about })
    }

    /// Whether what an earlier process kept is still there.
    pub(crate) fn check_kept(
        method: Method,
        output: &Path,
        best: Option<&Best>,
    ) -> Result<(), TrainError> {
        let path = output.join(kept_folder(method));
        if best.is_some() {
            recover_folder(&path)?;
        }
        match best {
            Some(best) if !path.is_dir() => Err(TrainError::State {
                path,
                reason: format!(
                    "the parameters kept after step {} are gone; start again with --overwrite",
                    best.step
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Replaces what was kept before, whole or not at all.
    pub(crate) fn keep(&self, model: &SequenceClassifier, output: &Path) -> Result<(), TrainError> {
        let method = self.config.method;
        tracing::debug!(
            folder = kept_folder(method),
            "keeping the best parameters so far"
        );
        replace_folder(&output.join(kept_folder(method)), |folder| {
            match method {
                Method::Lora => self.adapter(model, folder)?,
                Method::Head => trained(model, folder, parts::HEAD, method)?,
                Method::Bitfit => trained(model, folder, parts::BITFIT, method)?,
                Method::Full => {
                    fs::create_dir(folder).map_err(TrainError::io("create", folder))?;
                    let base = ModelConfig::from_dir(&self.config.model)?;
                    let labels = &self.about.labels;
                    let labels = (!labels.is_empty()).then_some(labels.as_slice());
                    save_checkpoint(model, &base, labels, folder)?;
                    Tokenizer::from_dir(&self.config.model)?.save(folder)?;
                }
            }
            self.about.write(folder)
        })
    }

    fn adapter(&self, model: &SequenceClassifier, folder: &Path) -> Result<(), TrainError> {
        if let Some(lora) = &self.config.lora {
            let file = model.adapter_file(lora, Some(self.config.model_name.clone()));
            lowburn_lora::write_peft(&file, folder)?;
        }
        Ok(())
    }
}

/// Writes what the method trained, of the model's own tensors.
fn trained(
    model: &SequenceClassifier,
    folder: &Path,
    file: &str,
    method: Method,
) -> Result<(), TrainError> {
    fs::create_dir(folder).map_err(TrainError::io("create", folder))?;
    parts::write(
        folder,
        file,
        &model.host_tensors(|name| method.trains(name)),
    )
}

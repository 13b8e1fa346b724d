//! An adapter in memory, whatever file it came from, and whether it fits a model.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{LoraConfig, ResolvedAdapter};
use crate::error::LoraError;
use crate::matcher::Matcher;
use crate::names::{hint, is_suffix, listed};
use crate::plan::unknown;
use crate::targets::Targets;
use crate::tensor::{Factors, HostTensor};

/// A LoRA adapter: its configuration, its factors and the modules saved in full.
///
/// Names are those of the base model, without any prefix of a file format.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFile {
    /// The hyperparameters it was trained with.
    pub config: LoraConfig,
    /// Name or path of the base model, if the file says.
    pub base_model: Option<String>,
    /// Revision of the base model, if the file says.
    pub revision: Option<String>,
    /// PEFT's task type, `SEQ_CLS` for a sequence classifier.
    pub task_type: Option<String>,
    /// Module name (`roberta.encoder.layer.0.attention.self.query`) to its A and B.
    pub factors: BTreeMap<String, Factors>,
    /// Parameter name (`classifier.dense.weight`) to its tensor, in the layout of the files
    /// (a linear weight is `[out, in]`).
    pub saved: BTreeMap<String, HostTensor>,
}

impl AdapterFile {
    /// An adapter for sequence classification without any tensors yet.
    pub fn new(config: LoraConfig) -> Self {
        Self {
            config,
            base_model: None,
            revision: None,
            task_type: Some("SEQ_CLS".to_owned()),
            factors: BTreeMap::new(),
            saved: BTreeMap::new(),
        }
    }

    /// The rank, alpha and scale of every module that has factors, checked against `modules`,
    /// the full names of the model's linear layers (the head need not be among them).
    ///
    /// # Errors
    ///
    /// An adapter of another model: factors for layers that the model lacks, no factors for
    /// layers that the configuration targets, or targets that the model does not know. Unlike
    /// [`LoraConfig::plan`] it lets pass what PEFT writes for `all-linear`, a list that has the
    /// head's own layers in it, and patterns that fit nothing.
    pub fn plan(&self, modules: &[String]) -> Result<BTreeMap<String, ResolvedAdapter>, LoraError> {
        self.check()?;
        let known: BTreeSet<&str> = modules.iter().map(String::as_str).collect();
        let missing: Vec<&str> = self
            .factors
            .keys()
            .map(String::as_str)
            .filter(|module| !known.contains(module))
            .collect();
        if let Some(first) = missing.first() {
            let problem = format!(
                "it has factors for {}, which this model does not have; {}",
                listed(missing.iter().copied()),
                hint(first, known)
            );
            return Err(LoraError::OtherModel { problem });
        }
        self.check_target_names(&known)?;
        let matcher = Matcher::new(&self.config)?;
        let plan = matcher.resolve_all(known.iter().copied());
        let bare: Vec<&str> = plan
            .keys()
            .map(String::as_str)
            .filter(|module| !self.factors.contains_key(*module))
            .collect();
        if !bare.is_empty() {
            let problem = format!(
                "its targets ({}) take in {}, for which it has no factors",
                self.config.targets,
                listed(bare.into_iter())
            );
            return Err(LoraError::OtherModel { problem });
        }
        Ok(plan)
    }

    fn check_target_names(&self, known: &BTreeSet<&str>) -> Result<(), LoraError> {
        let Targets::Names(names) = &self.config.targets else {
            return Ok(());
        };
        let matcher = Matcher::new(&self.config)?;
        let saved: Vec<&str> = self
            .saved
            .keys()
            .filter_map(|parameter| Some(parameter.rsplit_once('.')?.0))
            .collect();
        for name in names {
            let mut modules = known.iter().chain(&saved);
            if !matcher.is_saved(name) && !modules.any(|module| is_suffix(module, name)) {
                return Err(unknown("target", name, known.iter().copied()));
            }
        }
        Ok(())
    }

    /// Checks the adapter against itself: a valid configuration, at least one pair of factors,
    /// every pair meant by the targets and of the rank that the configuration gives it.
    ///
    /// # Errors
    ///
    /// [`LoraError::Inconsistent`], or what [`LoraConfig::validate`] finds.
    pub fn check(&self) -> Result<(), LoraError> {
        self.config.validate()?;
        let matcher = Matcher::new(&self.config)?;
        let wrong = |problem| Err(LoraError::Inconsistent { problem });
        if self.factors.is_empty() {
            return wrong("it has no LoRA factors at all".to_owned());
        }
        for (module, factors) in &self.factors {
            let Some((rank, _, _)) = factors.sizes() else {
                return wrong(format!(
                    "module {module}: lora_A is {:?} and lora_B is {:?}, not [r, in] and [out, r]",
                    factors.a.shape, factors.b.shape
                ));
            };
            let Some(resolved) = matcher.resolve(module) else {
                return wrong(format!(
                    "module {module} has factors, but the targets ({}) with exclude_modules, modules_to_save and layers_to_transform do not take it in",
                    self.config.targets
                ));
            };
            if resolved.rank != rank {
                return wrong(format!(
                    "module {module}: lora_A has rank {rank}, the configuration says {}",
                    resolved.rank
                ));
            }
        }
        Ok(())
    }

    /// What merging adds to the weight of this module, `scale * B A` as `[out, in]` in f32, or
    /// `None` if the adapter leaves the module alone.
    pub fn delta(&self, module: &str) -> Option<HostTensor> {
        let factors = self.factors.get(module)?;
        factors.sizes()?;
        Some(factors.delta(self.config.resolve(module)?.scale))
    }
}

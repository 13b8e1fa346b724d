//! Reading `adapter_config.json`, with suspicion.
//!
//! PEFT's `LoraConfig` has grown to over forty fields. Those that this crate computes are parsed;
//! those that never change the results of a trained adapter are passed over; every other field,
//! known or not yet invented, must be empty (`null`, `false`, `""`, `[]`, `{}`).

use std::path::Path;

use serde_json::Value;

use super::fields::Fields;
use crate::adapter::AdapterFile;
use crate::config::{LoraConfig, LoraInit, SEQ_CLS_HEADS};
use crate::error::LoraError;
use crate::patterns::PatternMap;
use crate::targets::Targets;

/// Fields that say nothing about the results.
const PASSED_OVER: [&str; 7] = [
    "auto_mapping",
    "inference_mode",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
];

/// Fields that must be empty, and what they stand for.
const MUST_BE_EMPTY: [(&str, &str); 20] = [
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("corda_config", "CorDA, which changes the base weights"),
    ("enable_lora", "fused projections"),
    ("ensure_weight_tying", "adapters tied to the embeddings"),
    ("eva_config", "EVA"),
    ("fan_in_fan_out", "weights stored as [in, out]"),
    ("kasa_config", "KaSA, which changes the base weights"),
    ("layer_replication", "repeated layers"),
    ("loftq_config", "LoftQ, which quantises the base weights"),
    ("lora_bias", "a bias on B"),
    ("lora_ga_config", "LoRA-GA, which changes the base weights"),
    ("megatron_config", "Megatron's parallel layers"),
    ("monteclora_config", "Monte Carlo LoRA"),
    ("target_parameters", "LoRA on bare parameters"),
    ("trainable_token_indices", "trained token embeddings"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("use_dora", "DoRA"),
    ("use_qalora", "QALoRA"),
    ("velora_config", "VeLoRA"),
];

/// Parses the file into an adapter that has no tensors yet.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<AdapterFile, LoraError> {
    let not_json = |reason: String| LoraError::Json {
        path: path.to_path_buf(),
        reason,
    };
    let fields = match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(not_json("it holds some other JSON value".to_owned())),
        Err(error) => return Err(not_json(error.to_string())),
    };
    let mut fields = Fields {
        path: path.to_path_buf(),
        fields,
    };
    fields.check_kind()?;
    let adapter = fields.adapter()?;
    fields.check_rest()?;
    adapter
        .config
        .validate()
        .map_err(|error| fields.located(error))?;
    Ok(adapter)
}

impl Fields {
    /// Only LoRA proper, with no bias trained, and an initialisation that left the base alone.
    fn check_kind(&mut self) -> Result<(), LoraError> {
        let kind = self.take("peft_type");
        match kind.as_str() {
            Some("LORA") => {}
            Some(_) => return Err(self.unsupported("peft_type", &kind, "only LORA is")),
            None => {
                let problem = "expected \"LORA\"; is this a PEFT adapter's configuration?";
                return Err(self.bad("peft_type", &kind, problem));
            }
        }
        let bias = self.take("bias");
        match bias {
            Value::Null => {}
            Value::String(ref text) if text == "none" => {}
            _ => return Err(self.unsupported("bias", &bias, "trained biases")),
        }
        Ok(())
    }

    fn adapter(&mut self) -> Result<AdapterFile, LoraError> {
        let rank = self.take("r");
        let rank = self.integer("r", &rank)?;
        let alpha = self.take("lora_alpha");
        let alpha = self.number("lora_alpha", &alpha)?;
        let Some(targets) = self.targets("target_modules")? else {
            let problem = "expected a list of names or a regular expression";
            return Err(self.bad("target_modules", &Value::Null, problem));
        };
        let task_type = self.text("task_type")?;
        let mut config = LoraConfig::new(rank, alpha, targets);
        config.dropout = match self.take("lora_dropout") {
            Value::Null => 0.0,
            value => self.number("lora_dropout", &value)?,
        };
        config.use_rslora = self.flag("use_rslora")?;
        config.exclude = self.targets("exclude_modules")?;
        config.rank_pattern = self.patterns("rank_pattern", Self::integer)?;
        config.alpha_pattern = self.patterns("alpha_pattern", Self::number)?;
        config.layers_to_transform = self.layers()?;
        config.layers_pattern = self.strings("layers_pattern")?;
        config.modules_to_save = self.modules_to_save(task_type.as_deref())?;
        config.init = self.init()?;
        let mut adapter = AdapterFile::new(config);
        adapter.task_type = task_type;
        adapter.base_model = self.text("base_model_name_or_path")?;
        adapter.revision = self.text("revision")?;
        Ok(adapter)
    }

    fn init(&mut self) -> Result<LoraInit, LoraError> {
        let init = self.take("init_lora_weights");
        match &init {
            Value::Null | Value::Bool(_) => Ok(LoraInit::KaimingUniform),
            Value::String(text) => match text.to_lowercase().as_str() {
                "gaussian" => Ok(LoraInit::GaussianByRank),
                // Starts A and B elsewhere but leaves the base weights as they are.
                "orthogonal" => Ok(LoraInit::KaimingUniform),
                _ => Err(self.unsupported(
                    "init_lora_weights",
                    &init,
                    "an initialisation that needs or changes the base weights",
                )),
            },
            _ => Err(self.bad("init_lora_weights", &init, "expected true, false or a name")),
        }
    }

    fn layers(&mut self) -> Result<Option<Vec<usize>>, LoraError> {
        const FIELD: &str = "layers_to_transform";
        match self.take(FIELD) {
            Value::Null => Ok(None),
            Value::Array(items) if items.is_empty() => Ok(None),
            Value::Array(items) => {
                let layers = items.iter().map(|item| self.integer(FIELD, item));
                layers.collect::<Result<_, _>>().map(Some)
            }
            value => Ok(Some(vec![self.integer(FIELD, &value)?])),
        }
    }

    /// For sequence classification PEFT saves the head whether or not it was asked to.
    fn modules_to_save(&mut self, task_type: Option<&str>) -> Result<Vec<String>, LoraError> {
        let mut modules: Vec<String> = Vec::new();
        let heads: &[&str] = match task_type {
            Some("SEQ_CLS") => &SEQ_CLS_HEADS,
            _ => &[],
        };
        let given = self.strings("modules_to_save")?;
        for module in given
            .into_iter()
            .chain(heads.iter().map(|h| (*h).to_owned()))
        {
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
        Ok(modules)
    }

    fn targets(&mut self, field: &'static str) -> Result<Option<Targets>, LoraError> {
        match self.take(field) {
            Value::Null => Ok(None),
            Value::String(text) if text.is_empty() => Ok(None),
            Value::String(text) => Ok(Some(Targets::from_pattern(&text))),
            Value::Array(items) if items.is_empty() => Ok(None),
            value => Ok(Some(Targets::names(self.list(field, &value)?))),
        }
    }

    fn patterns<T>(
        &mut self,
        field: &'static str,
        convert: impl Fn(&Self, &str, &Value) -> Result<T, LoraError>,
    ) -> Result<PatternMap<T>, LoraError> {
        match self.take(field) {
            Value::Null => Ok(PatternMap::default()),
            Value::Object(entries) => entries
                .iter()
                .map(|(pattern, value)| Ok((pattern.clone(), convert(self, field, value)?)))
                .collect(),
            value => Err(self.bad(field, &value, "expected an object from patterns to numbers")),
        }
    }

    /// Everything not parsed must be empty or of no consequence.
    fn check_rest(&self) -> Result<(), LoraError> {
        for (field, value) in &self.fields {
            if PASSED_OVER.contains(&field.as_str()) || is_empty(value) {
                continue;
            }
            let known = MUST_BE_EMPTY.iter().find(|(name, _)| name == field);
            let what = known.map_or("a field this version does not know", |(_, what)| what);
            return Err(self.unsupported(field, value, what));
        }
        Ok(())
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

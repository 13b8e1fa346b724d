//! Writing `adapter_config.json`, with restraint: only the fields that every PEFT knows.

use serde_json::{Map, Value, json};

use crate::adapter::AdapterFile;
use crate::config::LoraInit;
use crate::patterns::PatternMap;
use crate::targets::Targets;

/// The text of `adapter_config.json`, keys sorted.
pub(super) fn config(adapter: &AdapterFile) -> String {
    let config = &adapter.config;
    // PEFT expands all-linear by its own rules; the names themselves leave no doubt.
    let (targets, exclude) = match &config.targets {
        Targets::AllLinear => (Targets::names(adapter.factors.keys().cloned()), None),
        targets => (targets.clone(), config.exclude.clone()),
    };
    let layers_pattern = match config.layers_pattern.as_slice() {
        [] => Value::Null,
        patterns => json!(patterns),
    };
    let mut fields = vec![
        (
            "alpha_pattern",
            patterns_json(&config.alpha_pattern, |a| number_json(*a)),
        ),
        ("base_model_name_or_path", json!(adapter.base_model)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        (
            "init_lora_weights",
            match config.init {
                LoraInit::KaimingUniform => json!(true),
                LoraInit::Gaussian(_) | LoraInit::GaussianByRank => json!("gaussian"),
            },
        ),
        ("layers_pattern", layers_pattern),
        ("layers_to_transform", json!(config.layers_to_transform)),
        ("lora_alpha", number_json(config.alpha)),
        ("lora_dropout", json!(config.dropout)),
        (
            "modules_to_save",
            match config.modules_to_save.as_slice() {
                [] => Value::Null,
                modules => json!(modules),
            },
        ),
        ("peft_type", json!("LORA")),
        ("r", json!(config.rank)),
        (
            "rank_pattern",
            patterns_json(&config.rank_pattern, |r| json!(r)),
        ),
        ("revision", json!(adapter.revision)),
        ("target_modules", json!(targets)),
        ("task_type", json!(adapter.task_type)),
        ("use_rslora", json!(config.use_rslora)),
    ];
    if let Some(exclude) = exclude {
        // Known to PEFT since 0.14 only, so written only where it is needed.
        fields.push(("exclude_modules", json!(exclude)));
    }
    fields.sort_by_key(|(name, _)| *name);
    let object: Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut text = format!("{:#}", Value::Object(object));
    text.push('\n');
    text
}

/// A whole number without a fraction, as PEFT types alpha.
fn number_json(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        json!(number as i64)
    } else {
        json!(number)
    }
}

fn patterns_json<T>(patterns: &PatternMap<T>, convert: impl Fn(&T) -> Value) -> Value {
    let entries = patterns.iter();
    Value::Object(
        entries
            .map(|(key, value)| (key.to_owned(), convert(value)))
            .collect(),
    )
}

//! What differs between the architectures by name only: prefixes, module names, the head.
//!
//! Everything that is a matter of names is asked here, so that the rest of the crate compares no
//! strings.

use std::fmt;

use lowburn_lora::{LoraConfig, Targets};

/// A family of encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// RoBERTa (Liu et al. 2019).
    Roberta,
    /// DeBERTa-v2 (He et al. 2021), with disentangled attention.
    DebertaV2,
}

impl Architecture {
    /// All architectures of this build.
    pub const ALL: [Self; 2] = [Self::Roberta, Self::DebertaV2];

    /// The value of `model_type` in config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::DebertaV2 => "deberta-v2",
        }
    }

    /// The first part of the encoder's tensor names.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Roberta => "roberta",
            Self::DebertaV2 => "deberta",
        }
    }

    /// The class that transformers loads a classifier with.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Roberta => "RobertaForSequenceClassification",
            Self::DebertaV2 => "DebertaV2ForSequenceClassification",
        }
    }

    /// The name of an attention projection (`query`, `key` or `value`) in this architecture.
    pub fn projection(self, name: &'static str) -> &'static str {
        match (self, name) {
            (Self::DebertaV2, "query") => "query_proj",
            (Self::DebertaV2, "key") => "key_proj",
            (Self::DebertaV2, "value") => "value_proj",
            (_, name) => name,
        }
    }

    /// The modules of the head, which every method trains and saves in full.
    pub fn head_modules(self) -> &'static [&'static str] {
        match self {
            Self::Roberta => &["classifier"],
            Self::DebertaV2 => &["classifier", "pooler"],
        }
    }

    /// The linear layer that gives the logits.
    pub fn output_layer(self) -> &'static str {
        match self {
            Self::Roberta => "classifier.out_proj",
            Self::DebertaV2 => "classifier",
        }
    }

    /// A LoRA configuration as this architecture understands it: `query`, `key` and `value` among
    /// the targets mean its own projections, and its whole head is saved in full.
    ///
    /// PEFT trains and saves only the classifier of DeBERTa-v2 unless told otherwise, although the
    /// pooler is as new as the classifier and would stay random.
    pub fn lora_config(self, mut config: LoraConfig) -> LoraConfig {
        for targets in [Some(&mut config.targets), config.exclude.as_mut()] {
            if let Some(Targets::Names(names)) = targets {
                *names = std::mem::take(names)
                    .into_iter()
                    .map(|name| self.own_name(name))
                    .collect();
            }
        }
        for module in self.head_modules() {
            if !config.modules_to_save.iter().any(|known| known == module) {
                config.modules_to_save.push((*module).to_owned());
            }
        }
        config
    }

    fn own_name(self, name: String) -> String {
        ["query", "key", "value"]
            .into_iter()
            .find(|known| *known == name)
            .map_or(name, |known| self.projection(known).to_owned())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

/// True for the name of a tensor or module of the classification head, in any architecture.
pub fn is_head(name: &str) -> bool {
    matches!(name.split('.').next(), Some("classifier" | "pooler"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_translated_and_the_head_is_saved() {
        let config = LoraConfig::new(4, 8.0, Targets::names(["query", "value", "dense"]));
        let roberta = Architecture::Roberta.lora_config(config.clone());
        assert_eq!(roberta, config);
        let deberta = Architecture::DebertaV2.lora_config(config);
        assert_eq!(deberta.targets.to_string(), "dense,query_proj,value_proj");
        assert_eq!(deberta.modules_to_save, ["classifier", "score", "pooler"]);
        let again = Architecture::DebertaV2.lora_config(deberta.clone());
        assert_eq!(again, deberta);
        let pattern = LoraConfig::new(4, 8.0, ".*query".parse().unwrap());
        let kept = Architecture::DebertaV2.lora_config(pattern.clone());
        assert_eq!(kept.targets, pattern.targets);
    }

    #[test]
    fn heads_are_told_from_encoders() {
        assert!(is_head("classifier.out_proj.weight"));
        assert!(is_head("pooler.dense"));
        assert!(!is_head("roberta.pooler.dense.weight"));
        assert!(!is_head("deberta.encoder.layer.0.output.dense.weight"));
    }
}

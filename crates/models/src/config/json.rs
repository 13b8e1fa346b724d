//! The other direction: a configuration as the config.json of a classifier.

use serde_json::{Map, Value};

use super::fields::problem_type;
use super::{Family, ModelConfig};

impl ModelConfig {
    /// The config.json of a sequence classifier with these labels, every other field as it was read unless it
    /// would be untrue: a `problem_type` of another head, and a LayerNorm that is not saved.
    pub fn to_classifier_json(&self, num_labels: usize, labels: Option<&[String]>) -> Value {
        let mut raw = self.raw.clone();
        raw.insert(
            "architectures".into(),
            serde_json::json!([self.architecture().class_name()]),
        );
        raw.remove("torch_dtype");
        raw.insert("dtype".into(), "float32".into());
        raw.remove("num_labels");
        let name = |i: usize| match labels {
            Some(labels) if labels.len() == num_labels => labels[i].clone(),
            _ => format!("LABEL_{i}"),
        };
        let names: Vec<String> = (0..num_labels).map(name).collect();
        let by_id: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (i.to_string(), n.clone().into()))
            .collect();
        let by_name: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (n.clone(), i.into()))
            .collect();
        raw.insert("id2label".into(), by_id.into());
        raw.insert("label2id".into(), by_name.into());
        if raw.get("problem_type").is_some_and(|old| !old.is_null()) {
            raw.insert("problem_type".into(), problem_type(num_labels).into());
        }
        if matches!(&self.family, Family::DebertaV2(own) if own.idle_norm) {
            raw.insert("norm_rel_ebd".into(), "none".into());
        }
        raw.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_problem_is_that_of_the_head_which_is_saved() {
        let (one, more) = ("regression", "single_label_classification");
        for (found, read, saved, expected) in [
            (1, json!(one), 1, json!(one)),
            (1, json!(one), 3, json!(more)),
            (3, json!(more), 2, json!(more)),
            (3, json!(more), 1, json!(one)),
            (3, json!(null), 1, json!(null)),
        ] {
            let config = json!({
                "model_type": "roberta", "vocab_size": 99, "max_position_embeddings": 66, "hidden_size": 8,
                "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
                "num_labels": found, "problem_type": read,
            });
            let text = config.to_string();
            let config = ModelConfig::parse(text.as_bytes(), Path::new("config.json")).unwrap();
            let written = config.to_classifier_json(saved, None);
            assert_eq!(written["problem_type"], expected, "{found} to {saved}");
            let again = written.to_string();
            ModelConfig::parse(again.as_bytes(), Path::new("config.json")).unwrap();
        }
    }
}

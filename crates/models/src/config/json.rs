//! The other direction: a configuration as the config.json of a classifier.

use serde_json::{Map, Value};

use super::ModelConfig;

impl ModelConfig {
    /// The config.json of a sequence classifier with these labels, every other field as it was read.
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
        raw.into()
    }
}

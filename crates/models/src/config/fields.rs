//! Typed access to the fields of a config.json; whatever is wrong is named with its value.

use std::path::Path;

use serde_json::{Map, Value};

use super::Activation;
use crate::ModelError;

/// Larger than any size in any encoder ever published: beyond it a file is damaged.
const LARGEST: usize = 1 << 24;

/// The largest epsilon and the largest standard deviation of new weights that make any sense.
const LARGEST_REAL: f64 = 10.0;

/// What transformers calls the problem of a head of this many labels, and chooses its loss by.
pub(super) fn problem_type(labels: usize) -> &'static str {
    match labels {
        1 => "regression",
        _ => "single_label_classification",
    }
}

/// Typed access to the fields of a config.json.
pub(super) struct Fields<'a> {
    raw: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Fields<'a> {
    /// The fields of the file at `path`.
    pub(super) fn new(raw: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { raw, path }
    }

    /// All of them, as they are.
    pub(super) fn raw(&self) -> &Map<String, Value> {
        self.raw
    }

    pub(super) fn wrong(&self, problem: String) -> ModelError {
        ModelError::Config {
            path: self.path.to_owned(),
            problem,
        }
    }

    fn missing(&self, name: &str) -> ModelError {
        self.wrong(format!("{name} is missing; get the complete file again"))
    }

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.raw.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn whole(&self, name: &str, default: Option<usize>) -> Result<usize, ModelError> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| self.missing(name));
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.filter(|n| *n <= LARGEST).ok_or_else(|| {
            self.wrong(format!(
                "{name} is {value}; expected a whole number up to {LARGEST}"
            ))
        })
    }

    pub(super) fn size(&self, name: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match self.whole(name, default)? {
            0 => Err(self.wrong(format!("{name} is 0; expected at least 1"))),
            n => Ok(n),
        }
    }

    fn number(&self, name: &str, default: Option<f64>) -> Result<f64, ModelError> {
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| self.missing(name));
        };
        value
            .as_f64()
            .filter(|n| n.is_finite())
            .ok_or_else(|| self.wrong(format!("{name} is {value}; expected a number")))
    }

    pub(super) fn probability(&self, name: &str, default: Option<f64>) -> Result<f64, ModelError> {
        let p = self.number(name, default)?;
        if (0.0..1.0).contains(&p) {
            Ok(p)
        } else {
            Err(self.wrong(format!(
                "{name} is {p}; a dropout probability lies in [0, 1)"
            )))
        }
    }

    pub(super) fn positive(&self, name: &str, default: Option<f64>) -> Result<f64, ModelError> {
        let n = self.number(name, default)?;
        // As f32, which is what it is used as: 1e-300 would be 0.
        if n as f32 > 0.0 && n <= LARGEST_REAL {
            Ok(n)
        } else {
            Err(self.wrong(format!(
                "{name} is {n}; expected a positive number up to {LARGEST_REAL}"
            )))
        }
    }

    /// A whole number for which files write -1 to say "none".
    pub(super) fn whole_or_negative(&self, name: &str) -> Result<Option<usize>, ModelError> {
        match self.get(name) {
            Some(value) if value.as_i64().is_some_and(|n| n < 0) => Ok(None),
            Some(_) => self.whole(name, None).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => Err(self.wrong(format!("{name} is {value}; expected true or false"))),
        }
    }

    pub(super) fn activation(
        &self,
        name: &str,
        default: Activation,
    ) -> Result<Activation, ModelError> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        serde_json::from_value(value.clone()).map_err(|_| {
            self.wrong(format!(
                "{name} is {value}; supported are gelu, gelu_new, gelu_pytorch_tanh, relu, silu, swish and tanh"
            ))
        })
    }

    pub(super) fn refuse_unless(&self, name: &str, allowed: &[Value]) -> Result<(), ModelError> {
        match self.get(name) {
            Some(value) if !allowed.contains(value) => {
                let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
                let expected = match allowed.as_slice() {
                    [] => "it must be absent".to_owned(),
                    allowed => format!("it must be {}", allowed.join(" or ")),
                };
                Err(self.wrong(format!(
                    "{name} is {value}, which is not supported; {expected}"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn labels(&self) -> Result<Option<Vec<String>>, ModelError> {
        let Some(value) = self.get("id2label") else {
            return Ok(None);
        };
        let Some(map) = value.as_object() else {
            return Err(self.wrong(format!(
                "id2label is {value}; expected an object of id to name"
            )));
        };
        if map.is_empty() {
            return Err(
                self.wrong("id2label is {}; expected at least one label, or none of it".into())
            );
        }
        let mut names = vec![None; map.len()];
        for (id, name) in map {
            let slot = id.parse::<usize>().ok().and_then(|id| names.get_mut(id));
            match (slot, name.as_str()) {
                (Some(slot @ None), Some(name)) => *slot = Some(name.to_owned()),
                _ => {
                    return Err(self.wrong(format!(
                        "id2label has {id:?}: {name}; expected the ids 0 to {} with names",
                        map.len() - 1
                    )));
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Whether `problem_type`, if it is there, asks for the loss that the number of labels decides here. As in
    /// transformers, a file that says no number has 2.
    pub(super) fn check_problem(&self, labels: Option<usize>) -> Result<(), ModelError> {
        let known: [Value; 2] = [1, 2].map(|labels| problem_type(labels).into());
        self.refuse_unless("problem_type", &known)?;
        let labels = labels.unwrap_or(2);
        match self.get("problem_type") {
            Some(value) if value != problem_type(labels) => Err(self.wrong(format!(
                "problem_type is {value} and the number of labels {labels} (id2label, num_labels; 2 without \
                 them); a regression has 1 label and a classification more, correct the wrong one"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn num_labels(&self) -> Result<Option<usize>, ModelError> {
        match (
            self.get("id2label").and_then(Value::as_object),
            self.get("num_labels"),
        ) {
            (Some(map), _) => Ok(Some(map.len())),
            (None, Some(_)) => self.size("num_labels", None).map(Some),
            (None, None) => Ok(None),
        }
    }
}

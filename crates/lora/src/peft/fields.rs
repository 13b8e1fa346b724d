//! The fields of a JSON object, taken one by one with their types checked.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::LoraError;

/// The fields not yet looked at.
pub(super) struct Fields {
    pub(super) path: PathBuf,
    pub(super) fields: Map<String, Value>,
}

impl Fields {
    pub(super) fn take(&mut self, field: &str) -> Value {
        self.fields.remove(field).unwrap_or(Value::Null)
    }

    pub(super) fn bad(&self, field: &str, value: &Value, problem: &str) -> LoraError {
        LoraError::BadField {
            path: self.path.clone(),
            field: field.to_owned(),
            value: short(value),
            problem: problem.to_owned(),
        }
    }

    pub(super) fn unsupported(&self, field: &str, value: &Value, what: &str) -> LoraError {
        LoraError::Unsupported {
            path: self.path.clone(),
            field: field.to_owned(),
            value: short(value),
            what: what.to_owned(),
        }
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<bool, LoraError> {
        match self.take(field) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            value => Err(self.bad(field, &value, "expected true or false")),
        }
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, LoraError> {
        match self.take(field) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            value => Err(self.bad(field, &value, "expected a string or null")),
        }
    }

    /// A list of strings, or one string, or nothing.
    pub(super) fn strings(&mut self, field: &str) -> Result<Vec<String>, LoraError> {
        match self.take(field) {
            Value::Null => Ok(Vec::new()),
            Value::String(text) if text.is_empty() => Ok(Vec::new()),
            Value::String(text) => Ok(vec![text]),
            value => self.list(field, &value),
        }
    }

    pub(super) fn list(&self, field: &str, value: &Value) -> Result<Vec<String>, LoraError> {
        let items = value.as_array().map(Vec::as_slice);
        let strings = items.and_then(|items| {
            let strings = items.iter().map(|item| item.as_str().map(str::to_owned));
            strings.collect::<Option<Vec<_>>>()
        });
        strings.ok_or_else(|| self.bad(field, value, "expected a list of strings"))
    }

    pub(super) fn integer(&self, field: &str, value: &Value) -> Result<usize, LoraError> {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.bad(field, value, "expected a whole number"))
    }

    pub(super) fn number(&self, field: &str, value: &Value) -> Result<f64, LoraError> {
        let number = value.as_f64();
        number.ok_or_else(|| self.bad(field, value, "expected a number"))
    }

    /// A validation error under the name the field has in the file.
    pub(super) fn located(&self, error: LoraError) -> LoraError {
        let (field, value, problem) = match error {
            LoraError::InvalidValue { field, value, rule } => (field, value, rule.to_owned()),
            LoraError::InvalidPattern {
                field,
                pattern,
                reason,
            } => (field, format!("{pattern:?}"), reason),
            other => return other,
        };
        let field = match field {
            "rank" => "r",
            "alpha" => "lora_alpha",
            "dropout" => "lora_dropout",
            "targets" => "target_modules",
            same => same,
        };
        LoraError::BadField {
            path: self.path.clone(),
            field: field.to_owned(),
            value,
            problem,
        }
    }
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST).chain("...".chars()).collect()
    }
}

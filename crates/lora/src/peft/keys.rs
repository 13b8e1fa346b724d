//! Tensor names in PEFT files, and the plain names they stand for.

use std::path::Path;

use super::as_f32;
use crate::adapter::AdapterFile;
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::files::Tensors;
use crate::matcher::Matcher;

/// What PEFT puts before every name of the base model.
pub(super) const PREFIX: &str = "base_model.model.";

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The A of a module.
    A,
    /// The B of a module.
    B,
    /// A parameter of a module saved in full.
    Saved,
}

/// Reads the names of one file.
pub(super) struct Keys<'a> {
    path: &'a Path,
    matcher: Matcher<'a>,
    modules_to_save: &'a [String],
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &'a Path, config: &'a LoraConfig) -> Result<Self, LoraError> {
        Ok(Self {
            path,
            matcher: Matcher::new(config)?,
            modules_to_save: &config.modules_to_save,
        })
    }

    /// What a tensor is, and of which module or parameter.
    pub(super) fn parse(&self, key: &str) -> Result<(Part, String), LoraError> {
        let bad = |problem: String| LoraError::tensor(self.path, key, problem);
        let Some(name) = key.strip_prefix(PREFIX) else {
            return Err(bad(format!(
                "PEFT names begin with {PREFIX:?}; a loralib checkpoint is read by its own reader (convert it first)"
            )));
        };
        for part in [".base_layer.", ".original_module."] {
            if format!(".{name}").contains(part) {
                return Err(bad(
                    "this is the state of a whole PEFT model, not of its adapter; save it with save_pretrained"
                        .to_owned(),
                ));
            }
        }
        if let Some((module, rest)) = split_lora(name) {
            return self.factor(key, module, rest);
        }
        let parameter = without_wrapper(name);
        if self.matcher.is_saved(&parameter) {
            return Ok((Part::Saved, parameter));
        }
        let mut problem = format!(
            "neither a LoRA factor nor part of modules_to_save {:?}",
            self.modules_to_save
        );
        if name.ends_with(".bias") {
            problem.push_str("; trained biases (bias = \"all\") are not implemented");
        }
        Err(bad(problem))
    }

    /// A tensor whose name holds `lora_`: `rest` begins there.
    fn factor(&self, key: &str, module: &str, rest: &str) -> Result<(Part, String), LoraError> {
        let unsupported = |what: &str| LoraError::Unsupported {
            path: self.path.to_path_buf(),
            field: "tensor".to_owned(),
            value: key.to_owned(),
            what: what.to_owned(),
        };
        let (part, tail) = if let Some(tail) = rest.strip_prefix("lora_A.") {
            (Part::A, tail)
        } else if let Some(tail) = rest.strip_prefix("lora_B.") {
            (Part::B, tail)
        } else {
            return Err(unsupported(match rest.split('.').next() {
                Some("lora_magnitude_vector") => "DoRA",
                Some("lora_embedding_A" | "lora_embedding_B") => "LoRA on embeddings",
                Some("lora_A" | "lora_B" | "lora_E") => "AdaLoRA",
                _ => "a variant of LoRA",
            }));
        };
        match tail {
            "weight" | "default.weight" => Ok((part, module.to_owned())),
            "bias" | "default.bias" => Err(unsupported("a bias on B, lora_bias")),
            _ => Err(LoraError::tensor(
                self.path,
                key,
                "expected .weight after lora_A or lora_B (one file holds one adapter)",
            )),
        }
    }
}

/// The module and what follows, for a name with a part that begins with `lora_`.
fn split_lora(name: &str) -> Option<(&str, &str)> {
    let dot = name.find(".lora_")?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Takes PEFT's wrapper out of a name, which some early versions left in:
/// `classifier.modules_to_save.default.weight` is `classifier.weight`.
fn without_wrapper(name: &str) -> String {
    let Some((module, rest)) = name.split_once(".modules_to_save.") else {
        return name.to_owned();
    };
    let parameter = rest.strip_prefix("default.").unwrap_or(rest);
    format!("{module}.{parameter}")
}

/// Every tensor of an adapter under its name in the file.
pub(super) fn named_tensors(adapter: &AdapterFile) -> Result<Tensors, LoraError> {
    let matcher = Matcher::new(&adapter.config)?;
    let mut tensors = Tensors::new();
    for (module, factors) in &adapter.factors {
        for (half, tensor) in [("lora_A", &factors.a), ("lora_B", &factors.b)] {
            tensors.insert(format!("{PREFIX}{module}.{half}.weight"), as_f32(tensor));
        }
    }
    for (parameter, tensor) in &adapter.saved {
        if !matcher.is_saved(parameter) {
            return Err(LoraError::Inconsistent {
                problem: format!(
                    "{parameter} is to be saved, but modules_to_save {:?} does not name its module",
                    adapter.config.modules_to_save
                ),
            });
        }
        tensors.insert(format!("{PREFIX}{parameter}"), tensor.clone());
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str) -> Result<(Part, String), String> {
        let config = LoraConfig::new(2, 4.0, "query".parse().unwrap());
        let keys = Keys::new(Path::new("w"), &config).unwrap();
        keys.parse(key).map_err(|error| error.to_string())
    }

    #[test]
    fn names_of_every_version() {
        let ok = |part, name: &str| Ok((part, name.to_owned()));
        let b = "base_model.model.";
        assert_eq!(
            parse(&format!("{b}l.0.query.lora_A.weight")),
            ok(Part::A, "l.0.query")
        );
        assert_eq!(
            parse(&format!("{b}l.0.query.lora_B.default.weight")),
            ok(Part::B, "l.0.query")
        );
        for name in [
            "classifier.dense.weight",
            "classifier.modules_to_save.dense.weight",
            "classifier.modules_to_save.default.dense.weight",
        ] {
            let key = format!("{b}{name}");
            assert_eq!(parse(&key), ok(Part::Saved, "classifier.dense.weight"));
        }
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        for (name, expected) in [
            ("l.query.lora_magnitude_vector", "DoRA"),
            ("l.query.lora_embedding_A", "embeddings"),
            ("l.query.lora_B.bias", "lora_bias"),
            ("l.query.lora_E", "AdaLoRA"),
            ("l.query.lora_A", "AdaLoRA"),
            ("l.query.lora_diag", "variant of LoRA"),
            ("l.query.lora_A.other.weight", "one adapter"),
            ("l.query.bias", "trained biases"),
            ("l.query.weight", "neither a LoRA factor"),
            ("l.query.base_layer.weight", "save_pretrained"),
            ("classifier.original_module.weight", "save_pretrained"),
        ] {
            let error = parse(&format!("base_model.model.{name}")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse("l.query.lora_A").unwrap_err().contains("loralib"));
    }
}

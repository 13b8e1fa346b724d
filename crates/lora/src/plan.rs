//! From a configuration and a model's names to the adapters of that model.

use std::collections::{BTreeMap, BTreeSet};

use fancy_regex::Regex;

use crate::config::{LoraConfig, ResolvedAdapter};
use crate::error::LoraError;
use crate::matcher::{Matcher, is_match};
use crate::names::{hint, is_suffix, last_part, listed};
use crate::targets::Targets;

impl LoraConfig {
    /// The adapters of a model, given the full name of every linear layer that may get one
    /// (the head need not be among them).
    ///
    /// # Errors
    ///
    /// An invalid configuration; a target name, rank pattern or alpha pattern that fits none of
    /// the layers (the message has near misses); a head as a target; nothing left to adapt.
    pub fn plan(&self, modules: &[String]) -> Result<BTreeMap<String, ResolvedAdapter>, LoraError> {
        self.validate()?;
        let matcher = Matcher::new(self)?;
        let known = || modules.iter().map(String::as_str);
        if let Targets::Names(names) = &self.targets {
            for name in names {
                if matcher.is_saved(name) {
                    return Err(LoraError::TargetIsHead { name: name.clone() });
                }
                if !known().any(|module| is_suffix(module, name)) {
                    return Err(unknown("target", name, known()));
                }
            }
        }
        let plan = matcher.resolve_all(known());
        if plan.is_empty() {
            let parts: BTreeSet<&str> = known().map(last_part).collect();
            return Err(LoraError::NothingMatched {
                targets: format!("{:?}", self.targets.to_string()),
                hint: format!("it has {}", listed(parts.into_iter())),
            });
        }
        let adapted = || plan.keys().map(String::as_str);
        let unused = |pattern: &Regex| !adapted().any(|module| is_match(pattern, module));
        for ((pattern, _), (key, _)) in matcher.ranks.iter().zip(self.rank_pattern.iter()) {
            if unused(pattern) {
                return Err(unknown("rank_pattern", key, adapted()));
            }
        }
        for ((pattern, _), (key, _)) in matcher.alphas.iter().zip(self.alpha_pattern.iter()) {
            if unused(pattern) {
                return Err(unknown("alpha_pattern", key, adapted()));
            }
        }
        Ok(plan)
    }
}

pub(crate) fn unknown<'m>(
    field: &'static str,
    name: &str,
    known: impl IntoIterator<Item = &'m str>,
) -> LoraError {
    LoraError::UnknownTarget {
        field,
        name: name.to_owned(),
        hint: hint(name, known),
    }
}

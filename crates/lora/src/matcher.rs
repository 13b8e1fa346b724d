//! Which layers get an adapter, decided exactly as PEFT 0.21 decides it.
//!
//! PEFT asks four questions of a module's name, in this order: is it excluded, is it saved in
//! full, is it a target, and is it in a layer that was asked for
//! (`peft/tuners/tuners_utils.py`, `check_target_module_exists`). Rank and alpha then come from
//! the first pattern that matches the end of the name (`peft/utils/other.py`, `get_pattern_key`).
//! The regular expressions below are PEFT's own, character by character, including what looks
//! odd in them: names in `modules_to_save` and in `layers_pattern` are patterns, and a target
//! given by its full name ignores `layers_to_transform`.

use std::collections::{BTreeMap, BTreeSet};

use fancy_regex::{Regex, RegexBuilder};

use crate::config::{LoraConfig, ResolvedAdapter, SEQ_CLS_HEADS};
use crate::error::LoraError;
use crate::names::is_suffix;
use crate::targets::Targets;

/// A [`LoraConfig`] with its patterns compiled: resolves any number of names.
#[derive(Debug)]
pub struct Matcher<'a> {
    config: &'a LoraConfig,
    targets: Rule<'a>,
    exclude: Option<Rule<'a>>,
    saved: Vec<Regex>,
    layers: Vec<Regex>,
    pub(crate) ranks: Vec<(Regex, usize)>,
    pub(crate) alphas: Vec<(Regex, f64)>,
}

#[derive(Debug)]
enum Rule<'a> {
    Names(&'a BTreeSet<String>),
    Regex(Regex),
    AllLinear,
}

impl<'a> Rule<'a> {
    fn new(field: &'static str, targets: &'a Targets) -> Result<Self, LoraError> {
        Ok(match targets {
            Targets::Names(names) => Self::Names(names),
            Targets::Regex(pattern) => Self::Regex(full_match(field, pattern)?),
            Targets::AllLinear => Self::AllLinear,
        })
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| is_suffix(module, name)),
            Self::Regex(pattern) => is_match(pattern, module),
            Self::AllLinear => true,
        }
    }
}

impl<'a> Matcher<'a> {
    /// Compiles the patterns of a configuration.
    ///
    /// # Errors
    ///
    /// [`LoraError::InvalidPattern`] for a pattern that is not a regular expression.
    pub fn new(config: &'a LoraConfig) -> Result<Self, LoraError> {
        let saved = config.modules_to_save.iter().map(String::as_str);
        let heads: &[&str] = match config.targets {
            Targets::AllLinear => &SEQ_CLS_HEADS,
            _ => &[],
        };
        let saved = saved
            .chain(heads.iter().copied())
            .map(|m| compile("modules_to_save", m, format!(r"\A(?:(^|.*\.){m}($|\..*))")))
            .collect::<Result<_, _>>()?;
        let limited = config
            .layers_to_transform
            .as_ref()
            .is_some_and(|l| !l.is_empty());
        let layers = match config.layers_pattern.as_slice() {
            _ if !limited => Vec::new(),
            [] => vec![compile("", "", r"\A.*?\.[^.]*\.(?P<idx>\d+)\.".to_owned())?],
            patterns => patterns
                .iter()
                .map(|p| {
                    let full = format!(r"\A(?:(?:^|.*?\.){p}\.(?P<idx>\d+)\.)");
                    compile("layers_pattern", p, full)
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            config,
            targets: Rule::new("targets", &config.targets)?,
            exclude: match &config.exclude {
                Some(exclude) => Some(Rule::new("exclude_modules", exclude)?),
                None => None,
            },
            saved,
            layers,
            ranks: patterns("rank_pattern", config.rank_pattern.iter())?,
            alphas: patterns("alpha_pattern", config.alpha_pattern.iter())?,
        })
    }

    /// The adapter of the module of this name, or `None` if it gets none.
    pub fn resolve(&self, module: &str) -> Option<ResolvedAdapter> {
        if !self.is_target(module) {
            return None;
        }
        let rank = first(&self.ranks, module).unwrap_or(self.config.rank);
        let alpha = first(&self.alphas, module).unwrap_or(self.config.alpha);
        Some(ResolvedAdapter {
            rank,
            alpha,
            scale: self.config.scale(rank, alpha),
            dropout: self.config.dropout,
        })
    }

    /// `true` if the module (or one that holds it) is trained and saved in full.
    pub fn is_saved(&self, module: &str) -> bool {
        self.saved.iter().any(|saved| is_match(saved, module))
    }

    fn is_target(&self, module: &str) -> bool {
        if self
            .exclude
            .as_ref()
            .is_some_and(|rule| rule.matches(module))
            || self.is_saved(module)
        {
            return false;
        }
        self.targets.matches(module) && self.in_layers(module)
    }

    /// PEFT's `layers_to_transform`: the first number after the (named) list of layers.
    fn in_layers(&self, module: &str) -> bool {
        let full_name = matches!(self.targets, Rule::Names(names) if names.contains(module));
        if self.layers.is_empty() || full_name {
            return true;
        }
        let captured = self.layers.iter().find_map(|layer| {
            let found = layer.captures(module).ok().flatten()?;
            Some(found.name("idx")?.as_str().parse::<usize>())
        });
        let wanted = self
            .config
            .layers_to_transform
            .as_deref()
            .unwrap_or_default();
        matches!(captured, Some(Ok(index)) if wanted.contains(&index))
    }
}

impl Matcher<'_> {
    /// The adapters of every module that gets one.
    pub(crate) fn resolve_all<'m>(
        &self,
        modules: impl Iterator<Item = &'m str>,
    ) -> BTreeMap<String, ResolvedAdapter> {
        modules
            .filter_map(|module| Some((module.to_owned(), self.resolve(module)?)))
            .collect()
    }
}

fn patterns<'p, T: Copy + 'p>(
    field: &'static str,
    entries: impl Iterator<Item = (&'p str, &'p T)>,
) -> Result<Vec<(Regex, T)>, LoraError> {
    entries
        .map(|(key, value)| {
            let regex = compile(field, key, format!(r"\A(?:(.*\.)?({key})$)"))?;
            Ok((regex, *value))
        })
        .collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    let found = patterns.iter().find(|(regex, _)| is_match(regex, module));
    found.map(|(_, value)| *value)
}

pub(crate) fn full_match(field: &'static str, pattern: &str) -> Result<Regex, LoraError> {
    compile(field, pattern, format!(r"\A(?:{pattern})\z"))
}

/// Compiles `full`, but first `pattern` alone, so that nothing in it can close a group of ours.
fn compile(field: &'static str, pattern: &str, full: String) -> Result<Regex, LoraError> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .backtrack_limit(100_000)
            .build()
            .map_err(|error| LoraError::InvalidPattern {
                field,
                pattern: pattern.to_owned(),
                reason: error.to_string(),
            })
    };
    build(pattern)?;
    build(&full)
}

/// A pattern that runs out of its backtracking budget counts as no match.
pub(crate) fn is_match(pattern: &Regex, module: &str) -> bool {
    pattern.is_match(module).unwrap_or(false)
}

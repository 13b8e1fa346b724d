//! The hyperparameters of a LoRA adapter, and what they mean for one named layer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::LoraError;
use crate::matcher::Matcher;
use crate::patterns::PatternMap;
use crate::targets::Targets;

/// Ranks above this are taken for a mistake.
const MAX_RANK: usize = 1 << 16;

/// Heads that PEFT trains and saves in full for sequence classification.
pub const SEQ_CLS_HEADS: [&str; 2] = ["classifier", "score"];

/// Which layers get LoRA, and with which hyperparameters.
///
/// The fields mean what the fields of PEFT's `LoraConfig` mean; names of modules are plain dotted
/// strings. A configuration built by hand is checked by [`validate`](Self::validate); everything
/// that uses one checks it first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank r of the update, at least 1.
    pub rank: usize,
    /// Numerator of the scale: alpha / r, or alpha / sqrt(r) with `use_rslora`.
    pub alpha: f64,
    /// Probability of dropping an input of A while training, in [0, 1).
    #[serde(default)]
    pub dropout: f64,
    /// Rank-stabilised scaling, alpha / sqrt(r).
    #[serde(default)]
    pub use_rslora: bool,
    /// Which layers get an adapter.
    pub targets: Targets,
    /// Which of them do not after all.
    #[serde(default)]
    pub exclude: Option<Targets>,
    /// Ranks of layers that differ from `rank`; the first key that matches counts.
    #[serde(default)]
    pub rank_pattern: PatternMap<usize>,
    /// Alphas of layers that differ from `alpha`; the first key that matches counts.
    #[serde(default)]
    pub alpha_pattern: PatternMap<f64>,
    /// Only these layer numbers, with a list of names as targets.
    #[serde(default)]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names of the list of layers that `layers_to_transform` counts in; empty: any.
    #[serde(default)]
    pub layers_pattern: Vec<String>,
    /// Modules trained and saved in full. They never get LoRA, whatever the targets say.
    #[serde(default = "default_modules_to_save")]
    pub modules_to_save: Vec<String>,
    /// How A starts; B always starts at 0.
    #[serde(default)]
    pub init: LoraInit,
}

fn default_modules_to_save() -> Vec<String> {
    SEQ_CLS_HEADS.map(str::to_owned).to_vec()
}

/// Distribution that A is drawn from at the start (B is 0, so a fresh adapter changes nothing).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// Uniform in +-1/sqrt(inputs): Kaiming with a = sqrt(5), as loralib and PEFT do.
    #[default]
    KaimingUniform,
    /// Normal with this standard deviation (0.02 in the LoRA authors' DeBERTa code).
    Gaussian(f64),
    /// Normal with standard deviation 1/r, PEFT's `"gaussian"`.
    GaussianByRank,
}

impl LoraInit {
    /// Standard deviation of A at this rank if the distribution is normal, `None` if uniform.
    pub fn standard_deviation(self, rank: usize) -> Option<f64> {
        match self {
            Self::KaimingUniform => None,
            Self::Gaussian(std) => Some(std),
            Self::GaussianByRank => Some(1.0 / rank as f64),
        }
    }
}

impl FromStr for LoraInit {
    type Err = LoraError;

    /// `kaiming`, `gaussian` (standard deviation 1 / r, as in PEFT) or `gaussian:STD`.
    fn from_str(text: &str) -> Result<Self, LoraError> {
        let rule =
            "give kaiming, gaussian, or gaussian: and a standard deviation such as gaussian:0.02";
        match text.split_once(':') {
            None if text == "kaiming" => Ok(Self::KaimingUniform),
            None if text == "gaussian" => Ok(Self::GaussianByRank),
            Some(("gaussian", number)) => match number.parse() {
                Ok(std) if f64::is_finite(std) && std > 0.0 => Ok(Self::Gaussian(std)),
                _ => Err(invalid("lora-init", text, rule)),
            },
            _ => Err(invalid("lora-init", text, rule)),
        }
    }
}

impl fmt::Display for LoraInit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KaimingUniform => formatter.write_str("kaiming"),
            Self::GaussianByRank => formatter.write_str("gaussian"),
            Self::Gaussian(std) => write!(formatter, "gaussian:{std}"),
        }
    }
}

/// The hyperparameters of one layer's adapter, patterns applied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResolvedAdapter {
    /// Rank r.
    pub rank: usize,
    /// Alpha.
    pub alpha: f64,
    /// What A B is multiplied by: alpha / r, or alpha / sqrt(r).
    pub scale: f64,
    /// Probability of dropping an input of A while training.
    pub dropout: f64,
}

impl LoraConfig {
    /// A configuration with the given rank, alpha and targets; no dropout, no patterns, the head
    /// (`classifier`, `score`) saved in full.
    pub fn new(rank: usize, alpha: f64, targets: Targets) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            use_rslora: false,
            targets,
            exclude: None,
            rank_pattern: PatternMap::default(),
            alpha_pattern: PatternMap::default(),
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            modules_to_save: default_modules_to_save(),
            init: LoraInit::default(),
        }
    }

    /// Checks every value and every pattern.
    ///
    /// # Errors
    ///
    /// [`LoraError::InvalidValue`] or [`LoraError::InvalidPattern`] for the first bad one.
    pub fn validate(&self) -> Result<(), LoraError> {
        check_rank("rank", self.rank)?;
        for (_, rank) in self.rank_pattern.iter() {
            check_rank("rank_pattern", *rank)?;
        }
        check_alpha("alpha", self.alpha)?;
        for (_, alpha) in self.alpha_pattern.iter() {
            check_alpha("alpha_pattern", *alpha)?;
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(invalid("dropout", self.dropout, "it must be in [0, 1)"));
        }
        if let LoraInit::Gaussian(std) = self.init
            && !(std.is_finite() && std > 0.0)
        {
            return Err(invalid(
                "init",
                std,
                "the standard deviation must be a positive number",
            ));
        }
        self.check_targets()?;
        Matcher::new(self).map(|_| ())
    }

    fn check_targets(&self) -> Result<(), LoraError> {
        self.targets.check("targets")?;
        match &self.exclude {
            Some(Targets::AllLinear) => {
                return Err(invalid(
                    "exclude_modules",
                    "all-linear",
                    "that would leave nothing; give names or a regular expression",
                ));
            }
            Some(exclude) => exclude.check("exclude_modules")?,
            None => {}
        }
        let layers = self.layers_to_transform.as_deref().unwrap_or_default();
        if !layers.is_empty() && !matches!(self.targets, Targets::Names(_)) {
            return Err(invalid(
                "layers_to_transform",
                format!("{layers:?}"),
                "it works with a list of names as targets only; put the layers into the regular expression",
            ));
        }
        if !self.layers_pattern.is_empty() && layers.is_empty() {
            return Err(invalid(
                "layers_pattern",
                format!("{:?}", self.layers_pattern),
                "it needs layers_to_transform",
            ));
        }
        Ok(())
    }

    /// The adapter of the module of this name, or `None` if it gets none.
    ///
    /// A configuration that does not [`validate`](Self::validate) adapts nothing. To resolve many
    /// names use [`Matcher`], which compiles the patterns once.
    pub fn resolve(&self, module: &str) -> Option<ResolvedAdapter> {
        Matcher::new(self).ok()?.resolve(module)
    }

    /// The scale of an adapter of this rank and alpha under this configuration.
    pub fn scale(&self, rank: usize, alpha: f64) -> f64 {
        if self.use_rslora {
            alpha / (rank as f64).sqrt()
        } else {
            alpha / rank as f64
        }
    }
}

fn invalid(field: &'static str, value: impl fmt::Display, rule: &'static str) -> LoraError {
    LoraError::InvalidValue {
        field,
        value: value.to_string(),
        rule,
    }
}

fn check_rank(field: &'static str, rank: usize) -> Result<(), LoraError> {
    if (1..=MAX_RANK).contains(&rank) {
        Ok(())
    } else {
        Err(invalid(field, rank, "a rank is between 1 and 65536"))
    }
}

fn check_alpha(field: &'static str, alpha: f64) -> Result<(), LoraError> {
    if alpha.is_finite() && alpha != 0.0 {
        Ok(())
    } else {
        Err(invalid(
            field,
            alpha,
            "alpha must be a finite number other than 0 (the adapter is scaled by alpha / r)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> LoraConfig {
        LoraConfig::new(8, 16.0, "query,value".parse().unwrap())
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut LoraConfig), expected: &str) {
        let mut config = valid();
        change(&mut config);
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn bad_values_are_named() {
        valid().validate().unwrap();
        refused(|c| c.rank = 0, "rank is 0: a rank is between 1 and 65536");
        refused(|c| c.rank = usize::MAX, "rank is");
        refused(|c| c.alpha = f64::NAN, "alpha is NaN");
        refused(|c| c.alpha = f64::INFINITY, "alpha is inf");
        refused(|c| c.alpha = 0.0, "alpha is 0");
        refused(|c| c.dropout = 1.0, "dropout is 1: it must be in [0, 1)");
        refused(|c| c.dropout = -0.1, "dropout is -0.1");
        refused(|c| c.dropout = f64::NAN, "dropout is NaN");
        refused(|c| c.rank_pattern.insert("query", 0), "rank_pattern is 0");
        refused(
            |c| c.alpha_pattern.insert("query", f64::NAN),
            "alpha_pattern is NaN",
        );
        refused(|c| c.init = LoraInit::Gaussian(-1.0), "init is -1");
    }

    #[test]
    fn bad_targets_are_named() {
        refused(
            |c| c.targets = Targets::Regex("(".to_owned()),
            "targets holds \"(\"",
        );
        refused(
            |c| c.rank_pattern.insert("[", 4),
            "rank_pattern holds \"[\"",
        );
        refused(
            |c| c.targets = Targets::Names(Default::default()),
            "targets",
        );
        refused(|c| c.exclude = Some(Targets::AllLinear), "exclude_modules");
        refused(
            |c| c.layers_pattern = vec!["layer".to_owned()],
            "layers_pattern",
        );
        refused(
            |c| {
                c.targets = Targets::AllLinear;
                c.layers_to_transform = Some(vec![1]);
            },
            "layers_to_transform is [1]",
        );
    }

    #[test]
    fn initialisations_are_read_as_they_are_written() {
        for text in ["kaiming", "gaussian", "gaussian:0.02"] {
            assert_eq!(text.parse::<LoraInit>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "gauss",
            "gaussian:",
            "gaussian:0",
            "gaussian:NaN",
            "kaiming:1",
        ] {
            let message = text.parse::<LoraInit>().unwrap_err().to_string();
            assert!(message.contains("gaussian:0.02"), "{message}");
        }
    }

    #[test]
    fn scales() {
        let mut config = valid();
        assert_eq!(config.resolve("a.query").unwrap().scale, 2.0);
        config.use_rslora = true;
        assert_eq!(config.resolve("a.query").unwrap().scale, 16.0 / 8f64.sqrt());
        assert_eq!(LoraInit::GaussianByRank.standard_deviation(4), Some(0.25));
        assert_eq!(LoraInit::KaimingUniform.standard_deviation(4), None);
    }

    #[test]
    fn json_round_trip_keeps_the_order_of_patterns() {
        let mut config = valid();
        config.rank_pattern = [("z", 1), ("a", 2)].into_iter().collect();
        config.exclude = Some(Targets::Regex(".*key".to_owned()));
        config.init = LoraInit::Gaussian(0.02);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""rank_pattern":{"z":1,"a":2}"#), "{text}");
        assert!(text.contains(r#""targets":["query","value"]"#), "{text}");
        assert_eq!(serde_json::from_str::<LoraConfig>(&text).unwrap(), config);
    }
}

//! What a user says of the layers that shall get an adapter: names, a pattern, or all of them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::LoraError;
use crate::matcher::full_match;

/// The word for every linear layer except the head.
const ALL_LINEAR: &str = "all-linear";

/// Which modules are meant.
///
/// From text ([`FromStr`], the command line): `all-linear`, or names separated by commas, or, if
/// it contains any of `\ ^ $ * + ? ( ) [ ] { } |`, a regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every module whose full name is one of these or ends with a dot and one of these.
    Names(BTreeSet<String>),
    /// Every module whose full name matches this regular expression from start to end.
    Regex(String),
    /// Every linear layer but the head.
    AllLinear,
}

impl Targets {
    /// Targets by name.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    /// Targets as PEFT reads a string: the word `all-linear` or a regular expression.
    pub(crate) fn from_pattern(text: &str) -> Self {
        if text.to_lowercase() == ALL_LINEAR {
            Self::AllLinear
        } else {
            Self::Regex(text.to_owned())
        }
    }

    pub(crate) fn check(&self, field: &'static str) -> Result<(), LoraError> {
        let bad = |value: String, rule| LoraError::InvalidValue { field, value, rule };
        match self {
            Self::Names(names) if names.is_empty() => Err(bad(
                "an empty list".to_owned(),
                "name at least one layer, for example query,value",
            )),
            Self::Names(names) if names.iter().any(String::is_empty) => Err(bad(
                format!("{names:?}"),
                "one of the names is empty; write them as query,value",
            )),
            Self::Names(_) | Self::AllLinear => Ok(()),
            Self::Regex(pattern) => full_match(field, pattern).map(|_| ()),
        }
    }
}

impl FromStr for Targets {
    type Err = LoraError;

    fn from_str(text: &str) -> Result<Self, LoraError> {
        let text = text.trim();
        let targets = if text.to_lowercase() == ALL_LINEAR {
            Self::AllLinear
        } else if text.contains([
            '\\', '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|',
        ]) {
            Self::Regex(text.to_owned())
        } else {
            Self::names(text.split(',').map(str::trim))
        };
        targets.check("targets")?;
        Ok(targets)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                formatter.write_str(&names.join(","))
            }
            Self::Regex(pattern) => formatter.write_str(pattern),
            Self::AllLinear => formatter.write_str(ALL_LINEAR),
        }
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Regex(pattern) => serializer.serialize_str(pattern),
            Self::AllLinear => serializer.serialize_str(ALL_LINEAR),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of names, or a regular expression")]
        enum Either {
            Names(BTreeSet<String>),
            Pattern(String),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Names(names) => Self::Names(names),
            Either::Pattern(text) => Self::from_pattern(&text),
        })
    }
}

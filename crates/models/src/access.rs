//! Names of the methods, for command lines and messages.

use std::fmt;
use std::str::FromStr;

use crate::adapt::Method;

impl Method {
    /// All methods, in the order of the help text.
    pub const ALL: [Self; 4] = [Self::Lora, Self::Full, Self::Head, Self::Bitfit];

    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Full => "full",
            Self::Head => "head",
            Self::Bitfit => "bitfit",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no method of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no method {given:?}; give lora, full, head or bitfit")]
pub struct UnknownMethod {
    /// What was given.
    pub given: String,
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(given: &str) -> Result<Self, UnknownMethod> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == given)
            .ok_or_else(|| UnknownMethod {
                given: given.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert!(
            "magic"
                .parse::<Method>()
                .unwrap_err()
                .to_string()
                .contains("lora")
        );
    }
}

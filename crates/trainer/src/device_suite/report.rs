//! What came out of the suite, as Markdown to be pasted into an issue.

use std::fmt;

use super::difference::Difference;
use super::tolerance::Tolerance;
use crate::device::DeviceName;

/// What a device computed, beside what it should have.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    pub(super) device: DeviceName,
    /// What there is to say of device and program, by name.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) checks: Vec<DeviceCheck>,
}

/// One row of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceCheck {
    /// On which model, with which method: `RoBERTa, lora`.
    pub on: String,
    /// What was compared: `gradients`.
    pub what: &'static str,
    /// With what.
    pub against: &'static str,
    /// How far apart they are, or why there is no answer.
    pub outcome: Result<Difference, String>,
    /// How far apart they may be.
    pub tolerance: Tolerance,
    /// Time of both sides together; `None` where the row above has it.
    pub seconds: Option<f64>,
}

impl DeviceCheck {
    /// Whether there is an answer and it is near enough.
    #[must_use]
    pub fn passed(&self) -> bool {
        let outcome = self.outcome.as_ref();
        outcome.is_ok_and(|difference| difference.relative <= self.tolerance.limit)
    }
}

impl DeviceReport {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(DeviceCheck::passed)
    }

    /// The checks, in the order in which they ran.
    #[must_use]
    pub fn checks(&self) -> &[DeviceCheck] {
        &self.checks
    }
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Device check of {}\n", self.device)?;
        for (name, fact) in &self.facts {
            writeln!(f, "- {name}: {fact}")?;
        }
        let head = "model | compared | with | difference | relative | limit | passed | seconds";
        writeln!(f, "\n| {head} |\n|---|---|---|--:|--:|--:|---|--:|")?;
        let mut reasons = Vec::new();
        for check in &self.checks {
            write_row(f, check, &mut reasons)?;
        }
        writeln!(
            f,
            "\nDifferences are the largest. Relative means over the largest number of a tensor (of gradients: at least a \
             hundredth of the largest of all), unless the limit's reason says otherwise. Limits:\n"
        )?;
        for (index, reason) in reasons.iter().enumerate() {
            writeln!(f, "- ({}) {reason}", letter(index))?;
        }
        for check in &self.checks {
            if let Err(message) = &check.outcome {
                writeln!(f, "\n{}, {}: {message}", check.on, check.what)?;
            }
        }
        let passed = self.checks.iter().filter(|check| check.passed()).count();
        writeln!(f, "\n{passed} of {} checks passed", self.checks.len())
    }
}

fn write_row(
    f: &mut fmt::Formatter<'_>,
    check: &DeviceCheck,
    reasons: &mut Vec<&'static str>,
) -> fmt::Result {
    let Tolerance { limit, reason } = check.tolerance;
    let index = reasons.iter().position(|known| *known == reason);
    let index = index.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    let [absolute, relative] = match &check.outcome {
        Ok(difference) => [difference.absolute, difference.relative].map(|d| format!("{d:.1e}")),
        Err(_) => ["-", "-"].map(str::to_owned),
    };
    let seconds = check.seconds.map_or("-".to_owned(), |s| format!("{s:.1}"));
    let passed = match check.passed() {
        true => "yes",
        false => "**no**",
    };
    let DeviceCheck {
        on, what, against, ..
    } = check;
    let letter = letter(index);
    writeln!(
        f,
        "| {on} | {what} | {against} | {absolute} | {relative} | {limit:.1e} ({letter}) | {passed} | {seconds} |"
    )
}

/// a, b, c, ...
fn letter(index: usize) -> char {
    char::from(b'a' + (index % 26) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        what: &'static str,
        outcome: Result<[f64; 2], &str>,
        reason: &'static str,
    ) -> DeviceCheck {
        DeviceCheck {
            on: "RoBERTa, lora".to_owned(),
            what,
            against: "flex, fused",
            outcome: match outcome {
                Ok([absolute, relative]) => Ok(Difference { absolute, relative }),
                Err(message) => Err(message.to_owned()),
            },
            tolerance: Tolerance {
                limit: 2e-4,
                reason,
            },
            seconds: (what == "logits").then_some(1.5),
        }
    }

    fn report(checks: Vec<DeviceCheck>) -> DeviceReport {
        DeviceReport {
            device: DeviceName::FLEX,
            facts: vec![("lowburn", "1.2.3".to_owned())],
            checks,
        }
    }

    #[test]
    fn a_report_is_markdown_with_its_reasons() {
        let report = report(vec![
            check("logits", Ok([1.2e-6, 2e-4]), "first"),
            check("gradients", Ok([3e-3, 2.1e-4]), "second"),
            check("losses", Err("no such kernel"), "first"),
        ]);
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "## Device check of flex");
        assert_eq!(lines[2], "- lowburn: 1.2.3");
        let rows = [
            "| RoBERTa, lora | logits | flex, fused | 1.2e-6 | 2.0e-4 | 2.0e-4 (a) | yes | 1.5 |",
            "| RoBERTa, lora | gradients | flex, fused | 3.0e-3 | 2.1e-4 | 2.0e-4 (b) | **no** | - |",
            "| RoBERTa, lora | losses | flex, fused | - | - | 2.0e-4 (a) | **no** | - |",
        ];
        assert_eq!(lines[6..9], rows);
        let columns = |line: &str| line.matches('|').count();
        assert!(lines[4..9].iter().all(|line| columns(line) == 9), "{text}");
        for line in [
            "- (a) first",
            "- (b) second",
            "RoBERTa, lora, losses: no such kernel",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
        assert_eq!(text.matches("first").count(), 1);
        assert_eq!(lines[lines.len() - 1], "1 of 3 checks passed");
        assert!(!report.passed());
    }

    #[test]
    fn a_report_passes_where_every_check_does() {
        let good = || check("logits", Ok([1.0, 1e-5]), "first");
        assert!(report(vec![good(), good()]).passed());
        assert!(!report(vec![good(), check("losses", Err("x"), "first")]).passed());
        assert!(!report(vec![good(), check("losses", Ok([0.0, f64::NAN]), "x")]).passed());
        assert!(!report(vec![good(), check("losses", Ok([0.0, f64::INFINITY]), "x")]).passed());
        assert!(!report(Vec::new()).passed());
    }
}

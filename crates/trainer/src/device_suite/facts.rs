//! What a reader of a report has to know about the machine and the program, and nothing about whose they are.

use std::env;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::device::{DeviceKind, DeviceName};
use crate::record::versions;
use crate::system::{cpu_name, threads};

/// Characters of a message that are kept.
const LONGEST: usize = 400;

/// The facts by name.
pub(super) fn facts(device: DeviceName) -> Vec<(&'static str, String)> {
    let versions = versions();
    let version = |name: &str| versions.get(name).cloned().unwrap_or_default();
    let kinds = DeviceKind::ALL
        .into_iter()
        .filter(|kind| kind.is_compiled());
    let kinds: Vec<&str> = kinds.map(DeviceKind::name).collect();
    let profile = match cfg!(debug_assertions) {
        true => "for development",
        false => "for release",
    };
    let found = device.found();
    let dtypes = found.map(|found| found.dtypes.iter().map(|dtype| dtype.name()));
    let dtypes: Vec<&str> = dtypes.into_iter().flatten().collect();
    let is = found.map_or("unknown", |found| found.description.as_str());
    let side = match device.kind() {
        DeviceKind::Flex => "the composed operations, which every other device runs",
        _ => "the composed operations",
    };
    vec![
        (
            "lowburn",
            format!(
                "{}, built {profile}, with {}",
                version("lowburn"),
                kinds.join(", ")
            ),
        ),
        ("Burn", version("burn")),
        ("device", format!("{device}, {is}")),
        ("numbers", dtypes.join(", ")),
        ("computed", side.to_owned()),
        ("system", system()),
        (
            "processor",
            format!("{}, {} threads", cpu_name(), threads()),
        ),
        ("date", today()),
    ]
}

/// A message without the name of a home folder, and not too long.
pub(super) fn without_home(message: &str) -> String {
    let homes = ["HOME", "USERPROFILE"].map(|name| env::var(name).unwrap_or_default());
    without(message, &homes)
}

fn without(message: &str, homes: &[String]) -> String {
    let mut text = message.to_owned();
    for home in homes.iter().filter(|home| home.len() > 1) {
        text = text.replace(home.as_str(), "~");
    }
    text.chars().take(LONGEST).collect()
}

/// The operating system, its kernel where there is one, and the architecture.
fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or(env::consts::OS, |name| name.trim_matches('"'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = match kernel.trim() {
        "" => String::new(),
        kernel => format!(", kernel {kernel}"),
    };
    format!("{name}{kernel}, {}", env::consts::ARCH)
}

/// Today's date in UTC.
fn today() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    date(now.unwrap_or_default().as_secs() / 86_400)
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar. Years begin in March here, so that the day
/// that is not always there is the last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> String {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097); // 400 years
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_787, "2026-11-30"),
            (20_788, "2026-12-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn a_message_names_no_home() {
        let homes = ["/home/ann", "", "/"].map(str::to_owned);
        let text = without("cannot open /home/ann/x.so and /usr/y.so", &homes);
        assert_eq!(text, "cannot open ~/x.so and /usr/y.so");
        assert_eq!(without(&"é".repeat(1_000), &homes).chars().count(), LONGEST);
    }

    #[test]
    fn facts_are_there_and_on_one_line() {
        let facts = facts(DeviceName::FLEX);
        let names: Vec<&str> = facts.iter().map(|(name, _)| *name).collect();
        for name in [
            "lowburn",
            "Burn",
            "device",
            "numbers",
            "system",
            "processor",
            "date",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for (name, fact) in facts {
            assert!(!fact.is_empty() && !fact.contains('\n'), "{name}: {fact}");
        }
    }
}

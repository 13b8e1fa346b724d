//! Dotted module names: suffixes, ordering by layer number, and near misses for error messages.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// `true` if `name` is `target` or ends with `.target` (PEFT's rule for a list of targets).
pub(crate) fn is_suffix(name: &str, target: &str) -> bool {
    name.strip_suffix(target)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The last dotted part of a name.
pub(crate) fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Order by dotted parts, numbers as numbers, so that layer 2 comes before layer 10.
pub(crate) fn natural_cmp(left: &str, right: &str) -> Ordering {
    let mut left_parts = left.split('.');
    let mut right_parts = right.split('.');
    loop {
        let order = match (left_parts.next(), right_parts.next()) {
            (None, None) => return left.cmp(right),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                _ => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// A sentence about what `wanted` may have meant, given the names that exist.
pub(crate) fn hint<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut candidates = BTreeSet::new();
    let parts = wanted.split('.').count();
    for name in known {
        candidates.insert(suffix_of(name, parts));
    }
    if candidates.is_empty() {
        return "the model has no linear layer at all".to_owned();
    }
    let mut near: Vec<(usize, &str)> = candidates
        .iter()
        .map(|name| (distance(wanted, name), *name))
        .filter(|(d, name)| {
            *d <= (wanted.chars().count() / 3).max(2)
                || name.contains(wanted)
                || wanted.contains(name)
        })
        .collect();
    near.sort();
    if near.is_empty() {
        format!("it has {}", listed(candidates.into_iter()))
    } else {
        let names = near.into_iter().map(|(_, name)| name).take(3);
        format!("did you mean {}?", names.collect::<Vec<_>>().join(" or "))
    }
}

/// The first few of a list of names, and how many are left out.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<&str> = names.collect();
    let shown = all[..all.len().min(SHOWN)].join(", ");
    if all.len() > SHOWN {
        format!("{shown} and {} more", all.len() - SHOWN)
    } else {
        shown
    }
}

fn suffix_of(name: &str, parts: usize) -> &str {
    let mut start = name.len();
    for _ in 0..parts {
        match name[..start].rfind('.') {
            Some(dot) => start = dot,
            None => return name,
        }
    }
    &name[start + 1..]
}

/// Levenshtein distance in characters; long inputs (hostile files) are cut.
fn distance(left: &str, right: &str) -> usize {
    const LONGEST: usize = 128;
    let left: Vec<char> = left.chars().take(LONGEST).collect();
    let right: Vec<char> = right.chars().take(LONGEST).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_end_at_a_dot() {
        assert!(is_suffix("a.self.query", "query"));
        assert!(is_suffix("a.self.query", "self.query"));
        assert!(is_suffix("query", "query"));
        assert!(!is_suffix("a.self.myquery", "query"));
        assert!(!is_suffix("a.query.x", "query"));
    }

    #[test]
    fn layers_are_ordered_by_number() {
        let mut names = vec!["l.10.query", "l.2.value", "l.2.query", "classifier", "l.2"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(
            names,
            ["classifier", "l.2", "l.2.query", "l.2.value", "l.10.query"]
        );
    }

    #[test]
    fn near_misses_are_named() {
        let known = ["e.0.self.query", "e.0.self.value", "e.0.output.dense"];
        assert_eq!(hint("qery", known), "did you mean query?");
        assert_eq!(hint("query_proj", known), "did you mean query?");
        assert_eq!(hint("self.valeu", known), "did you mean self.value?");
        assert_eq!(hint("zzzzzz", known), "it has dense, query, value");
        assert!(hint("x", []).contains("no linear layer"));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}

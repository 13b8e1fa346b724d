//! Finds the files of a split: `<split>-<number>-of-<count>.parquet`, as on the Hugging Face Hub.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::{GlueError, Task};

/// The shards of `data_dir/<task>/<split>` in order, all of them or an error.
pub(crate) fn find(data_dir: &Path, task: Task, split: &str) -> Result<Vec<PathBuf>, GlueError> {
    let dir = data_dir.join(task.name());
    let entries = fs::read_dir(&dir).map_err(|source| GlueError::Io {
        path: dir.clone(),
        source,
    })?;
    let mut found: BTreeMap<usize, BTreeMap<usize, PathBuf>> = BTreeMap::new(); // count -> number -> file
    let mut splits = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|source| GlueError::Io {
            path: dir.clone(),
            source,
        })?;
        let name = entry.file_name();
        let Some((of_split, number, count)) = name.to_str().and_then(parse) else {
            continue;
        };
        if of_split == split {
            found.entry(count).or_default().insert(number, entry.path());
        }
        splits.insert(of_split.to_owned());
    }
    let broken = |problem, way_out| {
        Err(GlueError::Shards {
            dir: dir.clone(),
            split: split.to_owned(),
            problem,
            way_out,
        })
    };
    if found.len() > 1 {
        let counts: Vec<String> = found.keys().map(usize::to_string).collect();
        return broken(
            format!("there are files of sets of {}", counts.join(" and of ")),
            "remove the set that is out of date",
        );
    }
    let Some((count, shards)) = found.pop_first() else {
        return Err(GlueError::NoSplit {
            dir,
            task,
            split: split.to_owned(),
            found: describe(&splits),
        });
    };
    // Only shards below `count` parse, so equal numbers mean that all are there.
    if shards.len() < count {
        let missing = (0..count)
            .find(|number| !shards.contains_key(number))
            .unwrap_or_default();
        return broken(
            format!("{split}-{missing:05}-of-{count:05}.parquet is missing"),
            "fetch the missing file",
        );
    }
    Ok(shards.into_values().collect())
}

/// "train-00001-of-00003.parquet" -> ("train", 1, 3).
fn parse(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.strip_suffix(".parquet")?.rsplit_once("-of-")?;
    let (split, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<usize>().ok()).flatten()
    };
    let (number, count) = (digits(number)?, digits(count)?);
    (number < count).then_some((split, number, count))
}

fn describe(splits: &BTreeSet<String>) -> String {
    if splits.is_empty() {
        return "there is no split in that folder at all".to_owned();
    }
    let names: Vec<&str> = splits.iter().map(String::as_str).collect();
    format!("the splits there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rte")).unwrap();
        for name in names {
            fs::write(dir.path().join("rte").join(name), b"").unwrap();
        }
        dir
    }

    #[test]
    fn shards_come_in_order_and_others_are_ignored() {
        let dir = folder(&[
            "train-00002-of-00003.parquet",
            "train-00000-of-00003.parquet",
            "train-00001-of-00003.parquet",
            "train_extra-00000-of-00001.parquet",
            "train-00003-of-00003.parquet",
            "train-x-of-00003.parquet",
            "README.md",
        ]);
        let names: Vec<String> = find(dir.path(), Task::Rte, "train")
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "train-00000-of-00003.parquet",
                "train-00001-of-00003.parquet",
                "train-00002-of-00003.parquet"
            ]
        );
    }

    #[test]
    fn incomplete_or_mixed_sets_are_errors() {
        let dir = folder(&["train-00000-of-00002.parquet"]);
        let message = find(dir.path(), Task::Rte, "train")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("train-00001-of-00002.parquet is missing"),
            "{message}"
        );

        let dir = folder(&[
            "train-00000-of-00001.parquet",
            "train-00000-of-00002.parquet",
        ]);
        let message = find(dir.path(), Task::Rte, "train")
            .unwrap_err()
            .to_string();
        assert!(message.contains("sets of 1 and of 2"), "{message}");
    }

    #[test]
    fn a_missing_split_names_those_that_are_there() {
        let dir = folder(&[
            "train-00000-of-00001.parquet",
            "validation-00000-of-00001.parquet",
        ]);
        let message = find(dir.path(), Task::Rte, "../rte/train")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("../rte/train") && message.contains("train, validation"),
            "{message}"
        );
        let message = find(dir.path(), Task::Sst2, "train")
            .unwrap_err()
            .to_string();
        assert!(message.contains("sst2"), "{message}");
    }

    #[test]
    fn absurd_counts_do_not_exhaust_memory() {
        let dir = folder(&["train-00000-of-18446744073709551615.parquet"]);
        let message = find(dir.path(), Task::Rte, "train")
            .unwrap_err()
            .to_string();
        assert!(message.contains("is missing"), "{message}");
    }
}

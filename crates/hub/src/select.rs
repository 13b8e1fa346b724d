//! Which files of a repository are needed: never all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::name::is_plain_path;

/// A split of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split<'a> {
    /// The task's folder: `rte`.
    pub task: &'a str,
    /// The split: `train`.
    pub name: &'a str,
}

/// The configuration of a model.
const CONFIG: &str = "config.json";

/// All that a tokenizer may be made of; what is there is fetched.
const TOKENIZER: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spm.model",
];

/// Weights in the order in which they are preferred, and whether it is an index that names shards.
const WEIGHTS: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];

/// Bytes and shards of an index at most; the largest model on the hub stays far below.
const LARGEST_INDEX: u64 = 64 << 20;
const MOST_SHARDS: usize = 10_000;

/// A model's files, small ones first: whoever finds the weights finds everything.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelFiles {
    /// Configuration and tokenizer.
    pub(crate) small: Vec<&'static str>,
    /// The weights or their index.
    pub(crate) weights: &'static str,
    /// Whether `weights` is an index.
    pub(crate) is_index: bool,
}

impl ModelFiles {
    /// Chooses among the files that are there; the error says what is missing.
    pub(crate) fn choose(has: impl Fn(&str) -> bool) -> Result<Self, &'static str> {
        if !has(CONFIG) {
            return Err("config.json");
        }
        let weights = WEIGHTS.into_iter().find(|(name, _)| has(name));
        let (weights, is_index) = weights.ok_or("model.safetensors or pytorch_model.bin")?;
        let tokenizer = TOKENIZER.into_iter().filter(|name| has(name));
        Ok(Self {
            small: std::iter::once(CONFIG).chain(tokenizer).collect(),
            weights,
            is_index,
        })
    }

    /// Whether a tokenizer can be made of them.
    pub(crate) fn has_tokenizer(&self) -> bool {
        let has = |name| self.small.contains(&name);
        has("tokenizer.json") || has("spm.model") || (has("vocab.json") && has("merges.txt"))
    }
}

/// The shards that an index of weights names, sorted; the error says what is wrong with it.
pub(crate) fn shards(index: &Path) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let size = fs::metadata(index)
        .map_err(|error| error.to_string())?
        .len();
    if size > LARGEST_INDEX {
        return Err(format!("an index of {size} bytes"));
    }
    let text = fs::read(index).map_err(|error| error.to_string())?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| format!("an index without weight_map ({error})"))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(odd) = shards
        .iter()
        .find(|name| !is_plain_path(name) || name.contains('/'))
    {
        let odd: String = odd.chars().take(80).filter(|c| !c.is_control()).collect();
        return Err(format!("an index that names the shard `{odd}`"));
    }
    if shards.is_empty() || shards.len() > MOST_SHARDS {
        return Err(format!("an index of {} shards", shards.len()));
    }
    Ok(shards.into_iter().collect())
}

/// The files of a split, `TASK/SPLIT-00000-of-00001.parquet`, in order and complete, among those that are there.
pub(crate) fn split_files<'a>(
    files: impl Iterator<Item = &'a str>,
    split: Split<'_>,
) -> Option<Vec<String>> {
    let mut found: Vec<(usize, usize)> = files
        .filter_map(|file| {
            let rest = file.strip_prefix(split.task)?.strip_prefix('/')?;
            let rest = rest.strip_prefix(split.name)?.strip_prefix('-')?;
            let (number, count) = rest.strip_suffix(".parquet")?.split_once("-of-")?;
            (number.len() == 5 && count.len() == 5).then_some(())?;
            Some((number.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    let count = found.first()?.1;
    let whole = found.len() == count
        && found
            .iter()
            .copied()
            .eq((0..count).map(|number| (number, count)));
    whole.then(|| {
        let path = |(number, count)| {
            format!(
                "{}/{}-{number:05}-of-{count:05}.parquet",
                split.task, split.name
            )
        };
        found.into_iter().map(path).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(files: &[&str]) -> Result<ModelFiles, &'static str> {
        ModelFiles::choose(|name| files.contains(&name))
    }

    #[test]
    fn safetensors_come_before_pickles_and_whole_files_before_shards() {
        let weights =
            |files: &[&str]| choose(files).map(|chosen| (chosen.weights, chosen.is_index));
        let mut files = vec![
            "README.md",
            "config.json",
            "pytorch_model.bin.index.json",
            "pytorch_model.bin",
            "model.safetensors.index.json",
            "model.safetensors",
            "tf_model.h5",
        ];
        assert_eq!(weights(&files), Ok(("model.safetensors", false)));
        files.retain(|name| *name != "model.safetensors");
        assert_eq!(weights(&files), Ok(("model.safetensors.index.json", true)));
        files.retain(|name| *name != "model.safetensors.index.json");
        assert_eq!(weights(&files), Ok(("pytorch_model.bin", false)));
        files.retain(|name| *name != "pytorch_model.bin");
        assert_eq!(weights(&files), Ok(("pytorch_model.bin.index.json", true)));
        files.retain(|name| *name != "pytorch_model.bin.index.json");
        assert_eq!(
            weights(&files),
            Err("model.safetensors or pytorch_model.bin")
        );
        assert_eq!(weights(&["model.safetensors"]), Err("config.json"));
    }

    #[test]
    fn the_tokenizer_is_what_is_there_of_it() {
        let chosen = choose(&[
            "config.json",
            "model.safetensors",
            "merges.txt",
            "vocab.json",
            "vocab.txt",
        ])
        .unwrap();
        assert_eq!(chosen.small, ["config.json", "vocab.json", "merges.txt"]);
        assert!(chosen.has_tokenizer());
        let chosen = choose(&["config.json", "model.safetensors", "vocab.json"]).unwrap();
        assert!(!chosen.has_tokenizer());
        let chosen = choose(&["config.json", "pytorch_model.bin", "spm.model"]).unwrap();
        assert!(chosen.has_tokenizer());
    }

    #[test]
    fn an_index_may_name_plain_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.json");
        let read = |text: &str| {
            fs::write(&index, text).unwrap();
            shards(&index)
        };
        let two = r#"{"metadata": {}, "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#;
        assert_eq!(read(two).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for wrong in [
            "",
            "{}",
            r#"{"weight_map": {}}"#,
            r#"{"weight_map": {"a": "../x"}}"#,
            r#"{"weight_map": {"a": "/x"}}"#,
            r#"{"weight_map": {"a": "x/y"}}"#,
            r#"{"weight_map": {"a": ".x"}}"#,
            r#"{"weight_map": {"a": "C:\\x"}}"#,
            r#"{"weight_map": {"a": ""}}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_split_is_complete_or_not_there() {
        let files = [
            "README.md",
            "rte/train-00000-of-00001.parquet",
            "rte/train_x-00000-of-00001.parquet",
            "mnli/train-00001-of-00002.parquet",
            "mnli/train-00000-of-00002.parquet",
            "qqp/train-00001-of-00002.parquet",
            "xrte/train-00000-of-00001.parquet",
        ];
        let find = |task, name| split_files(files.into_iter(), Split { task, name });
        assert_eq!(
            find("rte", "train").unwrap(),
            ["rte/train-00000-of-00001.parquet"]
        );
        assert_eq!(
            find("mnli", "train").unwrap(),
            [
                "mnli/train-00000-of-00002.parquet",
                "mnli/train-00001-of-00002.parquet"
            ]
        );
        assert_eq!(find("qqp", "train"), None);
        assert_eq!(find("rte", "test"), None);
    }
}

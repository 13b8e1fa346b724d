//! The identity of a run: what went in, without where it lay.
//!
//! Two runs with the same digest give the same result, so nobody needs to do both. Paths, names, the
//! number of threads and whether activations are kept or computed again are no part of it; the
//! content of every file that is read is. Of the device its kind counts, because kinds round
//! differently, and not which card of that kind it was.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use lowburn_models::weight_files;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::plan::RunPlan;
use crate::record::Digests;

/// Raised when the same configuration and files no longer give the same result.
const FORMAT: u32 = 1;

/// Fields of the configuration that say where or how fast, not what.
pub(crate) const LOCAL_FIELDS: [&str; 6] = [
    "model",
    "model_name",
    "data_dir",
    "init_adapter",
    "threads",
    "checkpoint_activations",
];

/// Files of a checkpoint folder that decide what a run computes, apart from its weights.
const MODEL_FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spm.model",
];

/// A digest and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 over the configuration and all file digests, in hexadecimal.
    pub digest: String,
    /// The file digests.
    pub digests: Digests,
}

/// The identity of a run; reads (and remembers) every input file.
///
/// # Errors
/// When a file is missing or cannot be read.
pub fn identity(plan: &RunPlan) -> Result<Identity, TrainError> {
    let config = plan.config();
    let digests = Digests {
        model: model_digests(&config.model)?,
        data: data_digests(config)?,
        init_adapter: match &config.init_adapter {
            Some(folder) => folder_digests(folder, &adapter_files(folder)?)?,
            None => BTreeMap::new(),
        },
    };
    let mut fields = fields_of(config).map_err(|error| TrainError::State {
        path: config.model.clone(),
        reason: format!("the configuration cannot be put in JSON ({error})"),
    })?;
    if let Some(fields) = fields.as_object_mut() {
        // The digest is that of a text, in which the order counts: an option must leave no trace there. The others are
        // always there, and removed as in all digests so far, which puts the last field into their place.
        fields.shift_remove("checkpoint_activations");
        for name in LOCAL_FIELDS {
            fields.remove(name);
        }
    }
    let whole = serde_json::json!({"format": FORMAT, "config": fields, "digests": digests});
    let digest = hex(&Sha256::digest(whole.to_string().as_bytes()));
    Ok(Identity { digest, digests })
}

/// The configuration in JSON, with the device's kind in the place of its name.
pub(crate) fn fields_of(config: &RunConfig) -> Result<Value, serde_json::Error> {
    let mut fields = serde_json::to_value(config)?;
    fields["device"] = config.device.kind().name().into();
    Ok(fields)
}

/// The digest alone, see [`identity`].
///
/// # Errors
/// When a file is missing or cannot be read.
pub fn digest(plan: &RunPlan) -> Result<String, TrainError> {
    identity(plan).map(|identity| identity.digest)
}

/// SHA-256 of every file of a checkpoint folder that matters, by file name.
///
/// # Errors
/// When a file cannot be read, or the weights are missing.
pub(crate) fn model_digests(folder: &Path) -> Result<BTreeMap<String, String>, TrainError> {
    let mut names = weight_names(folder)?;
    names.extend(MODEL_FILES.map(str::to_owned));
    names.retain(|name| folder.join(name).is_file());
    folder_digests(folder, &names)
}

/// SHA-256 of the weights of a checkpoint folder alone: what an adapter was trained upon.
///
/// # Errors
/// When a file cannot be read, or the weights are missing.
pub(crate) fn weight_digests(folder: &Path) -> Result<BTreeMap<String, String>, TrainError> {
    folder_digests(folder, &weight_names(folder)?)
}

/// Names of the weight files that are read, an index of shards included.
fn weight_names(folder: &Path) -> Result<Vec<String>, TrainError> {
    let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    Ok(weight_files(folder)?.into_iter().filter_map(name).collect())
}

fn adapter_files(folder: &Path) -> Result<Vec<String>, TrainError> {
    let mut names = file_names(folder)?;
    names.retain(|name| name.starts_with("adapter_"));
    Ok(names)
}

fn data_digests(config: &RunConfig) -> Result<BTreeMap<String, String>, TrainError> {
    let task = config.task.to_string();
    let folder = config.data_dir.join(&task);
    if !folder.is_dir() {
        return Err(TrainError::Mismatch {
            path: config.data_dir.clone(),
            reason: format!(
                "there is no data for {task} in it; expected {task}/train-00000-of-00001.parquet \
                 and the evaluation splits beside it"
            ),
        });
    }
    let names = file_names(&folder)?;
    let mut digests = BTreeMap::new();
    for split in std::iter::once(&"train").chain(config.task.evaluation_splits()) {
        for name in names.iter().filter(|name| is_shard(name, split)) {
            let digest = file_digest(&folder.join(name))?;
            digests.insert(format!("{task}/{name}"), digest);
        }
    }
    Ok(digests)
}

/// `<split>-00000-of-00001.parquet`, with any numbers.
fn is_shard(name: &str, split: &str) -> bool {
    let numbers = name
        .strip_prefix(split)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(".parquet"))
        .and_then(|rest| rest.split_once("-of-"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(index, count)| digits(index) && digits(count))
}

/// Names of the files in a folder, sorted.
fn file_names(folder: &Path) -> Result<Vec<String>, TrainError> {
    let failed = || TrainError::io("read", folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn folder_digests(folder: &Path, names: &[String]) -> Result<BTreeMap<String, String>, TrainError> {
    names
        .iter()
        .map(|name| Ok((name.clone(), file_digest(&folder.join(name))?)))
        .collect()
}

/// SHA-256 of one file in hexadecimal, remembered by path, size and time of change.
///
/// # Errors
/// When the file cannot be read.
pub fn file_digest(path: &Path) -> Result<String, TrainError> {
    type Known = HashMap<(PathBuf, u64, SystemTime), String>;
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let known = || {
        let map = KNOWN.get_or_init(Mutex::default);
        map.lock().unwrap_or_else(PoisonError::into_inner)
    };
    let mut file = File::open(path).map_err(TrainError::io("read", path))?;
    let metadata = file.metadata().map_err(TrainError::io("read", path))?;
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let key = (path.to_path_buf(), metadata.len(), modified);
    if let Some(digest) = known().get(&key) {
        return Ok(digest.clone());
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(TrainError::io("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let digest = hex(&hasher.finalize());
    known().insert(key, digest.clone());
    Ok(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_file_follows_its_content() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("f");
        fs::write(&path, "abc").expect("written");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file_digest(&path).expect("read"), abc);
        fs::write(&path, "abcd").expect("written");
        assert_ne!(file_digest(&path).expect("read"), abc);
    }

    /// A configuration as records have it.
    fn on(device: &str) -> RunConfig {
        let text = r#"{"model": "mini", "model_name": "mini", "task": "mrpc", "data_dir": "mini", "method": "full",
            "lora": null, "init_adapter": null, "epochs": 8, "batch_size": 16, "accumulate": 1, "lr": 0.0005,
            "weight_decay": 0.1, "warmup": {"ratio": 0.06}, "max_length": 64, "seed": 0, "shuffle": true,
            "group_by_length": false, "train_rows": null, "max_steps": null, "eval_every": "epoch",
            "device": "flex", "threads": 2}"#;
        let mut config: RunConfig = serde_json::from_str(text).expect("a configuration");
        config.device = device.parse().expect("a device");
        config
    }

    #[test]
    fn cards_of_a_kind_are_one_and_kinds_are_not() {
        let text = |device: &str| fields_of(&on(device)).expect("JSON").to_string();
        assert_eq!(text("cuda:0"), text("cuda:1"));
        assert!(text("cuda:1").contains(r#""device":"cuda""#));
        assert_ne!(text("cuda:0"), text("vulkan:0"));
        // As before there were others: not a letter, and nothing elsewhere.
        let plain = serde_json::to_string(&on("flex")).expect("JSON");
        assert_eq!(text("flex"), plain);
    }

    #[test]
    fn shards_are_told_from_their_likes() {
        assert!(is_shard("train-00000-of-00001.parquet", "train"));
        assert!(is_shard(
            "validation_matched-00003-of-00010.parquet",
            "validation_matched"
        ));
        assert!(!is_shard(
            "validation_matched-00000-of-00001.parquet",
            "validation"
        ));
        assert!(!is_shard("train-00000-of-00001.parquet.bak", "train"));
        assert!(!is_shard("train.parquet", "train"));
    }
}

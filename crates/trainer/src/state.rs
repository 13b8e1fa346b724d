//! The resume state: one file that is replaced in one rename.
//!
//! `state/checkpoint.safetensors` holds every trainable tensor and both AdamW moments by
//! Hugging Face name, and in its metadata how far the run was. Dropout needs nothing saved, its
//! keys derive from seed, step and micro-batch; neither does the order of rows, which derives
//! from seed and epoch.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::optimizer::{AdamW, Moments};
use crate::record::{Best, EvaluationRecord};
use crate::scale::LossScale;

const FOLDER: &str = "state";
const FILE: &str = "checkpoint.safetensors";
const META: &str = "lowburn";
const FIRST: &str = "#first";
const SECOND: &str = "#second";

/// How far a run is, apart from its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Identity of the run.
    pub(crate) digest: String,
    /// Optimiser steps done.
    pub(crate) step: u64,
    /// Training rows seen.
    pub(crate) examples: u64,
    /// Real tokens seen.
    pub(crate) tokens: u64,
    /// Length of `log.jsonl` at this step.
    pub(crate) log_bytes: u64,
    /// Length of `timing.jsonl` at this step.
    pub(crate) timing_bytes: u64,
    /// Evaluations so far.
    pub(crate) evaluations: Vec<EvaluationRecord>,
    /// The best so far.
    pub(crate) best: Option<Best>,
    /// Seconds of optimiser steps so far.
    pub(crate) train_seconds: f64,
    /// Seconds of evaluations so far.
    pub(crate) eval_seconds: f64,
    /// Seconds of everything so far.
    pub(crate) total_seconds: f64,
    /// Largest memory so far.
    pub(crate) peak_memory_bytes: u64,
    /// The loss scale of then, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScale>,
}

/// Values of a named tensor, in the layout of the model's parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedTensor {
    /// The Hugging Face name.
    pub(crate) name: String,
    /// The parameter's shape in memory.
    pub(crate) shape: Vec<usize>,
    /// Row-major values.
    pub(crate) values: Vec<f32>,
}

/// A state read back.
#[derive(Debug)]
pub(crate) struct Restored {
    /// How far the run was.
    pub(crate) progress: Progress,
    /// The trainable tensors of then.
    pub(crate) tensors: BTreeMap<String, NamedTensor>,
    /// The optimiser's moments of then.
    pub(crate) moments: BTreeMap<String, Moments>,
}

/// The state's folder in an output folder.
#[must_use]
pub(crate) fn folder(output: &Path) -> PathBuf {
    output.join(FOLDER)
}

/// A borrowed tensor on its way into a file.
struct Slice<'a> {
    shape: Vec<usize>,
    values: &'a [f32],
}

impl View for Slice<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

/// Saves the state: afterwards the old one is gone and the new one whole, or the other way round.
///
/// # Errors
/// When the system refuses.
pub(crate) fn save(
    output: &Path,
    progress: &Progress,
    tensors: &[NamedTensor],
    optimizer: &AdamW,
) -> Result<(), TrainError> {
    let folder = folder(output);
    fs::create_dir_all(&folder).map_err(TrainError::io("create", &folder))?;
    let path = folder.join(FILE);
    let mut views = Vec::with_capacity(3 * tensors.len());
    for tensor in tensors {
        let view = |values| Slice {
            shape: tensor.shape.clone(),
            values,
        };
        views.push((tensor.name.clone(), view(&tensor.values)));
        if let Some(moments) = optimizer.moments().get(&tensor.name) {
            views.push((tensor.name.clone() + FIRST, view(&moments.first)));
            views.push((tensor.name.clone() + SECOND, view(&moments.second)));
        }
    }
    let text = serde_json::to_string(progress).map_err(|error| TrainError::State {
        path: path.clone(),
        reason: format!("cannot be put in JSON ({error})"),
    })?;
    let metadata = HashMap::from([(META.to_owned(), text)]);
    let temporary = folder.join(".checkpoint.tmp");
    let write = || -> std::io::Result<()> {
        safetensors::serialize_to_file(views, Some(metadata), &temporary).map_err(|error| {
            match error {
                safetensors::SafeTensorError::IoError(error) => error,
                other => std::io::Error::other(other.to_string()),
            }
        })?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        TrainError::io("write", &path)(error)
    })
}

/// Reads the state of an output folder; `None` when there is none.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub(crate) fn load(output: &Path) -> Result<Option<Restored>, TrainError> {
    let path = folder(output).join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::io("read", &path)(error)),
    };
    parse(&bytes).map(Some).map_err(|reason| TrainError::State {
        path,
        reason: format!("the saved state is damaged ({reason}); start again with --overwrite"),
    })
}

fn parse(bytes: &[u8]) -> Result<Restored, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(META))
        .ok_or("no progress in it")?;
    let progress = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut restored = Restored {
        progress,
        tensors: BTreeMap::new(),
        moments: BTreeMap::new(),
    };
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(format!("{name} is not f32"));
        }
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        if let Some(name) = name.strip_suffix(FIRST) {
            restored.moments.entry(name.to_owned()).or_default().first = values;
        } else if let Some(name) = name.strip_suffix(SECOND) {
            restored.moments.entry(name.to_owned()).or_default().second = values;
        } else {
            let tensor = NamedTensor {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values,
            };
            restored.tensors.insert(name.to_owned(), tensor);
        }
    }
    check_moments(&restored)?;
    Ok(restored)
}

/// Every moment belongs to a tensor and has its length.
fn check_moments(restored: &Restored) -> Result<(), String> {
    for (name, moments) in &restored.moments {
        let Some(tensor) = restored.tensors.get(name) else {
            return Err(format!("moments of {name} without the tensor"));
        };
        let len = tensor.values.len();
        if moments.first.len() != len || moments.second.len() != len {
            return Err(format!("moments of {name} of another length"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Progress, Vec<NamedTensor>, AdamW) {
        let tensors = vec![
            NamedTensor {
                name: "classifier.dense.weight".into(),
                shape: vec![2, 3],
                values: vec![1.0, -0.0, 3.5, f32::MIN_POSITIVE, 5.0, 6.0],
            },
            NamedTensor {
                name: "classifier.dense.bias".into(),
                shape: vec![2],
                values: vec![0.25, 0.5],
            },
        ];
        let mut adam = AdamW::new(0.1);
        adam.begin_step();
        let mut values = tensors[0].values.clone();
        adam.update("classifier.dense.weight", &mut values, &[0.3; 6], 1e-3, 1.0);
        let progress = Progress {
            digest: "d".into(),
            step: 1,
            log_bytes: 77,
            total_seconds: 0.1 + 0.2,
            ..Progress::default()
        };
        (progress, tensors, adam)
    }

    #[test]
    fn comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (progress, tensors, adam) = sample();
        assert!(load(dir.path()).expect("no state").is_none());
        save(dir.path(), &progress, &tensors, &adam).expect("saved");
        save(dir.path(), &progress, &tensors, &adam).expect("saved again");
        let restored = load(dir.path()).expect("readable").expect("there");
        assert_eq!(restored.progress, progress);
        assert_eq!(&restored.moments, adam.moments());
        assert_eq!(restored.tensors.len(), 2);
        for tensor in &tensors {
            assert_eq!(&restored.tensors[&tensor.name], tensor);
        }
        assert_eq!(fs::read_dir(folder(dir.path())).expect("there").count(), 1);
    }

    #[test]
    fn a_cut_file_is_a_clear_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (progress, tensors, adam) = sample();
        save(dir.path(), &progress, &tensors, &adam).expect("saved");
        let path = folder(dir.path()).join(FILE);
        let bytes = fs::read(&path).expect("there");
        for length in [0, 7, 100, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).expect("cut");
            let error = load(dir.path()).expect_err("damaged").to_string();
            assert!(
                error.contains("damaged") && error.contains("--overwrite"),
                "{error}"
            );
        }
    }
}

//! `lowburn.json`: what an adapter or head folder does not say in its standard files.
//!
//! PEFT's files name neither the task, nor the order of the labels, nor the content of the base,
//! and each of these, when wrong, gives scores near chance without any error. The extra file is
//! ignored by other programs; a folder without it is used as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lowburn_glue::Task;
use lowburn_models::LoraPositionBranch;
use serde::{Deserialize, Serialize};

use crate::digest::weight_digests;
use crate::error::TrainError;
use crate::output::write_json;

/// Where an adapter, head or checkpoint comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Version of lowburn that wrote it.
    pub version: String,
    /// The task it was trained on.
    pub task: Task,
    /// Class names in the order of the logits; empty for regression.
    pub labels: Vec<String>,
    /// Tokens of a row at most, while training.
    pub max_length: usize,
    /// Name of the base.
    pub base: String,
    /// What the adapter does to positions (DeBERTa-v2 with shared projections).
    #[serde(default, skip_serializing_if = "LoraPositionBranch::is_peft")]
    pub position_branch: LoraPositionBranch,
    /// SHA-256 of the base's weight files; empty for a whole checkpoint.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub base_weights: BTreeMap<String, String>,
}

impl About {
    /// Name of the file.
    pub const FILE: &'static str = "lowburn.json";

    /// Reads a folder's file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(Self::FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io("read", &path)(error)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| TrainError::State {
                path,
                reason: format!("is damaged ({error}); it may be deleted"),
            })
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        write_json(&folder.join(Self::FILE), self)
    }

    /// Whether the weights of `model` are those it was trained upon.
    ///
    /// # Errors
    /// When they are not, or cannot be read.
    pub(crate) fn check_base(&self, adapter: &Path, model: &Path) -> Result<(), TrainError> {
        if self.base_weights.is_empty() || weight_digests(model)? == self.base_weights {
            return Ok(());
        }
        Err(TrainError::Mismatch {
            path: adapter.to_path_buf(),
            reason: format!(
                "it was trained on another base ({}), the weights of {} are not those; give the \
                 base it was trained on, or --any-base if you know that they are equal",
                self.base,
                model.display()
            ),
        })
    }

    /// Whether the labels mean the same in `task`.
    ///
    /// # Errors
    /// When their names or their order differ.
    pub(crate) fn check_labels(&self, folder: &Path, task: Task) -> Result<(), TrainError> {
        if self.task == task || self.labels == task.labels() {
            return Ok(());
        }
        Err(TrainError::Mismatch {
            path: folder.to_path_buf(),
            reason: format!(
                "it was trained on {} with labels {:?}, and {task} has {:?}; give the task it was \
                 trained on",
                self.task,
                self.labels,
                task.labels()
            ),
        })
    }
}

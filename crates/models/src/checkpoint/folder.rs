//! Which files of a folder are its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::wrong;
use crate::ModelError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Safetensors,
    Pytorch,
}

/// The names that weights go by, and whether it is an index of shards: the first that is there
/// counts, in transformers' order.
const NAMES: [(&str, Format, bool); 4] = [
    ("model.safetensors", Format::Safetensors, false),
    ("model.safetensors.index.json", Format::Safetensors, true),
    ("pytorch_model.bin", Format::Pytorch, false),
    ("pytorch_model.bin.index.json", Format::Pytorch, true),
];

/// The files that hold the weights of a folder.
pub(super) struct Layout {
    pub(super) format: Format,
    /// One file, or the shards in the order of their names.
    pub(super) files: Vec<PathBuf>,
    pub(super) index: Option<Index>,
}

/// An index of shards.
pub(super) struct Index {
    pub(super) path: PathBuf,
    /// The shard of every tensor.
    pub(super) weight_map: BTreeMap<String, String>,
}

/// The files that hold the weights of a model folder, an index of shards included: whichever comes
/// first of `model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin` and
/// `pytorch_model.bin.index.json`. Their content is not looked at.
///
/// # Errors
/// There are none, or the index is damaged or names shards that are not there.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let layout = Layout::of(dir)?;
    let index = layout.index.map(|index| index.path);
    Ok(index.into_iter().chain(layout.files).collect())
}

impl Layout {
    pub(super) fn of(dir: &Path) -> Result<Self, ModelError> {
        for (name, format, sharded) in NAMES {
            let path = dir.join(name);
            if path.is_file() {
                return Self::with(path, format, sharded);
            }
            // A folder of that name, or the broken link of an interrupted download.
            if path.symlink_metadata().is_ok() {
                let problem = format!("{name} is there but is not a file; get it again");
                return Err(wrong(dir, problem));
            }
        }
        let problem = if dir.is_dir() {
            let names = NAMES.map(|(name, ..)| name).join(", ");
            format!("none of {names} is there; give a Hugging Face model folder")
        } else {
            "no such folder; give a Hugging Face model folder".to_owned()
        };
        Err(wrong(dir, problem))
    }

    fn with(path: PathBuf, format: Format, sharded: bool) -> Result<Self, ModelError> {
        if !sharded {
            return Ok(Self {
                format,
                files: vec![path],
                index: None,
            });
        }
        let index = Index::read(path)?;
        Ok(Self {
            format,
            files: index.shards()?,
            index: Some(index),
        })
    }
}

impl Index {
    fn read(path: PathBuf) -> Result<Self, ModelError> {
        #[derive(serde::Deserialize)]
        struct File {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read(&path).map_err(ModelError::io(&path, "reading the shard index"))?;
        match serde_json::from_slice(&text) {
            Ok(File { weight_map }) if !weight_map.is_empty() => Ok(Self { path, weight_map }),
            Ok(_) => Err(wrong(
                &path,
                "weight_map names no shard; get the file again".into(),
            )),
            Err(error) => Err(wrong(
                &path,
                format!("not a shard index: {error}; get the file again"),
            )),
        }
    }

    /// The paths of the shards, which are all there.
    fn shards(&self) -> Result<Vec<PathBuf>, ModelError> {
        let names: BTreeSet<&String> = self.weight_map.values().collect();
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            // A shard lies beside its index: anything else would leave the folder.
            if Path::new(name).file_name() != Some(OsStr::new(name)) {
                let problem = format!(
                    "shard name {name:?} is not a plain file name; put the shards beside the index"
                );
                return Err(wrong(&self.path, problem));
            }
            let path = self.path.with_file_name(name);
            if !path.is_file() {
                let problem = format!("shard {name} is missing; put it beside the index");
                return Err(wrong(&self.path, problem));
            }
            files.push(path);
        }
        Ok(files)
    }
}

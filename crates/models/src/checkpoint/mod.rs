//! Weight files as they lie on disk: safetensors or PyTorch's pickles, one file or shards.
//!
//! A file is hostile until it is checked: headers may lie, shards may be missing, two names may
//! mean one tensor. Only descriptions are read at first; numbers are read from the file when they
//! are asked for, and no more than one tensor of them is held.

mod folder;
mod numbers;
mod pytorch;
mod safetensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;

use crate::ModelError;
use folder::{Format, Index, Layout};
use numbers::Numbers;
use pytorch::PytorchFile;
use safetensors::SafetensorsFile;

pub use folder::weight_files;

/// What to do about a file that contradicts itself.
const AGAIN: &str = "the file is truncated or damaged, get it again";

/// The weight files of a model folder.
pub(crate) struct Checkpoint {
    dir: PathBuf,
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, Located>,
}

/// A tensor as its file describes it.
#[derive(Debug, Clone)]
struct Described {
    name: String,
    numbers: Numbers,
    shape: Vec<usize>,
}

/// A tensor inside one of the files.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    file: usize,
    numbers: Numbers,
    pub(crate) shape: Vec<usize>,
}

struct WeightFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors(SafetensorsFile),
    Pytorch(PytorchFile),
}

impl Checkpoint {
    /// Opens the weights of a folder, of whichever form comes first in [`weight_files`].
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        let layout = Layout::of(dir)?;
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in layout.files {
            checkpoint.add(path, layout.format)?;
        }
        if let Some(index) = &layout.index {
            checkpoint.check_index(index)?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: PathBuf, format: Format) -> Result<(), ModelError> {
        let (content, described) = match format {
            Format::Safetensors => {
                let (file, described) = SafetensorsFile::open(&path)?;
                (Content::Safetensors(file), described)
            }
            Format::Pytorch => {
                let (file, described) = PytorchFile::open(&path)?;
                (Content::Pytorch(file), described)
            }
        };
        for tensor in described {
            let name = tensor.name;
            let located = Located {
                file: self.files.len(),
                numbers: tensor.numbers,
                shape: tensor.shape,
            };
            if self.tensors.insert(name.clone(), located).is_some() {
                return Err(wrong(
                    &path,
                    format!("tensor {name} is in two shards; keep one"),
                ));
            }
        }
        self.files.push(WeightFile { path, content });
        Ok(())
    }

    /// Every tensor that the index names is in the shard it names, and no shard holds another.
    fn check_index(&self, index: &Index) -> Result<(), ModelError> {
        let shard_of = |located: &Located| {
            let name = self.files[located.file].path.file_name();
            name.unwrap_or_default().to_string_lossy()
        };
        let lie = |problem: String| {
            let way_out = "take the index and its shards from one checkpoint";
            Err(wrong(&index.path, format!("{problem}; {way_out}")))
        };
        for (name, shard) in &index.weight_map {
            match self.tensors.get(name) {
                Some(located) if shard_of(located) == *shard => {}
                Some(located) => {
                    let found = shard_of(located);
                    return lie(format!("tensor {name} is not in {shard} but in {found}"));
                }
                None => return lie(format!("tensor {name} is not in {shard}")),
            }
        }
        for (name, located) in &self.tensors {
            if !index.weight_map.contains_key(name) {
                let found = shard_of(located);
                return lie(format!("weight_map lacks tensor {name} of {found}"));
            }
        }
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, Located> {
        &self.tensors
    }

    /// The tensor of that name in the file, as f32.
    ///
    /// # Panics
    /// Panics for a name that is not in [`Checkpoint::tensors`].
    pub(crate) fn read(&mut self, name: &str) -> Result<TensorData, ModelError> {
        let located = &self.tensors[name];
        let file = &mut self.files[located.file];
        let dtype = match &located.numbers {
            Numbers::Float(dtype) => *dtype,
            Numbers::Other(kind) => {
                return Err(wrong(
                    &file.path,
                    format!(
                        "tensor {name} is {kind}; supported are F64, F32, F16 and BF16, save the \
                         model as one of them"
                    ),
                ));
            }
        };
        let values = match &mut file.content {
            Content::Safetensors(content) => content.read(&file.path, name, dtype)?,
            Content::Pytorch(content) => content.read(&file.path, name, dtype)?,
        };
        Ok(TensorData::new(values, located.shape.clone()))
    }
}

/// The error of a weight file, its folder or its index.
fn wrong(path: &Path, problem: String) -> ModelError {
    ModelError::Weights {
        path: path.to_owned(),
        problem,
    }
}

//! Weight files as they lie on disk: safetensors, one file or shards with an index.
//!
//! A file is hostile until it is checked: headers may lie, shards may be missing, two names may
//! mean one tensor. Files are memory-mapped and tensors are converted one at a time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::ModelError;

/// The weight files of a model folder.
pub(crate) struct Checkpoint {
    dir: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, Located>,
}

/// A tensor inside one of the files.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    file: usize,
    start: usize,
    end: usize,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub(crate) fn open(dir: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in weight_files(dir)? {
            checkpoint.add(path)?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let file = File::open(&path).map_err(ModelError::io(&path, "opening the weights"))?;
        // SAFETY: the map is read only. A file that another process truncates while it is read
        // would end this process, as with every memory-mapped loader; weights are not rewritten in
        // place by anyone who wants to keep them.
        let map = unsafe { Mmap::map(&file) };
        let map = map.map_err(ModelError::io(&path, "mapping the weights"))?;
        let wrong = |problem: String| ModelError::Weights {
            path: path.clone(),
            problem,
        };
        let again = "the file is truncated or damaged, get it again";
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|e| wrong(format!("{e}; {again}")))?;
        let data = 8 + header;
        let index = self.files.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            if data + end > map.len() {
                return Err(wrong(format!(
                    "tensor {name} ends behind the file; {again}"
                )));
            }
            let located = Located {
                file: index,
                start: data + start,
                end: data + end,
                dtype: info.dtype,
                shape: info.shape.clone(),
            };
            if self.tensors.insert(name.clone(), located).is_some() {
                return Err(wrong(format!("tensor {name} is in two shards; keep one")));
            }
        }
        self.files.push((path, map));
        Ok(())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, Located> {
        &self.tensors
    }

    /// The tensor of that name in the file, as f32.
    pub(crate) fn read(&self, name: &str) -> Result<TensorData, ModelError> {
        let located = &self.tensors[name];
        let (path, map) = &self.files[located.file];
        let bytes = &map[located.start..located.end];
        let values = to_f32(bytes, located.dtype).ok_or_else(|| ModelError::Weights {
            path: path.clone(),
            problem: format!(
                "tensor {name} is {:?}; supported are F32, F16 and BF16, save the model as one of them",
                located.dtype
            ),
        })?;
        Ok(TensorData::new(values, located.shape.clone()))
    }
}

/// Little-endian numbers as f32, or `None` for another type than f32, f16, bf16.
fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let words = || {
        bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    match dtype {
        Dtype::F32 => Some(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        ),
        Dtype::F16 => {
            let halves: Vec<half::f16> = words().map(half::f16::from_bits).collect();
            let mut out = vec![0.0; halves.len()];
            half::slice::HalfFloatSliceExt::convert_to_f32_slice(halves.as_slice(), &mut out);
            Some(out)
        }
        Dtype::BF16 => Some(
            words()
                .map(|b| f32::from_bits(u32::from(b) << 16))
                .collect(),
        ),
        _ => None,
    }
}

/// The weight files of a folder, in a fixed order.
pub(crate) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if index.is_file() {
        return shards(dir, &index);
    }
    let bin = dir.join("pytorch_model.bin");
    // A folder of that name, or the broken link of an interrupted download.
    let problem = if single.symlink_metadata().is_ok() {
        "model.safetensors is there but is not a file; get it again"
    } else if bin.is_file() {
        "there is a pytorch_model.bin but no model.safetensors; convert it with transformers \
         (`model.save_pretrained(folder, safe_serialization=True)`)"
    } else if dir.is_dir() {
        "neither model.safetensors nor model.safetensors.index.json is there; \
         give a Hugging Face model folder"
    } else {
        "no such folder; give a Hugging Face model folder"
    };
    Err(ModelError::Weights {
        path: dir.to_owned(),
        problem: problem.into(),
    })
}

fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |problem: String| ModelError::Weights {
        path: index.to_owned(),
        problem,
    };
    let text = std::fs::read(index).map_err(ModelError::io(index, "reading the shard index"))?;
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|e| wrong(format!("not a shard index: {e}; get the file again")))?;
    let mut names: Vec<&String> = parsed.weight_map.values().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(wrong(
            "weight_map names no shard; get the file again".into(),
        ));
    }
    let mut files = Vec::new();
    for name in names {
        // A shard lies beside its index: anything else would leave the folder.
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(wrong(format!(
                "shard name {name:?} is not a plain file name; put the shards beside the index"
            )));
        }
        let path = dir.join(name);
        if !path.is_file() {
            return Err(wrong(format!(
                "shard {name} is missing; put it beside the index"
            )));
        }
        files.push(path);
    }
    Ok(files)
}

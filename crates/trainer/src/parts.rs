//! Folders with some of a model's own tensors: what `--method head` and `--method bitfit` leave,
//! and `--adapter` accepts.
//!
//! `head.safetensors`, or `bitfit.safetensors`, holds the trained tensors under their Hugging Face
//! names and in the layout of a checkpoint (a linear weight is `[out, in]`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lowburn_lora::{FileDtype, HostTensor};
use safetensors::tensor::{Dtype, SafeTensors, View};

use crate::error::TrainError;
use crate::output::write_atomic;

/// Name of the file of the head.
pub(crate) const HEAD: &str = "head.safetensors";

/// Name of the file of the biases and the head.
pub(crate) const BITFIT: &str = "bitfit.safetensors";

struct Slice<'a>(&'a HostTensor);

impl View for Slice<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.data.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
    fn data_len(&self) -> usize {
        size_of_val(self.0.data.as_slice())
    }
}

/// Writes tensors, as f32, into a folder that exists.
pub(crate) fn write(
    folder: &Path,
    file: &str,
    tensors: &BTreeMap<String, HostTensor>,
) -> Result<(), TrainError> {
    let path = folder.join(file);
    let views = tensors.iter().map(|(name, tensor)| (name, Slice(tensor)));
    let bytes = safetensors::serialize(views, None).map_err(|error| TrainError::State {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    write_atomic(&path, &bytes)
}

/// Reads the tensors of a folder.
pub(crate) fn read(folder: &Path, file: &str) -> Result<BTreeMap<String, HostTensor>, TrainError> {
    let path = folder.join(file);
    let bytes = fs::read(&path).map_err(TrainError::io("read", &path))?;
    let damaged = |reason: String| TrainError::State {
        path: path.clone(),
        reason: format!("is not such a file ({reason}); write it again"),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(format!("{name} is not f32")));
        }
        let values = view.data().chunks_exact(4);
        let tensor = HostTensor {
            shape: view.shape().to_vec(),
            data: values
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            dtype: FileDtype::F32,
        };
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_a_cut_file_is_a_clear_error() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tensor = HostTensor::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, -6.5]);
        let tensors = BTreeMap::from([("classifier.dense.weight".to_owned(), tensor)]);
        write(dir.path(), HEAD, &tensors).expect("written");
        assert_eq!(read(dir.path(), HEAD).expect("read"), tensors);
        let path = dir.path().join(HEAD);
        let bytes = fs::read(&path).expect("there");
        fs::write(&path, &bytes[..bytes.len() - 3]).expect("cut");
        let error = read(dir.path(), HEAD).expect_err("damaged").to_string();
        assert!(error.contains(HEAD), "{error}");
    }
}

//! One file of `torch.save`: a pickle that describes tensors, and their storages.
//!
//! The pickle is interpreted by `pytorch-reader`, which knows tensors and dictionaries and calls
//! nothing: whatever else a pickle asks for is a value without meaning. What a tensor claims is
//! checked against its storage there, and numbers are read when they are asked for. What it does not bound is
//! checked before, by [`torch_file_problem`]. Accepted is what
//! `torch.save(model.state_dict(), file)` writes, in the zip form or the older one: a dictionary of
//! tensors and nothing else, as transformers wants it.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use lowburn_lora::{FileDtype, torch_file_problem};
use pytorch_reader::{
    DType, FileFormat, PickleError, PickleValue, PytorchError, PytorchReader, Tensor,
};

use super::numbers::{Numbers, append};
use super::{AGAIN, Described, wrong};
use crate::ModelError;

/// Versions of the modules: an attribute of the dictionary that `state_dict()` gives, which the
/// reader shows as one more entry.
const ATTRIBUTE: &str = "_metadata";

pub(super) struct PytorchFile {
    tensors: HashMap<String, Tensor>,
}

impl PytorchFile {
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Described>), ModelError> {
        // Opened here first, so that a file that may not be read is not called damaged.
        let file = File::open(path).map_err(ModelError::io(path, "opening the weights"))?;
        let problem =
            torch_file_problem(&file).map_err(ModelError::io(path, "reading the weights"))?;
        if let Some(problem) = problem {
            return Err(wrong(path, problem));
        }
        let reader = PytorchReader::new(path).map_err(|error| unreadable(path, &error))?;
        match reader.metadata().format_type {
            FileFormat::Zip | FileFormat::Legacy => {}
            ref other => {
                return Err(wrong(
                    path,
                    format!(
                        "it is in the form {other:?}, not what torch.save writes since 0.1.10; load \
                         it with torch and save its state_dict again"
                    ),
                ));
            }
        }
        let tensors = reader.into_tensors();
        check_entries(path, &tensors)?;
        let described = tensors.iter().map(|(name, tensor)| Described {
            name: name.clone(),
            numbers: numbers(tensor.dtype()),
            shape: tensor.shape().to_vec(),
        });
        let described = described.collect();
        Ok((Self { tensors }, described))
    }

    /// The numbers of a tensor of the file.
    pub(super) fn read(
        &mut self,
        path: &Path,
        name: &str,
        dtype: FileDtype,
    ) -> Result<Vec<f32>, ModelError> {
        let tensor = &self.tensors[name];
        let bytes = tensor.read().map_err(|error| match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                wrong(path, format!("{error}; {AGAIN}"))
            }
            _ => ModelError::io(path, "reading the weights")(error),
        })?;
        let mut values = Vec::with_capacity(tensor.num_elements());
        append(dtype, &bytes, &mut values);
        Ok(values)
    }
}

/// Every entry of the dictionary is a tensor: the reader would name those of inner dictionaries
/// by their path, and leave out what is none.
fn check_entries(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<(), ModelError> {
    let value =
        PytorchReader::read_pickle_data(path, None).map_err(|error| unreadable(path, &error))?;
    let PickleValue::Dict(entries) = value else {
        return Err(wrong(path, "it is not a dictionary of tensors".to_owned()));
    };
    let other = entries
        .iter()
        .filter(|(name, value)| match value {
            PickleValue::Unsupported(_) => !tensors.contains_key(*name),
            PickleValue::Dict(_) => *name != ATTRIBUTE,
            _ => true,
        })
        .min_by_key(|(name, _)| *name);
    let Some((name, value)) = other else {
        return Ok(());
    };
    let kind = match value {
        PickleValue::None => "None",
        PickleValue::Bool(_) => "a bool",
        PickleValue::Int(_) => "an int",
        PickleValue::Float(_) => "a float",
        PickleValue::String(_) => "a str",
        PickleValue::Bytes(_) => "bytes",
        PickleValue::List(_) => "a list",
        PickleValue::Dict(_) => "a dictionary",
        PickleValue::Unsupported(name) => name,
    };
    Err(wrong(
        path,
        format!(
            "its entry {name:?} is {kind} and not a tensor, so it is no plain state_dict \
             (transformers would not look inside either); load it with torch and save the \
             dictionary of the weights alone"
        ),
    ))
}

fn unreadable(path: &Path, error: &PytorchError) -> ModelError {
    let way_out = match error {
        PytorchError::Pickle(PickleError::UnsupportedType(_)) => {
            "only plain tensors are read: save the model dense, not quantized, and as F32, F16 or BF16"
        }
        _ => AGAIN,
    };
    wrong(
        path,
        format!("not a PyTorch checkpoint that can be read: {error}; {way_out}"),
    )
}

fn numbers(dtype: DType) -> Numbers {
    match dtype {
        DType::F16 => Numbers::Float(FileDtype::F16),
        DType::BF16 => Numbers::Float(FileDtype::BF16),
        DType::F32 => Numbers::Float(FileDtype::F32),
        DType::F64 => Numbers::Float(FileDtype::F64),
        other => Numbers::Other(format!("{other:?}")),
    }
}

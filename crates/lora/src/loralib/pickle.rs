//! What `torch.save` writes, for an ordered dictionary of tensors: a zip archive with a pickle of
//! the names and shapes, and one entry per tensor.
//!
//! Only the opcodes needed for that are produced (protocol 2, no memo), all of which
//! `torch.load(weights_only=True)` allows.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::LoraError;
use crate::tensor::{FileDtype, HostTensor};

/// torch aligns storages to this many bytes, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// The bytes of a checkpoint with these tensors in this order.
pub(super) fn checkpoint(tensors: &[(String, &HostTensor)]) -> Result<Vec<u8>, LoraError> {
    archive(tensors).map_err(|error| LoraError::Inconsistent {
        problem: format!("it cannot be packed into a zip archive: {error}"),
    })
}

fn archive(tensors: &[(String, &HostTensor)]) -> zip::result::ZipResult<Vec<u8>> {
    // No clock: the same adapter gives the same bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .with_alignment(ALIGNMENT);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, bytes: &[u8]| -> zip::result::ZipResult<()> {
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)?;
        Ok(())
    };
    add("data.pkl", &dictionary(tensors))?;
    add("byteorder", b"little")?;
    for (index, (_, tensor)) in tensors.iter().enumerate() {
        add(&format!("data/{index}"), &tensor.dtype.encode(&tensor.data))?;
    }
    add("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The pickle of `OrderedDict([(name, tensor), ...])`.
fn dictionary(tensors: &[(String, &HostTensor)]) -> Vec<u8> {
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.global("collections", "OrderedDict");
    pickle.code(b")R");
    if !tensors.is_empty() {
        pickle.code(b"(");
        for (index, (name, tensor)) in tensors.iter().enumerate() {
            pickle.text(name);
            pickle.tensor(index, tensor);
        }
        pickle.code(b"u");
    }
    pickle.code(b".");
    pickle.0
}

struct Pickle(Vec<u8>);

impl Pickle {
    fn code(&mut self, opcodes: &[u8]) {
        self.0.extend_from_slice(opcodes);
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    /// A string; names are far shorter than the 4 GiB that its length field holds.
    fn text(&mut self, text: &str) {
        self.code(b"X");
        self.0.extend((text.len() as u32).to_le_bytes());
        self.code(text.as_bytes());
    }

    fn integer(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(value) => {
                self.code(b"J");
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                // Nine bytes, so that the sign bit is clear.
                self.code(&[0x8a, 9]);
                self.0.extend((value as u64).to_le_bytes());
                self.code(&[0]);
            }
        }
    }

    fn integers(&mut self, values: impl IntoIterator<Item = usize>) {
        self.code(b"(");
        for value in values {
            self.integer(value);
        }
        self.code(b"t");
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
    fn tensor(&mut self, index: usize, tensor: &HostTensor) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.code(b"((");
        self.text("storage");
        self.global("torch", storage_class(tensor.dtype));
        self.text(&index.to_string());
        self.text("cpu");
        self.integer(tensor.data.len());
        self.code(b"tQ");
        self.integer(0);
        self.integers(tensor.shape.iter().copied());
        self.integers(strides(&tensor.shape));
        self.code(&[0x89]); // False: no gradient
        self.global("collections", "OrderedDict");
        self.code(b")RtR");
    }
}

fn storage_class(dtype: FileDtype) -> &'static str {
    match dtype {
        FileDtype::F16 => "HalfStorage",
        FileDtype::BF16 => "BFloat16Storage",
        FileDtype::F32 => "FloatStorage",
        FileDtype::F64 => "DoubleStorage",
    }
}

/// Row-major strides, in elements.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_row_major() {
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(strides(&[5]), [1]);
        assert!(strides(&[]).is_empty());
    }

    #[test]
    fn large_integers_have_nine_bytes() {
        let mut pickle = Pickle(Vec::new());
        pickle.integer(5_000_000_000);
        assert_eq!(pickle.0[..2], [0x8a, 9]);
        assert_eq!(pickle.0.len(), 11);
    }

    #[test]
    fn the_same_tensors_give_the_same_bytes() {
        let tensor = HostTensor::new([2, 1], vec![1.0, 2.0]);
        let tensors = [("x.lora_A".to_owned(), &tensor)];
        assert_eq!(checkpoint(&tensors).unwrap(), checkpoint(&tensors).unwrap());
    }
}

//! The boundary to the disk: whole files in, whole files or nothing out.
//!
//! Nothing read here is trusted. safetensors headers are checked by the `safetensors` crate, and
//! pickles are interpreted (never executed) by `pytorch-reader`, which knows tensors and
//! containers and treats everything else as an opaque value.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::bounds::torch_file_problem;
use crate::error::LoraError;
use crate::tensor::{FileDtype, HostTensor};

/// Tensors of a file by their name in it.
pub(crate) type Tensors = BTreeMap<String, HostTensor>;

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoraError> {
    fs::read(path).map_err(LoraError::io(path, "read"))
}

/// Every tensor of a safetensors file, as f32.
pub(crate) fn read_safetensors(path: &Path) -> Result<Tensors, LoraError> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| LoraError::Damaged {
        path: path.to_path_buf(),
        format: "safetensors",
        reason: error.to_string(),
    })?;
    file.iter()
        .map(|(name, view)| {
            let dtype = match view.dtype() {
                Dtype::F16 => FileDtype::F16,
                Dtype::BF16 => FileDtype::BF16,
                Dtype::F32 => FileDtype::F32,
                Dtype::F64 => FileDtype::F64,
                other => return Err(wrong_type(path, name, &format!("{other:?}"))),
            };
            let tensor = HostTensor {
                shape: view.shape().to_vec(),
                data: dtype.decode(view.data()),
                dtype,
            };
            Ok((name.to_owned(), tensor))
        })
        .collect()
}

/// The bytes of a safetensors file with the metadata that transformers and PEFT ask for.
pub(crate) fn safetensors_bytes(tensors: &Tensors) -> Result<Vec<u8>, LoraError> {
    let wrong = |name: &str, error: &dyn std::fmt::Display| LoraError::Inconsistent {
        problem: format!("tensor {name:?} cannot be written: {error}"),
    };
    let encoded: Vec<Vec<u8>> = tensors
        .values()
        .map(|tensor| tensor.dtype.encode(&tensor.data))
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&encoded) {
        let dtype = match tensor.dtype {
            FileDtype::F16 => Dtype::F16,
            FileDtype::BF16 => Dtype::BF16,
            FileDtype::F32 => Dtype::F32,
            FileDtype::F64 => Dtype::F64,
        };
        let view = TensorView::new(dtype, tensor.shape.clone(), bytes)
            .map_err(|error| wrong(name, &error))?;
        views.push((name.as_str(), view));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| wrong("(all)", &error))
}

/// Every tensor of a file written by `torch.save`, as f32.
pub(crate) fn read_pytorch(path: &Path) -> Result<Tensors, LoraError> {
    let damaged = |reason: String| LoraError::Damaged {
        path: path.to_path_buf(),
        format: "a PyTorch checkpoint",
        reason,
    };
    // Opened here first, so that a missing file is not called damaged.
    let file = File::open(path).map_err(LoraError::io(path, "read"))?;
    let length = file.metadata().map_err(LoraError::io(path, "read"))?.len();
    if let Some(problem) = torch_file_problem(&file).map_err(LoraError::io(path, "read"))? {
        // The way out is the error's own.
        let what = problem
            .rsplit_once("; ")
            .map_or(problem.as_str(), |(what, _)| what);
        return Err(damaged(what.to_owned()));
    }
    let reader = PytorchReader::new(path).map_err(|error| damaged(error.to_string()))?;
    // A view may claim far more elements than its storage has; real adapters share nothing.
    let claimed = reader.tensors().values().try_fold(0u64, |sum, tensor| {
        sum.checked_add(tensor.byte_len() as u64)
    });
    let most = length.saturating_mul(4).saturating_add(1 << 20);
    if claimed.is_none_or(|claimed| claimed > most) {
        return Err(damaged(format!(
            "its tensors claim far more bytes than the {length} of the file"
        )));
    }
    reader
        .into_tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                DType::F16 => FileDtype::F16,
                DType::BF16 => FileDtype::BF16,
                DType::F32 => FileDtype::F32,
                DType::F64 => FileDtype::F64,
                other => return Err(wrong_type(path, &name, &format!("{other:?}"))),
            };
            let bytes = tensor.read().map_err(|error| damaged(error.to_string()))?;
            let data = dtype.decode(&bytes);
            let shape = tensor.shape().to_vec();
            if shape.iter().product::<usize>() != data.len() {
                return Err(damaged(format!("tensor {name:?} is cut off")));
            }
            Ok((name, HostTensor { shape, data, dtype }))
        })
        .collect()
}

fn wrong_type(path: &Path, name: &str, dtype: &str) -> LoraError {
    LoraError::tensor(
        path,
        name,
        format!("its type is {dtype}; only F16, BF16, F32 and F64 are read"),
    )
}

/// Writes a file so that at every moment the old or the new one is there, whole.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), LoraError> {
    let parent = parent_of(path);
    fs::create_dir_all(&parent).map_err(LoraError::io(&parent, "create"))?;
    let mut temporary = builder(0o666)
        .tempfile_in(&parent)
        .map_err(LoraError::io(path, "write"))?;
    temporary
        .write_all(bytes)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(LoraError::io(path, "write"))?;
    temporary
        .persist(path)
        .map_err(|error| LoraError::io(path, "write")(error.error))?;
    Ok(())
}

/// Writes a folder of files. A folder that is not there yet appears at once with all of them; in
/// one that is, each file is replaced whole, in the order given.
pub(crate) fn write_folder(dir: &Path, files: &[(&str, &[u8])]) -> Result<(), LoraError> {
    if dir.exists() {
        return files
            .iter()
            .try_for_each(|(name, bytes)| write_file(&dir.join(name), bytes));
    }
    let parent = parent_of(dir);
    fs::create_dir_all(&parent).map_err(LoraError::io(&parent, "create"))?;
    let temporary = builder(0o777)
        .tempdir_in(&parent)
        .map_err(LoraError::io(dir, "create"))?;
    for (name, bytes) in files {
        let path = temporary.path().join(name);
        let mut file = File::create(&path).map_err(LoraError::io(&path, "write"))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(LoraError::io(&path, "write"))?;
    }
    fs::rename(temporary.path(), dir).map_err(LoraError::io(dir, "create"))?;
    // Renamed away: there is nothing left under the old name to clean up.
    let _ = temporary.keep();
    Ok(())
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A hidden sibling, with the permissions an ordinary file or folder would get.
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lowburn-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/sub/file");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn folders_appear_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("adapter");
        write_folder(&folder, &[("a", b"1"), ("b", b"2")]).unwrap();
        write_folder(&folder, &[("b", b"3")]).unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
        assert_eq!(fs::read(folder.join("b")).unwrap(), b"3");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("adapter");
        let error = write_folder(&folder, &[("a", b"1"), ("no/such/folder", b"2")]).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, b"x").unwrap();
        let ours = dir.path().join("ours");
        write_file(&ours, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}

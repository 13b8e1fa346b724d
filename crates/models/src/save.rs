//! A classifier becomes a Hugging Face folder: config.json and model.safetensors.
//!
//! Numbers go to the file a few rows at a time, so that nothing of size is held beside the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::ModelError;
use crate::adapt::is_factor;
use crate::classifier::SequenceClassifier;
use crate::config::ModelConfig;
use crate::named::{NamedVisitor, is_transposed, visit_named};

/// Numbers that are fetched at a time, unless a row has more.
const PIECE: usize = 1 << 20;

/// Writes config.json and model.safetensors (f32) into an existing folder. Tokenizer files are the
/// caller's. Each file appears whole or not at all.
///
/// # Errors
/// The folder cannot be written.
///
/// # Panics
/// Panics when an adapter is still attached: merge it first.
pub fn save_checkpoint(
    model: &SequenceClassifier,
    config: &ModelConfig,
    labels: Option<&[String]>,
    dir: &Path,
) -> Result<(), ModelError> {
    let mut collect = Collect::default();
    visit_named(model, &mut collect);
    let tensors = collect.0;
    assert!(
        !tensors.keys().any(|name| is_factor(name)),
        "merge the adapters before saving"
    );
    let json = config.to_classifier_json(model.num_labels(), labels);
    let mut text = serde_json::to_string_pretty(&json).expect("a JSON value can be written");
    text.push('\n');
    write_file(&dir.join("config.json"), |file| {
        file.write_all(text.as_bytes())
    })?;
    let path = dir.join("model.safetensors");
    let header = header(&tensors).map_err(|problem| ModelError::Weights {
        path: path.clone(),
        problem,
    })?;
    write_file(&path, |file| {
        file.write_all(&header)?;
        tensors
            .values()
            .try_for_each(|tensor| write_numbers(file, tensor, PIECE))
    })
}

/// The parameters of a model by name, which is the order in the file.
#[derive(Default)]
struct Collect(BTreeMap<String, Pending>);

/// A parameter that is still where it computes.
struct Pending {
    /// The shape in the file.
    shape: Vec<usize>,
    /// Some of its rows in f32, in the layout of the file.
    rows: Box<dyn Fn(Range<usize>) -> TensorData>,
}

impl NamedVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let mut tensor = param.val().inner();
        if is_transposed(name, D) {
            tensor = tensor.swap_dims(0, 1);
        }
        let pending = Pending {
            shape: tensor.dims().to_vec(),
            rows: Box::new(move |rows| {
                let some = tensor.clone().narrow(0, rows.start, rows.len());
                some.into_data().convert::<f32>()
            }),
        };
        self.0.insert(name.to_owned(), pending);
    }
}

/// All of a safetensors file up to the numbers, with PyTorch's metadata.
fn header(tensors: &BTreeMap<String, Pending>) -> Result<Vec<u8>, String> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, tensor)| {
        let start = end;
        end += size_of::<f32>() * tensor.shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (name.clone(), info)
    });
    let infos = infos.collect();
    let format = [("format".to_owned(), "pt".to_owned())];
    let metadata = Metadata::new(Some(format.into_iter().collect()), infos)
        .map_err(|error| error.to_string())?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    // The numbers start at a multiple of eight bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend(text);
    Ok(header)
}

/// Writes a tensor, `piece` numbers or one row at a time.
fn write_numbers(file: &mut impl Write, tensor: &Pending, piece: usize) -> io::Result<()> {
    // No parameter is a scalar: there is no tensor without a dimension.
    let (rows, width) = (tensor.shape[0], tensor.shape[1..].iter().product::<usize>());
    let step = (piece / width.max(1)).max(1);
    for start in (0..rows).step_by(step) {
        let data = (tensor.rows)(start..rows.min(start + step));
        let (words, _) = data.as_bytes().as_chunks::<4>();
        for word in words {
            file.write_all(&f32::from_ne_bytes(*word).to_le_bytes())?;
        }
    }
    Ok(())
}

/// Writes a file through a temporary one beside it, so that it is there whole or not at all.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), ModelError> {
    let failed = || ModelError::io(path, "writing");
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // A temporary file is the owner's alone by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(dir).map_err(failed())?;
    let mut file = BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut file)
        .and_then(|()| file.flush())
        .map_err(failed())?;
    drop(file);
    temporary.as_file().sync_all().map_err(failed())?;
    temporary
        .persist(path)
        .map_err(|error| failed()(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_same_file() {
        let (rows, width) = (7_usize, 3_usize);
        // As a linear layer keeps it, [in, out]; the file has [out, in].
        let kept: Vec<f32> = (0..width * rows).map(|i| i as f32).collect();
        let kept = Tensor::<2>::from_data(TensorData::new(kept, [width, rows]), &Device::flex());
        let mut collect = Collect::default();
        collect.visit("dense.weight", &Param::from_tensor(kept));
        let tensor = &collect.0["dense.weight"];
        assert_eq!(tensor.shape, [rows, width]);
        let numbers = (0..rows).flat_map(|row| (0..width).map(move |i| (i * rows + row) as f32));
        let expected: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        for piece in [0, 1, 3, 5, 6, 20, 21, 1000] {
            let mut file = Vec::new();
            write_numbers(&mut file, tensor, piece).unwrap();
            assert_eq!(file, expected, "{piece}");
        }
    }
}

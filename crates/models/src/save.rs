//! A classifier becomes a Hugging Face folder: config.json and model.safetensors.
//!
//! Tensors go to the file one after the other. Beside the model no more than one of them is held,
//! in the layout of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::ModelError;
use crate::adapt::is_factor;
use crate::classifier::SequenceClassifier;
use crate::config::ModelConfig;
use crate::named::{NamedVisitor, is_transposed, visit_named};

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
            .into_values()
            .try_for_each(|tensor| write_numbers(file, &(tensor.fetch)()))
    })
}

/// The parameters of a model by name, which is the order in the file.
#[derive(Default)]
struct Collect(BTreeMap<String, Pending>);

/// A parameter that is still where it computes.
struct Pending {
    /// The shape in the file.
    shape: Vec<usize>,
    /// Its numbers in f32, in the layout of the file.
    fetch: Box<dyn FnOnce() -> TensorData>,
}

impl NamedVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        let mut tensor = param.val();
        if is_transposed(name, D) {
            tensor = tensor.swap_dims(0, 1);
        }
        let pending = Pending {
            shape: tensor.dims().to_vec(),
            fetch: Box::new(move || tensor.into_data().convert::<f32>()),
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

fn write_numbers(file: &mut impl Write, data: &TensorData) -> io::Result<()> {
    let (words, _) = data.as_bytes().as_chunks::<4>();
    words.iter().try_for_each(|word| {
        let value = f32::from_ne_bytes(*word);
        file.write_all(&value.to_le_bytes())
    })
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

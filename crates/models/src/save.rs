//! A classifier becomes a Hugging Face folder: config.json and model.safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use lowburn_lora::HostTensor;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::adapt::is_factor;
use crate::checkpoint::weight_files;
use crate::classifier::SequenceClassifier;
use crate::config::ModelConfig;

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
    let tensors = model.host_tensors(|_| true);
    assert!(
        !tensors.keys().any(|name| is_factor(name)),
        "merge the adapters before saving"
    );
    let json = config.to_classifier_json(model.num_labels(), labels);
    let mut text = serde_json::to_string_pretty(&json).expect("a JSON value can be written");
    text.push('\n');
    write_file(&dir.join("config.json"), text.as_bytes())?;
    write_tensors(&dir.join("model.safetensors"), &tensors)
}

/// Writes tensors as safetensors, f32, with PyTorch's metadata.
///
/// # Errors
/// The file cannot be written.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, HostTensor>,
) -> Result<(), ModelError> {
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, t)| {
            (
                name.as_str(),
                t.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            )
        })
        .collect();
    let weights = |problem: String| ModelError::Weights {
        path: path.to_owned(),
        problem,
    };
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), &bytes[name.as_str()])
            .map_err(|e| weights(format!("tensor {name}: {e}")))?;
        views.push((name.as_str(), view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())]
        .into_iter()
        .collect();
    let data = safetensors::serialize(views, Some(metadata)).map_err(|e| weights(e.to_string()))?;
    write_file(path, &data)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let failed = "writing";
    let mut builder = tempfile::Builder::new();
    // A temporary file is the owner's alone by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder
        .tempfile_in(dir)
        .map_err(ModelError::io(path, failed))?;
    std::io::Write::write_all(&mut file, bytes).map_err(ModelError::io(path, failed))?;
    file.as_file()
        .sync_all()
        .map_err(ModelError::io(path, failed))?;
    file.persist(path)
        .map_err(|e| ModelError::io(path, failed)(e.error))?;
    Ok(())
}

/// The files of a model folder that decide what it computes (configuration, weights, tokenizer),
/// and their sha256 digests in hexadecimal.
///
/// # Errors
/// A file cannot be read, or the weights are missing.
pub fn model_digests(dir: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    let mut files = weight_files(dir)?;
    let others = [
        "config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    ];
    files.extend(
        others
            .map(|name| dir.join(name))
            .into_iter()
            .filter(|path| path.is_file()),
    );
    let mut digests = BTreeMap::new();
    for path in files {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        digests.insert(name, file_digest(&path)?);
    }
    Ok(digests)
}

fn file_digest(path: &Path) -> Result<String, ModelError> {
    let mut file = std::fs::File::open(path).map_err(ModelError::io(path, "reading"))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(ModelError::io(path, "reading"))?;
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

//! PEFT adapter folders: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! Folders of PEFT 0.5 to 0.21 are read; the `.bin` weights of the early ones too. What is written
//! has only the fields that every one of those versions knows, so that all of them read it.

mod config;
mod fields;
mod keys;
mod render;

use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use self::keys::Part;
use crate::adapter::AdapterFile;
use crate::error::LoraError;
use crate::files::{self, Tensors};
use crate::tensor::{Factors, FileDtype, HostTensor};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const OLD_WEIGHTS: &str = "adapter_model.bin";

/// Reads a PEFT adapter folder.
///
/// # Errors
///
/// No adapter in the folder (with a hint where one is), a field or tensor that would change the
/// results and is not implemented here, a missing half of a pair, a shape that contradicts the
/// configuration, a damaged file. Each message names the file and the field or tensor.
pub fn read_peft(dir: &Path) -> Result<AdapterFile, LoraError> {
    let config_path = dir.join(CONFIG);
    if !config_path.is_file() {
        return Err(not_an_adapter(dir));
    }
    let mut adapter = config::parse(&config_path, &files::read(&config_path)?)?;
    let (weights_path, tensors) = read_weights(dir)?;
    sort_tensors(&mut adapter, &weights_path, tensors)?;
    match adapter.check() {
        Err(LoraError::Inconsistent { problem }) => Err(LoraError::BadTensor {
            path: weights_path,
            name: "lora_A, lora_B".to_owned(),
            problem: format!("{problem} ({CONFIG} and the weights disagree)"),
        }),
        result => result.map(|()| adapter),
    }
}

/// Writes a PEFT adapter folder that PEFT 0.5 to 0.21 read.
///
/// A folder that does not exist appears at once and whole; in one that does, the two files are
/// replaced, each whole. The factors are written as f32, saved modules in their own
/// [`dtype`](HostTensor::dtype).
///
/// # Errors
///
/// An adapter that contradicts itself ([`AdapterFile::check`]), a saved tensor that
/// `modules_to_save` does not name, or what the disk says.
pub fn write_peft(adapter: &AdapterFile, dir: &Path) -> Result<(), LoraError> {
    adapter.check()?;
    let tensors = keys::named_tensors(adapter)?;
    let weights = files::safetensors_bytes(&tensors)?;
    let config = render::config(adapter);
    files::write_folder(dir, &[(WEIGHTS, &weights), (CONFIG, config.as_bytes())])
}

/// What to say of a folder without a configuration: often the adapter is one level further down.
fn not_an_adapter(dir: &Path) -> LoraError {
    let mut below: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(CONFIG).is_file())
        .map(|entry| entry.path().display().to_string())
        .collect();
    below.sort();
    let problem = if !dir.exists() {
        "it does not exist".to_owned()
    } else if dir.is_file() {
        format!("it is a file; give the folder that holds {CONFIG}")
    } else if below.is_empty() {
        format!("it has no {CONFIG}")
    } else {
        format!("it has no {CONFIG}, but {} has one", below.join(" and "))
    };
    LoraError::NotAnAdapter {
        dir: dir.to_path_buf(),
        problem,
    }
}

fn read_weights(dir: &Path) -> Result<(PathBuf, Tensors), LoraError> {
    let path = dir.join(WEIGHTS);
    if path.is_file() {
        let tensors = files::read_safetensors(&path)?;
        return Ok((path, tensors));
    }
    let old = dir.join(OLD_WEIGHTS);
    if old.is_file() {
        let tensors = files::read_pytorch(&old)?;
        return Ok((old, tensors));
    }
    Err(LoraError::NotAnAdapter {
        dir: dir.to_path_buf(),
        problem: format!("it has {CONFIG} but neither {WEIGHTS} nor {OLD_WEIGHTS}"),
    })
}

/// Sorts the tensors of a file into pairs of factors and saved parameters.
fn sort_tensors(adapter: &mut AdapterFile, path: &Path, tensors: Tensors) -> Result<(), LoraError> {
    let keys = keys::Keys::new(path, &adapter.config)?;
    let mut halves = [Tensors::new(), Tensors::new()];
    let mut saved = Tensors::new();
    for (key, tensor) in tensors {
        let (name, into) = match keys.parse(&key)? {
            (Part::A, module) => (module, &mut halves[0]),
            (Part::B, module) => (module, &mut halves[1]),
            (Part::Saved, parameter) => (parameter, &mut saved),
        };
        match into.entry(name) {
            Entry::Vacant(place) => {
                place.insert(tensor);
            }
            Entry::Occupied(place) => {
                let problem = format!("a second tensor for {}", place.key());
                return Err(LoraError::tensor(path, &key, problem));
            }
        }
    }
    let [halves_a, mut halves_b] = halves;
    for (module, a) in halves_a {
        let Some(b) = halves_b.remove(&module) else {
            return Err(missing_half(path, &module, "lora_A", "lora_B"));
        };
        adapter.factors.insert(module, Factors { a, b });
    }
    if let Some(module) = halves_b.keys().next() {
        return Err(missing_half(path, module, "lora_B", "lora_A"));
    }
    adapter.saved = saved;
    Ok(())
}

fn missing_half(path: &Path, module: &str, there: &str, missing: &str) -> LoraError {
    LoraError::tensor(
        path,
        &format!("{}{module}.{missing}.weight", keys::PREFIX),
        format!("missing, though {there} of the same module is there"),
    )
}

/// The factors of a file are f32, whatever they were read as.
fn as_f32(tensor: &HostTensor) -> HostTensor {
    HostTensor {
        dtype: FileDtype::F32,
        ..tensor.clone()
    }
}

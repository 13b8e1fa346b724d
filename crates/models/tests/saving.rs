//! A saved checkpoint is the file that safetensors itself would write, whole or not there at all.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lowburn_models::{
    LoadOptions, ModelConfig, SequenceClassifier, load_classifier, save_checkpoint,
};
use safetensors::tensor::{Dtype, TensorView};

const WEIGHTS: &str = "model.safetensors";

fn model(device: &Device) -> (SequenceClassifier, ModelConfig) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let options = LoadOptions {
        num_labels: 3,
        head_seed: 1,
        dtype: lowburn_models::Dtype::F32,
    };
    let dir = root.join("../../data/parity/models/pad0");
    let (model, config, _) = load_classifier(&dir, &options, device).unwrap();
    (model, config)
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into())
        .collect();
    names.sort();
    names
}

#[test]
fn the_file_is_byte_for_byte_what_safetensors_writes() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let (model, config) = model(&device);
        let dir = tempfile::tempdir().unwrap();
        save_checkpoint(&model, &config, None, dir.path()).unwrap();
        let tensors = model.host_tensors(|_| true);
        let bytes: Vec<Vec<u8>> = tensors
            .values()
            .map(|tensor| tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
            let shape = tensor.shape.clone();
            (name, TensorView::new(Dtype::F32, shape, bytes).unwrap())
        });
        let format = [("format".to_owned(), "pt".to_owned())];
        let expected = safetensors::serialize(views, Some(format.into_iter().collect())).unwrap();
        assert!(fs::read(dir.path().join(WEIGHTS)).unwrap() == expected);
        assert_eq!(
            names(dir.path()),
            ["config.json", WEIGHTS].map(PathBuf::from)
        );
    }
}

#[test]
fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
    let (model, config) = model(&Device::flex());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(WEIGHTS)).unwrap();
    let error = save_checkpoint(&model, &config, None, dir.path()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(WEIGHTS), "{message}");
    assert_eq!(
        names(dir.path()),
        ["config.json", WEIGHTS].map(PathBuf::from)
    );
    let nowhere = dir.path().join("nowhere");
    let error = save_checkpoint(&model, &config, None, &nowhere).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert!(!nowhere.exists());
}

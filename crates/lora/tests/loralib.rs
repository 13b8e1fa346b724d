//! loralib checkpoints: read, converted to PEFT and back without a bit changed.

use std::fs;
use std::path::{Path, PathBuf};

use lowburn_lora::{
    AdapterFile, FileDtype, HostTensor, Targets, read_loralib, read_peft, write_loralib, write_peft,
};
use pytorch_reader::PytorchReader;
use serde_json::Value;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn fixture_adapter() -> AdapterFile {
    read_loralib(&fixture("loralib.bin"), 7.0).unwrap()
}

/// Name, shape and values of every tensor of the fixture, in the order of the file.
fn expected() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let text = fs::read(fixture("loralib.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Where each name of `names` is in the bytes of the file.
fn places(file: &Path, names: &[&str]) -> Vec<usize> {
    let bytes = fs::read(file).unwrap();
    let place = |name: &&str| {
        // A pickled string: its length, then its text.
        let text = [
            (name.len() as u32).to_le_bytes().as_slice(),
            name.as_bytes(),
        ]
        .concat();
        bytes
            .windows(text.len())
            .position(|w| w == text)
            .unwrap_or_else(|| panic!("{name}"))
    };
    names.iter().map(place).collect()
}

fn written(adapter: &AdapterFile) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.bin");
    write_loralib(adapter, &path).unwrap();
    (dir, path)
}

#[test]
fn ranks_and_targets_come_from_the_tensors() {
    let adapter = fixture_adapter();
    assert_eq!(adapter.config.rank, 2);
    assert_eq!(adapter.config.alpha, 7.0);
    assert_eq!(adapter.config.targets, Targets::names(["query", "value"]));
    assert_eq!(adapter.config.modules_to_save, ["classifier", "score"]);
    assert_eq!(adapter.factors.len(), 24);
    assert_eq!(adapter.saved.len(), 4);
    for (name, shape, values) in expected() {
        let tensor = match name.rsplit_once('.').unwrap() {
            (module, "lora_A") => &adapter.factors[module].a,
            (module, "lora_B") => &adapter.factors[module].b,
            _ => &adapter.saved[&name],
        };
        assert_eq!(tensor.shape, shape, "{name}");
        assert_eq!(tensor.data, values, "{name}");
    }
}

#[test]
fn there_and_back_keeps_every_bit_and_the_order() {
    let dir = tempfile::tempdir().unwrap();
    write_peft(&fixture_adapter(), dir.path()).unwrap();
    let (_dir, path) = written(&read_peft(dir.path()).unwrap());
    assert_same_tensors(&fixture("loralib.bin"), &path);
    let expected = expected();
    let names: Vec<&str> = expected.iter().map(|(name, _, _)| name.as_str()).collect();
    assert!(places(&path, &names).is_sorted());
    assert!(places(&fixture("loralib.bin"), &names).is_sorted());
}

fn assert_same_tensors(left: &Path, right: &Path) {
    let left = PytorchReader::new(left).unwrap();
    let right = PytorchReader::new(right).unwrap();
    assert_eq!(left.len(), right.len());
    for (name, tensor) in left.tensors() {
        let other = right
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(tensor.shape(), other.shape(), "{name}");
        assert_eq!(tensor.dtype(), other.dtype(), "{name}");
        assert!(tensor.read().unwrap() == other.read().unwrap(), "{name}");
    }
}

#[test]
fn half_precision_stays_half_precision() {
    let mut adapter = fixture_adapter();
    let head = adapter.saved.get_mut("classifier.dense.bias").unwrap();
    *head = HostTensor {
        dtype: FileDtype::BF16,
        ..HostTensor::new([2], vec![1.5, -2.0])
    };
    let (_dir, path) = written(&adapter);
    assert_eq!(read_loralib(&path, 7.0).unwrap(), adapter);
}

#[test]
fn ranks_may_differ_from_layer_to_layer() {
    let mut adapter = fixture_adapter();
    let module = "roberta.encoder.layer.3.attention.self.value";
    let factors = adapter.factors.get_mut(module).unwrap();
    factors.a = HostTensor::new([3, 5], vec![1.0; 15]);
    factors.b = HostTensor::new([5, 3], vec![2.0; 15]);
    adapter
        .config
        .rank_pattern
        .insert("layer.3.attention.self.value", 3);
    let (_dir, path) = written(&adapter);
    let again = read_loralib(&path, 7.0).unwrap();
    assert_eq!(again.factors, adapter.factors);
    assert_eq!(again.config.resolve(module), adapter.config.resolve(module));
    assert_eq!(again.config.resolve(module).unwrap().rank, 3);
}

#[test]
fn what_the_format_cannot_say_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.bin");
    let mut rslora = fixture_adapter();
    rslora.config.use_rslora = true;
    let mut alphas = fixture_adapter();
    alphas.config.alpha_pattern.insert("query", 3.0);
    for (adapter, expected) in [(rslora, "use_rslora"), (alphas, "alpha_pattern")] {
        let message = write_loralib(&adapter, &path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!path.exists());
    }
}

#[test]
fn bad_checkpoints_are_one_clear_error() {
    let refused = |path: &Path, alpha: f64, expected: &[&str]| {
        let message = read_loralib(path, alpha).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.bin");
    refused(&path, 8.0, &["x.bin", "cannot read"]);
    refused(&fixture("loralib.bin"), f64::NAN, &["alpha is NaN"]);
    refused(&fixture("loralib.bin"), 0.0, &["alpha is 0"]);
    let good = fs::read(fixture("loralib.bin")).unwrap();
    for bytes in [&[][..], b"hello", &good[..good.len() / 2], &good[..100]] {
        fs::write(&path, bytes).unwrap();
        refused(&path, 8.0, &["x.bin", "damaged"]);
    }
    // One bit of a tensor's data: the archive's checksum finds it.
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    for byte in &mut flipped[middle..middle + 200] {
        *byte ^= 1;
    }
    fs::write(&path, flipped).unwrap();
    refused(&path, 8.0, &["x.bin"]);
}

#[test]
fn unsuited_checkpoints_are_named() {
    for (change, expected) in [
        (
            // As loralib saves with bias="all".
            (&|adapter: &mut AdapterFile| {
                let bias = HostTensor::new([1], vec![0.0]);
                adapter
                    .saved
                    .insert("roberta.encoder.layer.0.output.dense.bias".to_owned(), bias);
            }) as &dyn Fn(&mut AdapterFile),
            "trained biases",
        ),
        (
            &|adapter| {
                let bias = HostTensor::new([1], vec![0.0]);
                adapter.saved.insert("base_model.model.x".to_owned(), bias);
            },
            "PEFT file",
        ),
        (
            &|adapter| {
                let half = HostTensor::new([2, 5], vec![0.0; 10]);
                adapter.saved.insert("y.query.lora_A".to_owned(), half);
            },
            "y.query.lora_B",
        ),
    ] {
        let mut adapter = fixture_adapter();
        change(&mut adapter);
        let (_dir, path) = written(&adapter);
        let message = read_loralib(&path, 8.0).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// The authors' own file, where the folder that holds it is given in LOWBURN_SHARED.
#[test]
fn the_authors_adapter_is_converted_and_restored() {
    let folder = std::env::var_os("LOWBURN_SHARED").map(PathBuf::from);
    let Some(file) = folder.map(|folder| folder.join("loralib/roberta_base_lora_mnli.bin")) else {
        println!(
            "skipped: LOWBURN_SHARED does not say where loralib/roberta_base_lora_mnli.bin is"
        );
        return;
    };
    let adapter = read_loralib(&file, 16.0).unwrap();
    assert_eq!(adapter.config.rank, 8);
    assert_eq!(adapter.config.targets, Targets::names(["query", "value"]));
    assert_eq!(adapter.factors.len(), 24);
    assert_eq!(adapter.saved["classifier.out_proj.weight"].shape, [3, 768]);
    let dir = tempfile::tempdir().unwrap();
    write_peft(&adapter, dir.path()).unwrap();
    let again = read_peft(dir.path()).unwrap();
    let (_dir, path) = written(&again);
    assert_same_tensors(&file, &path);
    assert_eq!(read_loralib(&path, 16.0).unwrap(), adapter);
    let config = fs::read(dir.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["lora_alpha"], 16);
}

//! Whole runs beside the same runs of PyTorch, transformers and PEFT.
//!
//! The references lie in `data/parity` with the script that made them; its README says what they
//! hold. Each run here is the command line that the reference names.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{json, lowburn, text};
use safetensors::SafeTensors;
use serde_json::Value;

/// Largest relative difference of loss and gradient norm. The contract asks for 1e-3; both sides
/// round to 32 bit in another order, and thirty steps of Adam carry that on.
const TRAJECTORY: f64 = 2e-4;
/// Largest difference of a trained number, relative to the largest of its tensor.
const TENSOR: f64 = 1e-3;

fn parity() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/parity")
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn close(what: &str, ours: &Value, theirs: &Value, tolerance: f64) {
    let (a, b) = (number(ours), number(theirs));
    let difference = (a - b).abs() / b.abs().max(1e-3);
    assert!(
        difference <= tolerance,
        "{what}: {a}, reference {b}, {difference:e}"
    );
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let numbers = |data: &[u8]| {
        let (chunks, _) = data.as_chunks::<4>();
        chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    file.iter()
        .map(|(name, view)| {
            let name = name.strip_prefix("base_model.model.").unwrap_or(name);
            (
                name.to_owned(),
                (view.shape().to_vec(), numbers(view.data())),
            )
        })
        .collect()
}

/// Where the best epoch's tensors are.
fn kept(output: &Path) -> PathBuf {
    let places = [
        "adapter/adapter_model.safetensors",
        "head/head.safetensors",
        "model/model.safetensors",
    ];
    let mut places = places.iter().map(|place| output.join(place));
    places.find(|place| place.exists()).expect("something kept")
}

fn compare_tensors(ours: &Tensors, theirs: &Tensors, skip: &[Value]) {
    let skip: Vec<_> = skip.iter().filter_map(Value::as_str).collect();
    for (name, (shape, expected)) in theirs {
        let (found_shape, found) = &ours[name];
        assert_eq!(found_shape, shape, "{name}");
        if skip.contains(&name.as_str()) {
            continue;
        }
        let largest = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        let pairs = found.iter().zip(expected);
        let difference = pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        let relative = f64::from(difference / largest.max(1e-3));
        assert!(relative <= TENSOR, "{name}: {relative:e}");
    }
    assert_eq!(ours.len(), theirs.len());
}

/// `root` is the folder of an architecture below the references; the data sets are common.
fn same_run(root: &str, name: &str) {
    let folder = parity().join(root);
    let path = folder.join("trajectories").join(name);
    let read = |path: PathBuf| json(&fs::read_to_string(path).expect("a reference"));
    let reference = read(path.with_extension("json"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let place = |field: &str| {
        reference[field]
            .as_str()
            .map(|part| text(&folder.join(part)))
    };
    let mut line: Vec<String> = ["train", "--data-dir"].map(str::to_owned).to_vec();
    line.push(text(&parity().join("glue")));
    line.extend(["--model".to_owned(), place("model").expect("a model")]);
    if let Some(adapter) = place("init_adapter") {
        line.extend(["--init-adapter".to_owned(), adapter]);
    }
    let flags = reference["flags"].as_array().expect("flags");
    line.extend(flags.iter().filter_map(Value::as_str).map(str::to_owned));
    line.extend(["--output".to_owned(), text(&output)]);
    lowburn(&line).ok();

    let log = fs::read_to_string(output.join("log.jsonl")).expect("a log");
    let steps = reference["steps"].as_array().expect("steps");
    assert_eq!(log.lines().count(), steps.len());
    for (ours, theirs) in log.lines().map(json).zip(steps) {
        for field in ["step", "examples", "tokens"] {
            assert_eq!(ours[field], theirs[field], "{field} of {theirs}");
        }
        for field in ["epoch", "lr"] {
            let (ours, theirs) = (number(&ours[field]), number(&theirs[field]));
            assert!(
                (ours - theirs).abs() < 1e-12,
                "{field}: {ours} and {theirs}"
            );
        }
        for field in ["loss", "grad_norm"] {
            close(
                &format!("{field} of {theirs}"),
                &ours[field],
                &theirs[field],
                TRAJECTORY,
            );
        }
    }
    let record = read(output.join("run.json"));
    for (field, count) in reference["parameters"].as_object().expect("counts") {
        assert_eq!(&record["parameters"][field], count, "{field}");
    }
    let evaluations = reference["evaluations"].as_array().expect("evaluations");
    let ours = record["evaluations"].as_array().expect("evaluations");
    assert_eq!(ours.len(), evaluations.len());
    for (ours, theirs) in ours.iter().zip(evaluations) {
        close("loss", &ours["loss"], &theirs["loss"], TRAJECTORY);
        for (metric, value) in theirs["scores"].as_object().expect("scores") {
            close(metric, &ours["scores"][metric], value, TRAJECTORY);
        }
    }
    assert_eq!(record["best"]["step"], reference["best"]["step"]);
    let skip = reference["rounding_only"].as_array().expect("names");
    let expected = tensors(&path.with_extension("safetensors"));
    compare_tensors(&tensors(&kept(&output)), &expected, skip);
}

#[test]
fn lora_on_pairs() {
    same_run("", "lora_mrpc");
}

#[test]
fn lora_on_scores() {
    same_run("", "lora_stsb");
}

#[test]
fn full_fine_tuning() {
    same_run("", "full_sst2");
}

#[test]
fn the_head_alone() {
    same_run("", "head_mrpc");
}

#[test]
fn accumulation_with_an_uneven_end() {
    same_run("", "accumulate_uneven");
    same_run("", "accumulate_single");
}

/// Convolution, shared projections, string of terms, tokenizer from spm.model.
#[test]
fn deberta_with_lora() {
    same_run("deberta", "lora_conv_sst2");
}

#[test]
fn deberta_with_lora_on_scores() {
    same_run("deberta", "lora_stsb");
}

#[test]
fn deberta_in_full() {
    same_run("deberta", "full_conv_sst2");
    same_run("deberta", "full_c2p_mrpc");
}

#[test]
fn deberta_with_the_head_alone() {
    same_run("deberta", "head_conv_mrpc");
}

#[test]
fn deberta_with_accumulation() {
    same_run("deberta", "accumulate_c2p");
}

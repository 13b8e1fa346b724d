//! Equal to transformers and PEFT on the references in data/parity.
//!
//! Bounds: single-precision sums in another order. Seen differences are below 2e-6 on values of
//! order 1; the bound of 1e-5 leaves room for other instruction sets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use lowburn_lora::{HostTensor, read_peft};
use lowburn_models::{
    Dtype, HeadPolicy, LoadOptions, LoraPositionBranch, Method, Mode, ModelInput, NamedVisitor,
    SequenceClassifier, is_head, is_transposed, load_classifier, save_checkpoint, visit_named,
};
use safetensors::SafeTensors;
use serde_json::Value;

const BOUND: f32 = 1e-5;

fn parity(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/parity")
        .join(path)
}

/// The folders of references: RoBERTa's and DeBERTa-v2's, laid out alike.
const ROOTS: [&str; 2] = ["", "deberta/"];

/// The cases of a file of each root, with the root.
fn cases(file: &str) -> Vec<(&'static str, Value)> {
    let of = |root: &'static str| {
        let bytes = std::fs::read(parity(&format!("{root}{file}"))).unwrap();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        let cases = json["cases"].as_array().unwrap().clone();
        cases.into_iter().map(move |case| (root, case))
    };
    ROOTS.into_iter().flat_map(of).collect()
}

/// All tensors of a reference file: shape and values (integers as f32).
fn tensors(path: &str) -> BTreeMap<String, HostTensor> {
    let bytes = std::fs::read(parity(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        let words = view
            .data()
            .chunks_exact(4)
            .map(|b| [b[0], b[1], b[2], b[3]]);
        match view.dtype() {
            safetensors::Dtype::F32 => words.map(f32::from_le_bytes).collect(),
            safetensors::Dtype::I32 => words.map(|b| i32::from_le_bytes(b) as f32).collect(),
            other => panic!("{other:?} in a reference"),
        }
    };
    file.tensors()
        .iter()
        .map(|(name, view)| {
            (
                name.clone(),
                HostTensor::new(view.shape().to_vec(), read(view)),
            )
        })
        .collect()
}

fn input(reference: &BTreeMap<String, HostTensor>) -> ModelInput {
    let ids = &reference["ids"];
    let lengths = reference["lengths"]
        .data
        .iter()
        .map(|n| *n as usize)
        .collect();
    let values = ids.data.iter().map(|id| *id as i32).collect();
    let input = ModelInput::new(values, ids.shape[0], ids.shape[1], lengths);
    match reference.get("type_ids") {
        Some(types) => input.with_type_ids(types.data.iter().map(|t| *t as i32).collect()),
        None => input,
    }
}

fn load(root: &str, model: &str, labels: usize) -> SequenceClassifier {
    let options = LoadOptions {
        num_labels: labels,
        head_seed: 1,
        dtype: Dtype::F32,
    };
    let dir = parity(root).join("models").join(model);
    load_classifier(&dir, &options, &Device::flex().autodiff())
        .unwrap()
        .0
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn close(what: &str, ours: &[f32], theirs: &[f32], bound: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= bound, "{what}[{i}]: {a} is not {b}");
    }
}

#[test]
fn hidden_states_and_logits_equal_transformers() {
    for (root, case) in cases("forward.json") {
        let model = case["model"].as_str().unwrap();
        let name = case["name"].as_str().unwrap_or(model);
        let reference = tensors(&format!("{root}forward_{name}.safetensors"));
        let labels = case["labels"].as_u64();
        let model = load(root, model, labels.unwrap_or(2) as usize);
        let batch = input(&reference);
        let states = model.backbone.hidden_states(&batch);
        assert_eq!(states.len() as u64, case["layers"].as_u64().unwrap() + 1);
        for (i, state) in states.into_iter().enumerate() {
            let width = state.dims()[2];
            let (ours, theirs) = (values(state), &reference[&format!("hidden.{i}")].data);
            for (row, length) in batch.lengths.iter().enumerate() {
                let real = row * batch.length * width..(row * batch.length + length) * width;
                let what = format!("{name} hidden.{i} row {row}");
                close(&what, &ours[real.clone()], &theirs[real], BOUND);
            }
        }
        if labels.is_some() {
            let logits = values(model.forward(&batch, &mut Mode::eval()));
            close(
                &format!("{name} logits"),
                &logits,
                &reference["logits"].data,
                BOUND,
            );
        }
    }
}

/// The gradients of all trainable parameters, in the layout of the files.
struct Gradients<'a> {
    gradients: &'a burn::tensor::Gradients,
    found: BTreeMap<String, Vec<f32>>,
}

impl NamedVisitor for Gradients<'_> {
    fn visit<const D: usize>(&mut self, name: &str, param: &burn::module::Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            let gradient = if is_transposed(name, D) {
                gradient.swap_dims(0, 1)
            } else {
                gradient
            };
            self.found.insert(name.to_owned(), values(gradient));
        }
    }
}

#[test]
fn gradients_equal_pytorch_and_frozen_parameters_have_none() {
    for (root, case) in cases("gradients.json") {
        let (name, model) = (
            case["name"].as_str().unwrap(),
            case["model"].as_str().unwrap(),
        );
        let forward = tensors(&format!("{root}forward_{model}.safetensors"));
        let reference = tensors(&format!("{root}gradients_{name}.safetensors"));
        let labels: Vec<i32> = reference["batch.labels"]
            .data
            .iter()
            .map(|label| *label as i32)
            .collect();
        let classes = forward["logits"].shape[1];
        let mut classifier = load(root, model, classes);
        let method = match case["adapter"].as_str() {
            Some(adapter) => {
                let file = read_peft(&parity(root).join("adapters").join(adapter)).unwrap();
                classifier = classifier
                    .apply_adapter(&file, HeadPolicy::Required)
                    .unwrap();
                Method::Lora
            }
            None => Method::Full,
        };
        let classifier = classifier.set_trainable(method);
        let logits = classifier.forward(&input(&forward), &mut Mode::eval());
        let n = labels.len();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(labels, [n]), &logits.device());
        let picked = activation::log_softmax(logits, 1).gather(1, targets.reshape([n, 1]));
        let loss = picked.mean().neg();
        let gradients = loss.clone().backward();
        close(
            name,
            &values(loss),
            &[case["loss"].as_f64().unwrap() as f32],
            BOUND,
        );
        let mut found = Gradients {
            gradients: &gradients,
            found: BTreeMap::new(),
        };
        visit_named(&classifier, &mut found);
        let expected: Vec<&String> = reference.keys().filter(|k| *k != "batch.labels").collect();
        assert_eq!(
            found.found.keys().collect::<Vec<_>>(),
            expected,
            "{name}: who has a gradient"
        );
        for key in expected {
            close(
                &format!("{name} {key}"),
                &found.found[key],
                &reference[key].data,
                BOUND,
            );
        }
    }
}

/// The gradients of full fine-tuning are PyTorch's (above); those of the biases alone, which take other ways through the
/// backward passes, must be the same, and nothing else may have one.
#[test]
fn bitfit_has_the_biases_gradients_of_full_fine_tuning() {
    for (root, case) in cases("gradients.json") {
        if !case["adapter"].is_null() {
            continue;
        }
        let model = case["model"].as_str().unwrap();
        let forward = tensors(&format!("{root}forward_{model}.safetensors"));
        let classes = forward["logits"].shape[1];
        let gradients_of = |method: Method| {
            let classifier = load(root, model, classes).set_trainable(method);
            let logits = classifier.forward(&input(&forward), &mut Mode::eval());
            let gradients = logits.powi_scalar(2).sum().backward();
            let mut found = Gradients {
                gradients: &gradients,
                found: BTreeMap::new(),
            };
            visit_named(&classifier, &mut found);
            found.found
        };
        let mut expected = gradients_of(Method::Full);
        expected.retain(|name, _| is_head(name) || name.ends_with(".bias"));
        let found = gradients_of(Method::Bitfit);
        assert!(found.len() > 10, "{model}: {} tensors", found.len());
        assert!(
            found.keys().eq(expected.keys()),
            "{model}: who has a gradient"
        );
        for (name, gradient) in &found {
            close(&format!("{model} {name}"), gradient, &expected[name], BOUND);
        }
    }
}

#[test]
fn adapters_of_peft_give_its_logits_before_and_after_merging() {
    for (root, case) in cases("adapters.json") {
        let (name, model) = (
            case["name"].as_str().unwrap(),
            case["model"].as_str().unwrap(),
        );
        let theirs = |key: &str| -> Vec<f32> {
            let rows = case[key].as_array().unwrap().iter();
            rows.flat_map(|row| {
                row.as_array()
                    .unwrap()
                    .iter()
                    .map(|v| v.as_f64().unwrap() as f32)
            })
            .collect()
        };
        let labels = case["logits"][0].as_array().unwrap().len();
        let file = read_peft(&parity(root).join("adapters").join(name)).unwrap();
        let base = load(root, model, labels);
        let mut linears = base.linear_names();
        linears.extend(
            file.factors
                .keys()
                .filter(|module| is_head(module))
                .cloned(),
        );
        let mut plan = file.plan(&linears).unwrap();
        plan.retain(|module, _| !is_head(module));
        let modules = case["modules"].as_object().unwrap();
        // Factors of the head are folded into it, they are no adapter of ours.
        let encoder = modules.keys().filter(|module| !is_head(module));
        assert!(plan.keys().eq(encoder), "{name}: which layers");
        for (module, settings) in &plan {
            assert_eq!(
                settings.rank as u64,
                modules[module]["rank"].as_u64().unwrap()
            );
            assert!((settings.scale - modules[module]["scale"].as_f64().unwrap()).abs() < 1e-9);
        }
        let mut adapted = base.apply_adapter(&file, HeadPolicy::Required).unwrap();
        let batch = input(&tensors(&format!("{root}forward_{model}.safetensors")));
        let logits = values(adapted.forward(&batch, &mut Mode::eval()));
        close(&format!("{name} logits"), &logits, &theirs("logits"), BOUND);
        if !case["authors_logits"].is_null() {
            adapted.set_position_branch(LoraPositionBranch::Authors);
            let logits = values(adapted.forward(&batch, &mut Mode::eval()));
            let what = format!("{name} logits under the authors' way");
            close(&what, &logits, &theirs("authors_logits"), BOUND);
            adapted.set_position_branch(LoraPositionBranch::Peft);
        }
        adapted.merge();
        let logits = values(adapted.forward(&batch, &mut Mode::eval()));
        close(
            &format!("{name} merged logits"),
            &logits,
            &theirs("merged_logits"),
            BOUND,
        );
    }
}

#[test]
fn saved_checkpoints_load_to_the_same_bits() {
    let device = Device::flex();
    let roberta = [("tiny", 2), ("pad0", 3), ("base", 4), ("mlm", 1)].map(|case| ("", case));
    let deberta = [
        ("deb_absolute", 2),
        ("deb_c2p", 2),
        ("deb_conv", 2),
        ("deb_mlm", 3),
        ("deb_p2c", 1),
        ("deb_plain", 3),
    ];
    let deberta = deberta.map(|case| ("deberta", case));
    for (root, (name, labels)) in roberta.into_iter().chain(deberta) {
        let options = LoadOptions {
            num_labels: labels,
            head_seed: 3,
            dtype: Dtype::F32,
        };
        let dir = parity(root).join("models").join(name);
        let (model, config, _) = load_classifier(&dir, &options, &device).unwrap();
        let out = tempfile::tempdir().unwrap();
        save_checkpoint(&model, &config, None, out.path()).unwrap();
        let (again, _, report) = load_classifier(out.path(), &options, &device).unwrap();
        assert_eq!(report.head, lowburn_models::HeadOrigin::Loaded);
        assert!(report.ignored.is_empty());
        assert_eq!(
            model.host_tensors(|_| true),
            again.host_tensors(|_| true),
            "{name}"
        );
    }
}

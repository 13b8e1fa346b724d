//! What adapters must do to a whole model, with alpha != r, r != d, B != 0 and random input.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use lowburn_kernels::normal;
use lowburn_lora::{HostTensor, LoraConfig, read_peft, write_peft};
use lowburn_models::{
    HeadPolicy, Method, Mode, ModelConfig, ModelInput, NamedMapper, NamedVisitor,
    SequenceClassifier, is_factor, is_head, map_named, random_classifier, visit_named,
};

const ROWS: usize = 3;
const LENGTH: usize = 9;

fn config() -> ModelConfig {
    let json = br#"{
        "model_type": "roberta", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 20,
        "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5, "initializer_range": 0.2,
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1
    }"#;
    ModelConfig::parse(json, Path::new("config.json")).unwrap()
}

fn plain() -> SequenceClassifier {
    random_classifier(&config(), 3, 11, &Device::flex().autodiff()).unwrap()
}

fn lora(targets: &str) -> LoraConfig {
    let mut config = LoraConfig::new(5, 8.0, targets.parse().unwrap());
    config.dropout = 0.3;
    config
}

fn random<const D: usize>(shape: [usize; D], key: u64, device: &Device) -> Tensor<D> {
    let n = shape.iter().product::<usize>() as u64;
    let values = (0..n).map(|i| normal(key, i) as f32 * 0.3).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The model with adapters whose B is not zero.
fn adapted(targets: &str) -> SequenceClassifier {
    let mut model = plain();
    let config = lora(targets);
    let plan = config.plan(&model.linear_names()).unwrap();
    model.attach(&plan, config.init, 5);
    let mut key = 100;
    model.each_linear(&mut |_, linear| {
        if let Some(adapter) = &mut linear.adapter {
            key += 1;
            let b = adapter.b.val();
            adapter.b = Param::from_tensor(random(b.dims(), key, &b.device()));
        }
    });
    model
}

/// Rows of 9, 4 and 1 real tokens.
fn input() -> ModelInput {
    let lengths = vec![LENGTH, 4, 1];
    let id = |row: usize, at: usize| match at < lengths[row] {
        true => 3 + ((7 * row + 5 * at) % 47) as i32,
        false => 1,
    };
    let ids = (0..ROWS).flat_map(|row| (0..LENGTH).map(move |at| (row, at)));
    let ids = ids.map(|(row, at)| id(row, at)).collect();
    ModelInput::new(ids, ROWS, LENGTH, lengths.clone())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

fn logits(model: &SequenceClassifier) -> Vec<f32> {
    values(model.forward(&input(), &mut Mode::eval()))
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let distances = a.iter().zip(b).map(|(x, y)| (x - y).abs());
    distances.fold(0.0, f32::max)
}

#[test]
fn a_new_adapter_changes_nothing_and_a_trained_one_does() {
    let mut model = plain();
    let before = logits(&model);
    let config = lora("all-linear");
    let plan = config.plan(&model.linear_names()).unwrap();
    model.attach(&plan, config.init, 5);
    assert_eq!(model.host_tensors(is_factor).len(), 2 * 12);
    assert_eq!(farthest(&logits(&model), &before), 0.0);
    assert!(farthest(&logits(&adapted("all-linear")), &before) > 0.01);
}

#[test]
fn merged_it_gives_the_same_logits_and_no_adapter_is_left() {
    for targets in ["query,value", "all-linear"] {
        let mut model = adapted(targets);
        let before = logits(&model);
        model.merge();
        // Single-precision sums in another order, on logits of order 1.
        assert!(farthest(&logits(&model), &before) < 1e-5, "{targets}");
        assert!(model.host_tensors(is_factor).is_empty());
    }
}

#[test]
fn unmerged_it_gives_the_weights_back_to_rounding() {
    let mut model = adapted("all-linear");
    let (before, output) = (model.host_tensors(|_| true), logits(&model));
    let mut adapters = BTreeMap::new();
    model.each_linear(&mut |name, linear| {
        if let Some(adapter) = linear.merge() {
            adapters.insert(name.to_owned(), adapter);
        }
    });
    assert_eq!(adapters.len(), 12);
    let merged = model.host_tensors(|_| true);
    model.each_linear(&mut |name, linear| {
        if let Some(adapter) = adapters.remove(name) {
            linear.unmerge(adapter);
        }
    });
    let after = model.host_tensors(|_| true);
    assert!(before.keys().eq(after.keys()));
    for (name, tensor) in &before {
        let distance = farthest(&tensor.data, &after[name].data);
        // Two roundings, of sums below 16.
        assert!(distance <= 2.0 * 16.0 * f32::EPSILON, "{name}: {distance}");
        let module = name.strip_suffix(".weight");
        let factor = module.map(|module| format!("{module}.lora_A.weight"));
        let adapts = factor.is_some_and(|factor| before.contains_key(&factor));
        if !is_factor(name) {
            assert_eq!(adapts, merged[name] != *tensor, "{name}");
            assert!(adapts || after[name] == *tensor, "{name}");
        }
    }
    assert!(farthest(&logits(&model), &output) < 1e-5);
}

#[test]
fn written_and_read_again_it_gives_the_same_logits() {
    let model = adapted("query,output.dense");
    let dir = tempfile::tempdir().unwrap();
    let file = model.adapter_file(&lora("query,output.dense"), None);
    write_peft(&file, dir.path()).unwrap();
    // Another head: the file's must take its place.
    let base = random_classifier(&config(), 3, 12, &Device::flex()).unwrap();
    let encoder = plain().host_tensors(|name| !is_head(name));
    let base = base.set_host_tensors(&encoder).unwrap();
    let read = read_peft(dir.path()).unwrap();
    let again = base.apply_adapter(&read, HeadPolicy::Required).unwrap();
    assert_eq!(logits(&again), logits(&model));
}

#[test]
fn an_adapter_of_another_model_is_refused_by_name() {
    let good = adapted("query").adapter_file(&lora("query"), None);
    let name = "roberta.encoder.layer.1.attention.self.query";
    let apply = |file| {
        plain()
            .apply_adapter(&file, HeadPolicy::Required)
            .map(|_| ())
    };
    apply(good.clone()).unwrap();

    let mut file = good.clone();
    let factors = file.factors.get_mut(name).unwrap();
    factors.a = HostTensor::new([5, 32], vec![0.0; 5 * 32]);
    let message = apply(file).unwrap_err().to_string();
    assert!(
        message.contains(name) && message.contains("[5, 32]"),
        "{message}"
    );
    assert!(message.contains("another base model"), "{message}");

    let mut file = good.clone();
    file.saved.remove("classifier.dense.bias");
    let message = apply(file).unwrap_err().to_string();
    assert!(message.contains("no classifier.dense.bias"), "{message}");

    let mut file = good;
    let output = HostTensor::new([2, 24], vec![0.0; 48]);
    file.saved
        .insert("classifier.out_proj.weight".into(), output);
    let shapes_agree = plain().apply_adapter(&file, HeadPolicy::WhereShapesAgree);
    assert_eq!(shapes_agree.unwrap().num_labels(), 3);
    let message = apply(file).unwrap_err().to_string();
    assert!(message.contains("[2, 24], expected [3, 24]"), "{message}");
}

#[test]
fn the_first_token_alone_is_token_0_of_them_all() {
    let model = adapted("all-linear");
    let all = model.backbone.forward(&input(), &mut Mode::eval());
    let first = model.backbone.first_token(&input(), &mut Mode::eval());
    assert_eq!(first.dims(), [ROWS, 24]);
    let all = values(all.narrow(1, 0, 1));
    assert!(farthest(&values(first), &all) < 1e-6);
}

#[test]
fn padding_changes_nothing() {
    let model = adapted("query,value");
    let all = logits(&model);
    let batch = input();
    for row in 0..ROWS {
        let length = batch.lengths[row];
        let ids = batch.ids[row * LENGTH..row * LENGTH + length].to_vec();
        let alone = ModelInput::new(ids, 1, length, vec![length]);
        let alone = values(model.forward(&alone, &mut Mode::eval()));
        assert!(
            farthest(&alone, &all[3 * row..3 * row + 3]) < 1e-5,
            "row {row}"
        );
    }
}

#[test]
#[should_panic(expected = "the model has 18 positions")]
fn a_row_longer_than_the_positions_panics() {
    let input = ModelInput::new(vec![5; 19], 1, 19, vec![19]);
    plain().forward(&input, &mut Mode::eval());
}

#[test]
fn dropout_depends_on_the_seed_alone_and_evaluation_has_none() {
    let model = adapted("query,value");
    let train = |seed| values(model.forward(&input(), &mut Mode::train(seed)));
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
    assert_eq!(logits(&model), logits(&model));
    assert_ne!(train(1), logits(&model));
}

/// One step of gradient descent on whatever has a gradient; the names of that.
struct Descend<'a> {
    gradients: &'a Gradients,
    trained: Vec<String>,
}

impl NamedMapper for Descend<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        let Some(gradient) = value.grad(self.gradients) else {
            return param;
        };
        self.trained.push(name.to_owned());
        let next = value.inner() - gradient.mul_scalar(0.1);
        Param::initialized(param.id, next.autodiff().set_require_grad(true))
    }
}

/// Names of all parameters.
struct Names(Vec<String>);

impl NamedVisitor for Names {
    fn visit<const D: usize>(&mut self, name: &str, _: &Param<Tensor<D>>) {
        self.0.push(name.to_owned());
    }
}

/// What each method trains, in words of its own.
fn is_trained(method: Method, name: &str) -> bool {
    let head = name.starts_with("classifier.");
    match method {
        Method::Full => true,
        Method::Head => head,
        Method::Lora => head || name.contains(".lora_A.") || name.contains(".lora_B."),
        Method::Bitfit => head || name.ends_with("bias"),
    }
}

#[test]
fn exactly_the_parameters_of_the_method_have_gradients_and_move() {
    for method in Method::ALL {
        let mut model = adapted("query,value").set_trainable(method);
        let before = model.host_tensors(|_| true);
        let mut names = Names(Vec::new());
        visit_named(&model, &mut names);
        let wanted: Vec<String> = names
            .0
            .into_iter()
            .filter(|n| is_trained(method, n))
            .collect();
        for step in 0..3 {
            let logits = model.forward(&input(), &mut Mode::train(step));
            let gradients = logits.powi_scalar(2).mean().backward();
            let mut descend = Descend {
                gradients: &gradients,
                trained: Vec::new(),
            };
            model = map_named(model, &mut descend);
            assert_eq!(descend.trained, wanted, "{method}, step {step}");
        }
        for (name, after) in model.host_tensors(|_| true) {
            // A bias of the keys moves every score of a row by the same amount: no gradient.
            let idle = name.ends_with("key.bias");
            assert!(
                idle || (after != before[&name]) == is_trained(method, &name),
                "{method}: {name}"
            );
        }
    }
}

//! A backward pass that computes every layer again has the gradients of one that keeps everything,
//! bit for bit, with dropout, for every method.
//!
//! No tolerance: each gradient is a sum of the same products in the same order. Where a tensor has
//! three gradients or more to add (a layer's input, the embeddings of distances) the order counts, so
//! the models have three layers, and both kinds of position terms.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use lowburn_kernels::normal;
use lowburn_lora::LoraConfig;
use lowburn_models::{
    LoraPositionBranch, Method, Mode, ModelConfig, ModelInput, NamedMapper, NamedVisitor,
    SequenceClassifier, map_named, random_classifier, visit_named,
};
use serde_json::{Value, json};

const LENGTHS: [usize; 3] = [9, 4, 1];

/// Config.json of a small model; `own` replaces or adds fields.
fn config(own: Value) -> ModelConfig {
    let mut fields = json!({
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3,
        "intermediate_size": 40, "max_position_embeddings": 20, "pad_token_id": 1,
        "initializer_range": 0.2, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2,
    });
    let own = own.as_object().expect("fields").clone();
    fields.as_object_mut().expect("fields").extend(own);
    let text = fields.to_string();
    ModelConfig::parse(text.as_bytes(), Path::new("config.json")).expect("a configuration")
}

fn roberta() -> Value {
    json!({"model_type": "roberta", "type_vocab_size": 1})
}

/// Every option of DeBERTa-v2 that a layer can meet; `own` replaces or adds fields.
fn deberta(own: Value) -> Value {
    let mut fields = json!({
        "model_type": "deberta-v2", "relative_attention": true, "position_buckets": 4,
        "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": "p2c|c2p",
        "conv_kernel_size": 3, "type_vocab_size": 2, "embedding_size": 16, "pooler_dropout": 0.1,
    });
    let own = own.as_object().expect("fields").clone();
    fields.as_object_mut().expect("fields").extend(own);
    fields
}

fn architectures() -> Vec<(&'static str, Value)> {
    vec![
        ("roberta", roberta()),
        (
            "roberta of one layer",
            json!({"model_type": "roberta", "type_vocab_size": 1, "num_hidden_layers": 1}),
        ),
        (
            "roberta with the other gelu",
            json!({"model_type": "roberta", "type_vocab_size": 1, "hidden_act": "gelu_new"}),
        ),
        ("deberta", deberta(json!({}))),
        (
            "deberta without dropout",
            deberta(json!({"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})),
        ),
        (
            "deberta with projections of its own",
            deberta(json!({
                "share_att_key": false, "norm_rel_ebd": "none", "conv_groups": 2, "conv_act": "gelu",
            })),
        ),
        (
            "deberta with position keys only",
            deberta(json!({"pos_att_type": "c2p", "conv_kernel_size": 0})),
        ),
        (
            "deberta of one layer",
            deberta(json!({"num_hidden_layers": 1})),
        ),
        (
            "deberta with plain attention",
            deberta(json!({"relative_attention": false, "norm_rel_ebd": "none"})),
        ),
    ]
}

/// Draws every parameter that starts at a constant, so that no gradient is zero or one by accident.
struct Draw(u64);

impl NamedMapper for Draw {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let constant = name.ends_with(".bias") || name.contains("LayerNorm");
        if !constant && !name.contains(".lora_B.") {
            return param;
        }
        let (value, key) = (param.val(), self.0);
        let shape = value.dims();
        let start = if name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        let n = shape.iter().product::<usize>() as u64;
        let drawn: Vec<f32> = (0..n)
            .map(|i| start + 0.3 * normal(key, i) as f32)
            .collect();
        let drawn = Tensor::from_data(TensorData::new(drawn, shape), &value.device());
        Param::initialized(param.id, drawn)
    }
}

fn model(own: &Value, method: Method, targets: &str) -> SequenceClassifier {
    let config = config(own.clone());
    let device = Device::flex().autodiff();
    let mut model = random_classifier(&config, 3, 11, &device).expect("a model");
    if method == Method::Lora {
        let mut lora = LoraConfig::new(5, 8.0, targets.parse().expect("targets"));
        lora.dropout = 0.3;
        let lora = model.architecture.lora_config(lora);
        let plan = lora.plan(&model.linear_names()).expect("a plan");
        model.attach(&plan, lora.init, 5);
    }
    map_named(model, &mut Draw(100)).set_trainable(method)
}

/// Rows of 9, 4 and 1 real tokens, of two types.
fn input(token_types: bool) -> ModelInput {
    let length = LENGTHS[0];
    let place = |i: usize| (i / length, i % length);
    let real = |i: usize| place(i).1 < LENGTHS[place(i).0];
    let all = 0..LENGTHS.len() * length;
    let id = |i: usize| match real(i) {
        true => 3 + ((7 * place(i).0 + 5 * place(i).1) % 47) as i32,
        false => 1,
    };
    let ids = all.clone().map(id).collect();
    let input = ModelInput::new(ids, LENGTHS.len(), length, LENGTHS.to_vec());
    let types = all.map(|i| i32::from(token_types && real(i) && place(i).1 > 2));
    input.with_type_ids(types.collect())
}

/// Every gradient by name, as bits; a name that comes twice is a mistake.
#[derive(Default)]
struct Bits(BTreeMap<String, Vec<u32>>);

impl Bits {
    fn collect(&mut self, model: &SequenceClassifier, graph: &Gradients) {
        struct Visit<'a>(&'a mut Bits, &'a Gradients);
        impl NamedVisitor for Visit<'_> {
            fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
                let Some(gradient) = param.val().grad(self.1) else {
                    return;
                };
                let before = self.0.0.insert(name.to_owned(), bits(gradient));
                assert!(before.is_none(), "{name} has a gradient in two parts");
            }
        }
        visit_named(model, &mut Visit(self, graph));
    }
}

fn bits<const D: usize>(x: Tensor<D>) -> Vec<u32> {
    let values: Vec<f32> = x.into_data().try_to_vec().expect("numbers");
    values.into_iter().map(f32::to_bits).collect()
}

/// A loss that weighs every logit in another way.
fn loss(logits: Tensor<2>) -> Tensor<1> {
    let shape = logits.dims();
    let n = shape[0] * shape[1];
    let weights: Vec<f32> = (0..n).map(|i| 0.3 + i as f32).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, shape), &logits.device());
    ((logits.clone() + logits * weights).powi_scalar(2)).mean()
}

struct Passed {
    logits: Vec<u32>,
    gradients: BTreeMap<String, Vec<u32>>,
    /// The numbers that come after the pass, which tell whether as many masks were drawn.
    mode: String,
    parts: usize,
}

fn whole(model: &SequenceClassifier, input: &ModelInput, mut mode: Mode) -> Passed {
    let logits = model.forward(input, &mut mode);
    let mut found = Bits::default();
    found.collect(model, &loss(logits.clone()).backward());
    Passed {
        logits: bits(logits),
        gradients: found.0,
        mode: format!("{mode:?}"),
        parts: 1,
    }
}

fn by_layers(model: &SequenceClassifier, input: &ModelInput, mut mode: Mode) -> Passed {
    let (logits, kept) = model.forward_keeping_inputs(input, &mut mode);
    let (mut found, mut parts) = (Bits::default(), 0);
    kept.backward(&loss(logits.clone()), &mut |graph| {
        found.collect(model, graph);
        parts += 1;
    });
    Passed {
        logits: bits(logits),
        gradients: found.0,
        mode: format!("{mode:?}"),
        parts,
    }
}

/// The parts of the backward pass by layers.
fn compare(what: &str, model: &SequenceClassifier, input: &ModelInput, mode: &Mode) -> usize {
    let expected = whole(model, input, mode.clone());
    let found = by_layers(model, input, mode.clone());
    assert_eq!(found.logits, expected.logits, "{what}: logits");
    assert_eq!(found.mode, expected.mode, "{what}: dropouts drawn");
    let names = |passed: &Passed| passed.gradients.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&found),
        names(&expected),
        "{what}: who has a gradient"
    );
    for (name, gradient) in &expected.gradients {
        // A bias of the keys moves every score of a row by the same amount: where token 0 alone is computed, its gradient is exactly 0.
        let idle = name.ends_with("key.bias") || name.ends_with("key_proj.bias");
        assert!(
            idle || gradient.iter().any(|bits| *bits << 1 != 0),
            "{what}: the gradient of {name} is 0 and proves nothing"
        );
        assert!(
            found.gradients[name] == *gradient,
            "{what}: the gradient of {name}"
        );
    }
    found.parts
}

#[test]
fn every_method_has_the_same_bits_in_every_architecture() {
    for (name, own) in architectures() {
        let input = input(own["model_type"] == "deberta-v2");
        for method in Method::ALL {
            let model = model(&own, method, "all-linear");
            for mode in [Mode::train(3), Mode::train(4), Mode::eval()] {
                let what = format!("{name}, {method}, {mode:?}");
                compare(&what, &model, &input, &mode);
            }
        }
    }
}

#[test]
fn the_authors_position_branch_has_the_same_bits() {
    let mut model = model(&deberta(json!({})), Method::Lora, "query,key,value");
    model.set_position_branch(LoraPositionBranch::Authors);
    compare("authors", &model, &input(true), &Mode::train(3));
}

#[test]
fn layers_below_what_is_trained_are_not_computed_again() {
    let parts = |method, targets| {
        let model = model(&roberta(), method, targets);
        compare(targets, &model, &input(false), &Mode::train(3))
    };
    // The last layer with the head; layers 1 and 0; the embeddings.
    assert_eq!(parts(Method::Full, ""), 4);
    assert_eq!(parts(Method::Bitfit, ""), 4);
    assert_eq!(parts(Method::Lora, "query,value"), 3);
    assert_eq!(parts(Method::Lora, r".*layer\.[12]\..*query"), 2);
    assert_eq!(parts(Method::Lora, r".*layer\.2\..*query"), 1);
    assert_eq!(parts(Method::Head, ""), 1);
}

#[test]
fn another_mask_gives_another_gradient() {
    let model = model(&roberta(), Method::Lora, "query,value");
    let gradients = |seed| by_layers(&model, &input(false), Mode::train(seed)).gradients;
    assert!(gradients(3) == gradients(3));
    assert!(gradients(3) != gradients(4));
}

#[test]
#[should_panic(expected = "a device with autodiff")]
fn a_device_without_autodiff_is_refused() {
    let model = random_classifier(&config(roberta()), 3, 11, &Device::flex()).expect("a model");
    model.forward_keeping_inputs(&input(false), &mut Mode::train(3));
}

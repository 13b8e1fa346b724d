//! A frozen base in 16 bit: what is stored so, and that the model is the one whose matrices were rounded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use lowburn_kernels::composed_only;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_models::{
    Dtype, LoadOptions, Method, Mode, ModelInput, NamedVisitor, SequenceClassifier, is_head,
    load_classifier, visit_named,
};

const MODELS: [&str; 3] = [
    "mini/model",
    "parity/deberta/models/deb_conv",
    "parity/deberta/models/deb_c2p",
];
const HALVES: [Dtype; 2] = [Dtype::Bf16, Dtype::F16];

fn folder(model: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    root.join(model)
}

fn load(model: &str, dtype: Dtype, device: &Device) -> SequenceClassifier {
    let options = LoadOptions {
        num_labels: 2,
        head_seed: 5,
        dtype,
    };
    let (mut model, config, _) =
        load_classifier(&folder(model), &options, device).expect("a checkpoint");
    let lora = LoraConfig::new(3, 6.0, Targets::names(["query", "value"]));
    let lora = config.architecture().lora_config(lora);
    let targets = lora.plan(&model.linear_names()).expect("targets");
    model.attach(&targets, lora.init, 3);
    model.set_trainable(Method::Lora)
}

/// Rows of unequal length.
fn input() -> ModelInput {
    let (lengths, longest) = (vec![7, 3, 5], 7);
    let id = |place: usize| 5 + 7 * (place as i32) % 40;
    let ids = (0..lengths.len() * longest).map(id).collect();
    ModelInput::new(ids, lengths.len(), longest, lengths)
}

fn logits(model: &SequenceClassifier, mode: Mode) -> Vec<f32> {
    let mut mode = mode;
    let logits = model.forward(&input(), &mut mode);
    assert_eq!(logits.dtype(), DType::F32);
    logits.into_data().try_into_vec().expect("f32")
}

/// The numbers and bytes of every parameter, by name.
fn parameters(model: &SequenceClassifier) -> BTreeMap<String, (DType, usize, Vec<f32>)> {
    #[derive(Default)]
    struct All(BTreeMap<String, (DType, usize, Vec<f32>)>);
    impl NamedVisitor for All {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let data = tensor.clone().into_data();
            let bytes = data.as_bytes().len();
            let numbers = data.convert::<f32>().try_into_vec().expect("converted");
            let found = (tensor.dtype(), bytes, numbers);
            self.0.insert(name.to_owned(), found);
        }
    }
    let mut all = All::default();
    visit_named(model, &mut all);
    all.0
}

#[test]
fn matrices_below_the_head_are_halves_of_the_file() {
    for name in MODELS {
        let full = parameters(&load(name, Dtype::F32, &Device::flex().autodiff()));
        for dtype in HALVES {
            let model = load(name, dtype, &Device::flex().autodiff());
            let stored = parameters(&model);
            let (mut matrices, mut rest) = (0, 0);
            assert!(stored.keys().eq(full.keys()));
            for (tensor, (kind, bytes, numbers)) in &stored {
                let (_, whole, expected) = &full[tensor];
                let is_matrix = tensor.ends_with("weight")
                    && !tensor.contains("LayerNorm")
                    && !tensor.contains("lora_")
                    && !is_head(tensor);
                if !is_matrix {
                    assert_eq!((*kind, numbers), (DType::F32, expected), "{tensor}");
                    rest += 1;
                    continue;
                }
                assert_eq!((*kind, 2 * bytes), (dtype.burn(), *whole), "{tensor}");
                let rounded = |v: &f32| match dtype {
                    Dtype::Bf16 => burn::tensor::bf16::from_f32(*v).to_f32(),
                    _ => burn::tensor::f16::from_f32(*v).to_f32(),
                };
                let rounded: Vec<f32> = expected.iter().map(rounded).collect();
                assert!(*numbers == rounded, "{tensor}");
                matrices += 1;
            }
            assert!(matrices > 10 && rest > 20, "{name}: {matrices} and {rest}");
            // The same by casting what was loaded.
            let cast = load(name, Dtype::F32, &Device::flex().autodiff()).with_base_dtype(dtype);
            assert!(parameters(&cast) == stored, "{name} in {dtype}");
            let mode = || Mode::train(4);
            assert_eq!(logits(&cast, mode()), logits(&model, mode()));
        }
    }
}

/// On flex nothing else is rounded: the logits are, bit for bit, those of f32 with the matrices' rounded numbers.
#[test]
fn on_flex_only_the_matrices_are_rounded() {
    for name in MODELS {
        for dtype in HALVES {
            let device = Device::flex().autodiff();
            let half = load(name, dtype, &device);
            let rounded = load(name, dtype, &device).with_base_dtype(Dtype::F32);
            let exact = load(name, Dtype::F32, &device);
            let of = |model| logits(model, Mode::train(9));
            let (half, rounded, exact) = (of(&half), of(&rounded), of(&exact));
            assert_eq!(half, rounded, "{name} in {dtype}");
            // The file of the first model holds f16.
            let is_exact = name == MODELS[0] && dtype == Dtype::F16;
            assert_eq!(half == exact, is_exact, "{name} in {dtype}");
        }
    }
}

/// As another device computes, in halves from the embeddings to the head: each layer rounds its output a few times, to 2^-9 (bf16) or
/// 2^-12 (f16) of it, and errors of some layers add up to less than 16 times that.
#[test]
fn with_activations_in_halves_logits_stay_near() {
    for name in MODELS {
        for dtype in HALVES {
            let exact = logits(&load(name, Dtype::F32, &Device::flex()), Mode::eval());
            let half = composed_only(|| logits(&load(name, dtype, &Device::flex()), Mode::eval()));
            let rounding = match dtype {
                Dtype::Bf16 => 2f32.powi(-9),
                _ => 2f32.powi(-12),
            };
            let size = exact
                .iter()
                .fold(0f32, |most, v| most.max(v.abs()))
                .max(1.0);
            for (a, b) in half.iter().zip(&exact) {
                assert!(
                    (a - b).abs() <= 16.0 * rounding * size,
                    "{name} in {dtype}: {a} is not {b}"
                );
            }
            assert!(half != exact);
        }
    }
}

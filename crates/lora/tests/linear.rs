//! The layer does the arithmetic of the paper: compared with sums written out in f64, with
//! alpha != r, r != d, B != 0 and random input.

use burn::tensor::{Device, Tensor, TensorData};
use lowburn_kernels::{Dropout, normal};
use lowburn_lora::{Adapter, Linear, LoraInit, ResolvedAdapter};

const ROWS: usize = 4;
const IN: usize = 7;
const RANK: usize = 3;
const OUT: usize = 5;

fn settings(dropout: f64) -> ResolvedAdapter {
    ResolvedAdapter {
        rank: RANK,
        alpha: 5.0,
        scale: 5.0 / RANK as f64,
        dropout,
    }
}

fn draw(key: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| normal(key, i) as f32).collect()
}

fn tensor<const D: usize>(data: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data.to_vec(), shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// The numbers of a layer, its adapter and its input.
struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Case {
    fn new() -> Self {
        Self {
            x: draw(1, ROWS * IN),
            weight: draw(2, IN * OUT),
            bias: draw(3, OUT),
            a: draw(4, IN * RANK),
            b: draw(5, RANK * OUT),
        }
    }

    fn input(&self, device: &Device) -> Tensor<2> {
        tensor(&self.x, [ROWS, IN], device)
    }

    fn plain(&self, device: &Device) -> Linear {
        let bias = tensor(&self.bias, [OUT], device);
        Linear::new(tensor(&self.weight, [IN, OUT], device), Some(bias))
    }

    fn adapter(&self, dropout: f64, device: &Device) -> Adapter {
        let a = tensor(&self.a, [IN, RANK], device);
        let b = tensor(&self.b, [RANK, OUT], device);
        Adapter::from_factors(a, b, &settings(dropout))
    }

    fn adapted(&self, dropout: f64, device: &Device) -> Linear {
        let mut linear = self.plain(device);
        linear.adapter = Some(self.adapter(dropout, device));
        linear
    }

    /// x W + bias + scale * (x * factors) A B, in f64.
    fn expected(&self, bias: bool, scale: f64, factors: &[f32]) -> Vec<f64> {
        let wide = |v: f32| f64::from(v);
        let mut y = Vec::new();
        for row in 0..ROWS {
            let x = |i: usize| wide(self.x[row * IN + i]);
            let kept = |i: usize| x(i) * wide(factors[row * IN + i]);
            let thin: Vec<f64> = (0..RANK)
                .map(|r| (0..IN).map(|i| kept(i) * wide(self.a[i * RANK + r])).sum())
                .collect();
            for out in 0..OUT {
                let base: f64 = (0..IN)
                    .map(|i| x(i) * wide(self.weight[i * OUT + out]))
                    .sum();
                let update: f64 = (0..RANK)
                    .map(|r| thin[r] * wide(self.b[r * OUT + out]))
                    .sum();
                let bias = if bias { wide(self.bias[out]) } else { 0.0 };
                y.push(base + bias + scale * update);
            }
        }
        y
    }
}

const KEEP_ALL: [f32; ROWS * IN] = [1.0; ROWS * IN];

#[track_caller]
fn close(ours: &[f32], exact: &[f64]) {
    assert_eq!(ours.len(), exact.len());
    for (i, (a, b)) in ours.iter().zip(exact).enumerate() {
        // A few roundings of sums of a dozen products of order 1 to 10.
        assert!((f64::from(*a) - b).abs() < 2e-5, "[{i}]: {a} is not {b}");
    }
}

fn devices() -> [Device; 2] {
    [Device::flex(), Device::flex().autodiff()]
}

#[test]
fn forward_is_the_formula() {
    let case = Case::new();
    let scale = 5.0 / RANK as f64;
    for device in devices() {
        let (plain, adapted) = (case.plain(&device), case.adapted(0.0, &device));
        let x = || case.input(&device);
        close(
            &values(plain.forward(x(), None)),
            &case.expected(true, 0.0, &KEEP_ALL),
        );
        let without = plain.forward_without_bias(x(), None);
        close(&values(without), &case.expected(false, 0.0, &KEEP_ALL));
        close(
            &values(adapted.forward(x(), None)),
            &case.expected(true, scale, &KEEP_ALL),
        );
        let without = adapted.forward_without_bias(x(), None);
        close(&values(without), &case.expected(false, scale, &KEEP_ALL));
    }
}

#[test]
fn rows_may_lie_in_any_number_of_dimensions() {
    let case = Case::new();
    let device = Device::flex();
    let linear = case.adapted(0.0, &device);
    let x: Tensor<3> = tensor(&case.x, [2, ROWS / 2, IN], &device);
    let y = linear.forward(x, None);
    assert_eq!(y.dims(), [2, ROWS / 2, OUT]);
    assert_eq!(values(y), values(linear.forward(case.input(&device), None)));
    assert_eq!(linear.sizes(), [IN, OUT]);
}

#[test]
fn a_layer_without_bias_adds_none() {
    let case = Case::new();
    let device = Device::flex();
    let mut linear = case.adapted(0.0, &device);
    linear.bias = None;
    let scale = 5.0 / RANK as f64;
    let expected = case.expected(false, scale, &KEEP_ALL);
    close(
        &values(linear.forward(case.input(&device), None)),
        &expected,
    );
    linear.merge();
    assert!(linear.bias.is_none());
    close(
        &values(linear.forward(case.input(&device), None)),
        &expected,
    );
}

#[test]
fn dropout_acts_on_the_adapters_input_and_only_with_a_key() {
    let case = Case::new();
    let scale = 5.0 / RANK as f64;
    for device in devices() {
        let linear = case.adapted(0.4, &device);
        let forward = |key| values(linear.forward(case.input(&device), key));
        close(&forward(None), &case.expected(true, scale, &KEEP_ALL));
        for key in [1, 2, u64::MAX] {
            let factors = Dropout::new(0.4, key).factors(ROWS * IN);
            assert!(
                factors.contains(&0.0),
                "take another key: this one drops nothing"
            );
            close(&forward(Some(key)), &case.expected(true, scale, &factors));
        }
        assert_eq!(forward(Some(1)), forward(Some(1)));
        assert_ne!(forward(Some(1)), forward(Some(2)));
        // Neither a probability of 0 nor a missing adapter needs the key.
        let linear = case.adapted(0.0, &device);
        let forward = |key| values(linear.forward(case.input(&device), key));
        assert_eq!(forward(Some(1)), forward(None));
        let linear = case.plain(&device);
        let forward = |key| values(linear.forward(case.input(&device), key));
        assert_eq!(forward(Some(1)), forward(None));
    }
}

#[test]
fn dropout_keeps_the_mean() {
    let case = Case::new();
    let device = Device::flex();
    let linear = case.adapted(0.4, &device);
    const DRAWS: u64 = 4000;
    let mut mean = [0.0; ROWS * OUT];
    for key in 0..DRAWS {
        let y = values(linear.forward(case.input(&device), Some(key)));
        for (sum, y) in mean.iter_mut().zip(y) {
            *sum += f64::from(y) / DRAWS as f64;
        }
    }
    let exact = case.expected(true, 5.0 / RANK as f64, &KEEP_ALL);
    for (mean, exact) in mean.iter().zip(exact) {
        // The standard deviation of one draw is below 20, that of the mean below 0.32.
        assert!((mean - exact).abs() < 1.2, "{mean} is not {exact}");
    }
}

#[test]
fn merged_the_layer_computes_the_same() {
    let case = Case::new();
    let scale = 5.0 / RANK as f64;
    for device in devices() {
        let mut linear = case.adapted(0.4, &device);
        let adapter = linear.merge().expect("an adapter is attached");
        assert!(linear.adapter.is_none());
        let merged = linear.forward(case.input(&device), Some(1));
        close(&values(merged), &case.expected(true, scale, &KEEP_ALL));
        assert_eq!(values(adapter.a.val()), case.a);
        assert_eq!(values(adapter.b.val()), case.b);
        assert_eq!((adapter.scale, adapter.dropout), (scale, 0.4));
        // Twice is once.
        let weight = values(linear.weight.val());
        assert!(linear.merge().is_none());
        assert_eq!(values(linear.weight.val()), weight);
    }
}

#[test]
fn unmerged_the_layer_is_as_before_to_rounding() {
    let case = Case::new();
    for device in devices() {
        let mut linear = case.adapted(0.4, &device);
        let before = values(linear.forward(case.input(&device), Some(9)));
        let delta = values(linear.adapter.as_ref().unwrap().delta());
        let adapter = linear.merge().unwrap();
        assert_ne!(values(linear.weight.val()), case.weight);
        linear.unmerge(adapter);
        let weight = values(linear.weight.val());
        for ((new, old), delta) in weight.iter().zip(&case.weight).zip(delta) {
            let bound = f32::EPSILON * (old.abs() + 2.0 * delta.abs());
            assert!((new - old).abs() <= bound, "{new} is not {old}");
        }
        assert_eq!(values(linear.bias.as_ref().unwrap().val()), case.bias);
        // The dropout is there again too.
        let after = values(linear.forward(case.input(&device), Some(9)));
        close(
            &after,
            &before.iter().map(|y| f64::from(*y)).collect::<Vec<_>>(),
        );
    }
}

#[test]
fn merging_leaves_identity_and_training_of_the_weight_alone() {
    let case = Case::new();
    let device = Device::flex().autodiff();
    for trainable in [false, true] {
        let mut linear = case.adapted(0.0, &device);
        linear.weight = linear.weight.set_require_grad(trainable);
        let id = linear.weight.id;
        let adapter = linear.merge().unwrap();
        assert_eq!(linear.weight.id, id);
        assert_eq!(linear.weight.is_require_grad(), trainable);
        linear.unmerge(adapter);
        assert_eq!(linear.weight.id, id);
        assert_eq!(linear.weight.is_require_grad(), trainable);
        assert!(linear.weight.val().is_autodiff());
    }
}

#[test]
fn a_frozen_weight_has_no_gradient_and_the_factors_have() {
    let case = Case::new();
    let device = Device::flex().autodiff();
    let mut linear = case.adapted(0.0, &device);
    linear.weight = linear.weight.set_require_grad(false);
    linear.bias = linear.bias.map(|bias| bias.set_require_grad(false));
    let gradients = linear.forward(case.input(&device), None).sum().backward();
    assert!(linear.weight.val().grad(&gradients).is_none());
    assert!(
        linear
            .bias
            .as_ref()
            .unwrap()
            .val()
            .grad(&gradients)
            .is_none()
    );
    let adapter = linear.adapter.as_ref().unwrap();
    for (factor, shape) in [(&adapter.a, [IN, RANK]), (&adapter.b, [RANK, OUT])] {
        let gradient = factor.val().grad(&gradients).unwrap();
        assert_eq!(gradient.dims(), shape);
        assert!(values(gradient).iter().any(|v| *v != 0.0));
    }
}

#[test]
fn a_new_adapter_takes_the_place_of_the_old_and_changes_nothing() {
    let case = Case::new();
    let device = Device::flex();
    let mut linear = case.adapted(0.0, &device);
    linear.attach(&settings(0.1), LoraInit::KaimingUniform, 3);
    let adapter = linear.adapter.as_ref().unwrap();
    assert!(values(adapter.b.val()).iter().all(|v| *v == 0.0));
    assert_eq!(
        [adapter.a.dims(), adapter.b.dims()],
        [[IN, RANK], [RANK, OUT]]
    );
    assert_eq!((adapter.scale, adapter.dropout), (5.0 / RANK as f64, 0.1));
    let y = values(linear.forward(case.input(&device), None));
    close(&y, &case.expected(true, 0.0, &KEEP_ALL));
}

#[test]
#[should_panic(expected = "A is [in, r] and B is [r, out]")]
fn factors_of_different_ranks_panic() {
    let device = Device::flex();
    Adapter::from_factors(
        Tensor::zeros([4, 2], &device),
        Tensor::zeros([3, 4], &device),
        &settings(0.0),
    );
}

/// A of a new adapter with many numbers in it.
fn drawn(inputs: usize, rank: usize, init: LoraInit, key: u64) -> Vec<f32> {
    let settings = ResolvedAdapter {
        rank,
        ..settings(0.0)
    };
    let adapter = Adapter::new([inputs, 4], &settings, init, key, &Device::flex());
    assert_eq!(adapter.a.dims(), [inputs, rank]);
    assert!(values(adapter.b.val()).iter().all(|v| *v == 0.0));
    values(adapter.a.val())
}

/// Mean, variance and kurtosis.
fn moments(values: &[f32]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let power = |p| {
        values
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(p))
            .sum::<f64>()
            / n
    };
    let variance = power(2);
    [mean, variance, power(4) / (variance * variance)]
}

#[test]
fn kaiming_uniform_fills_its_interval_evenly() {
    for (inputs, rank) in [(768, 64), (64, 512)] {
        let a = drawn(inputs, rank, LoraInit::KaimingUniform, 7);
        let bound = 1.0 / (inputs as f64).sqrt();
        let largest = a.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        assert!(
            f64::from(largest) <= bound * 1.000_001,
            "{largest} > {bound}"
        );
        assert!(f64::from(largest) > 0.999 * bound);
        let [mean, variance, kurtosis] = moments(&a);
        // Five standard deviations of each estimate over n numbers.
        let n = a.len() as f64;
        let wanted = bound * bound / 3.0;
        assert!(mean.abs() < 5.0 * (wanted / n).sqrt(), "{mean}");
        assert!(
            (variance / wanted - 1.0).abs() < 5.0 * (0.8 / n).sqrt(),
            "{variance}"
        );
        assert!((kurtosis - 1.8).abs() < 0.05, "{kurtosis}");
    }
}

#[test]
fn gaussian_has_its_standard_deviation() {
    let cases = [
        (LoraInit::Gaussian(0.02), 16, 0.02),
        (LoraInit::GaussianByRank, 16, 1.0 / 16.0),
        (LoraInit::GaussianByRank, 40, 1.0 / 40.0),
    ];
    for (init, rank, deviation) in cases {
        let a = drawn(3000, rank, init, 7);
        let [mean, variance, kurtosis] = moments(&a);
        let n = a.len() as f64;
        assert!(mean.abs() < 5.0 * deviation / n.sqrt(), "{mean}");
        let ratio = variance / (deviation * deviation);
        assert!((ratio - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{variance}");
        assert!((kurtosis - 3.0).abs() < 0.2, "{kurtosis}");
    }
}

#[test]
fn the_key_alone_decides_the_numbers() {
    for init in [LoraInit::KaimingUniform, LoraInit::GaussianByRank] {
        let first = drawn(64, 4, init, 7);
        assert_eq!(first, drawn(64, 4, init, 7));
        let other = drawn(64, 4, init, 8);
        let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert_eq!(same, 0);
    }
}

#[test]
fn a_layer_trains_its_parameters_unless_told_otherwise() {
    let case = Case::new();
    let linear = case.adapted(0.0, &Device::flex().autodiff());
    assert!(linear.weight.is_require_grad());
    let bias = linear.bias.as_ref().map(|bias| bias.is_require_grad());
    assert_eq!(bias, Some(true));
    let adapter = linear.adapter.as_ref().unwrap();
    assert!(adapter.a.is_require_grad() && adapter.b.is_require_grad());
}

//! Weights of 16 bit: products on flex are those with the same numbers in f32, and the composed operations that
//! compute in halves stay as near to f32 as halves allow.

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test uses its part"
)]
mod common;

use burn::tensor::{DType, Device, Tensor};
use common::{NoGrad, device, loss, random};
use lowburn_kernels::{
    AttentionShape, Dropout, LoraScale, PositionTerms, RelativeIndex, activation_dtype,
    add_layer_norm, attention, bias_gelu, composed, composed_only, disentangled_attention, linear,
    lora_linear,
};

const HALVES: [DType; 2] = [DType::BF16, DType::F16];

/// Half the distance of neighbouring numbers at 1.
fn rounding(dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => 2f32.powi(-8),
        _ => 2f32.powi(-11),
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let data = x.into_data().convert::<f32>();
    data.try_to_vec().expect("converted")
}

fn lora() -> LoraScale {
    LoraScale {
        scale: 1.5,
        dropout: Dropout::new(0.3, 11),
    }
}

#[test]
fn a_product_with_a_stored_half_is_that_with_its_number() {
    for dtype in HALVES {
        let x = random([7, 5], 1);
        let bias = random([9], 2).no_grad();
        // As stored by a checkpoint: a transposed view of [out, in].
        let stored = random([9, 5], 3).no_grad().cast(dtype);
        let views = |stored: Tensor<2>| {
            let weight = stored.transpose();
            [weight.clone(), weight.narrow(1, 2, 7)]
        };
        let full = views(stored.clone().cast(DType::F32));
        for (weight, full) in views(stored).into_iter().zip(full) {
            let bias = bias.clone().narrow(0, 0, weight.dims()[1]);
            let run = |weight: Tensor<2>| {
                let y = linear(x.clone(), weight, Some(bias.clone()));
                assert_eq!(y.dtype(), DType::F32);
                let gradients = loss(y.clone()).backward();
                (
                    numbers(y),
                    numbers(x.grad(&gradients).expect("x is a leaf")),
                )
            };
            assert_eq!(run(weight), run(full), "{dtype:?}");
        }
    }
}

#[test]
fn an_adapter_on_a_stored_half_has_the_gradients_of_its_number() {
    for dtype in HALVES {
        let x = random([6, 8], 1);
        let [a, b] = [random([8, 2], 2), random([2, 4], 3)];
        let weight = random([8, 4], 4).no_grad().cast(dtype);
        let run = |weight: Tensor<2>| {
            let y = lora_linear(x.clone(), weight, None, [a.clone(), b.clone()], lora());
            let gradients = loss(y.clone()).backward();
            let of = |leaf: &Tensor<2>| numbers(leaf.grad(&gradients).expect("a leaf"));
            [numbers(y), of(&x), of(&a), of(&b)]
        };
        let full = weight.clone().cast(DType::F32);
        assert_eq!(run(weight), run(full), "{dtype:?}");
    }
}

#[test]
fn flex_computes_in_f32_and_other_devices_in_halves() {
    for device in [Device::flex(), device()] {
        for dtype in HALVES {
            assert_eq!(activation_dtype(dtype, &device), DType::F32);
            let elsewhere = composed_only(|| activation_dtype(dtype, &device));
            assert_eq!(elsewhere, dtype);
            assert_eq!(activation_dtype(dtype, &device), DType::F32);
        }
    }
}

/// Asserts that halves, computed as another device would, are near f32: by `steps` roundings of the largest number.
#[track_caller]
fn near<const D: usize>(name: &str, dtype: DType, steps: f32, half: Tensor<D>, full: Tensor<D>) {
    assert_eq!(half.dims(), full.dims(), "{name}");
    let (half, full) = (numbers(half), numbers(full));
    let size = full.iter().fold(0f32, |most, v| most.max(v.abs()));
    let bound = steps * rounding(dtype) * size;
    for (i, (x, y)) in half.iter().zip(&full).enumerate() {
        assert!(
            (x - y).abs() <= bound,
            "{name}[{i}] in {dtype:?}: {x} is not {y}"
        );
    }
    assert!(half != full, "{name}: nothing was rounded to {dtype:?}");
}

/// Inputs and output are rounded to halves once each, and the products' sums of 32 terms in between are of
/// numbers that are rounded: four roundings, and as many again in gradients.
#[test]
fn operations_in_halves_stay_near_f32() {
    for dtype in HALVES {
        let half = |x: &Tensor<2>| x.clone().cast(dtype);
        let x = random([6, 32], 1);
        let residual = random([6, 32], 2);
        let weight = random([32, 16], 3).no_grad();
        let bias = random([16], 4);
        let vector = |key| random([32], key);
        let [a, b] = [random([32, 4], 5), random([4, 16], 6)];

        let full = linear(x.clone(), weight.clone(), Some(bias.clone()));
        let y = linear(half(&x), half(&weight), Some(bias.clone()));
        assert_eq!(y.dtype(), dtype);
        near("linear", dtype, 4.0, y, full);

        let factors = || [a.clone(), b.clone()];
        let full = lora_linear(x.clone(), weight.clone(), None, factors(), lora());
        let y = lora_linear(half(&x), half(&weight), None, factors(), lora());
        assert_eq!(y.dtype(), dtype);
        let gradients = |y: &Tensor<2>| loss(y.clone().cast(DType::F32)).backward();
        let (ours, theirs) = (gradients(&y), gradients(&full));
        for (name, leaf) in [("x", &x), ("a", &a), ("b", &b)] {
            let [ours, theirs] = [&ours, &theirs].map(|all| leaf.grad(all).expect("a leaf"));
            assert_eq!(ours.dtype(), DType::F32, "gradient of {name}");
            near(name, dtype, 8.0, ours, theirs);
        }
        near("lora_linear", dtype, 4.0, y, full);

        near(
            "bias_gelu",
            dtype,
            4.0,
            bias_gelu(half(&x), Some(vector(7))),
            bias_gelu(x.clone(), Some(vector(7))),
        );
        let norm = |x, residual| {
            let affine = [vector(8), vector(9)];
            let drop = Dropout::new(0.2, 5);
            add_layer_norm(x, Some(vector(7)), Some(residual), affine, 1e-5, drop)
        };
        near(
            "add_layer_norm",
            dtype,
            8.0,
            norm(half(&x), half(&residual)),
            norm(x.clone(), residual.clone()),
        );
    }
}

fn shape() -> AttentionShape {
    AttentionShape {
        heads: 2,
        scale: 0.25,
        queries: vec![3, 5],
        keys: vec![3, 5],
    }
}

#[test]
fn attention_in_halves_stays_near_f32() {
    for dtype in HALVES {
        let [q, k, v] = [1, 2, 3].map(|key| random([8, 32], key).mul_scalar(0.3));
        let half = |x: &Tensor<2>| x.clone().cast(dtype);
        let drop = Dropout::new(0.2, 5);
        let full = composed::attention(q.clone(), k.clone(), v.clone(), &shape(), drop);
        let y = attention(half(&q), half(&k), half(&v), &shape(), drop);
        assert_eq!(y.dtype(), dtype);
        near("attention", dtype, 8.0, y, full);
        let tables = || {
            let [key, query] = [4, 5].map(|key| random([8, 32], key).mul_scalar(0.3));
            [key, query]
        };
        let terms = |[key, query]: [Tensor<2>; 2]| PositionTerms {
            key: Some(key),
            query: Some(query),
            index: RelativeIndex::new(4, 5, |distance| distance.clamp(-3, 3)),
        };
        let full = disentangled_attention(
            q.clone(),
            k.clone(),
            v.clone(),
            terms(tables()),
            &shape(),
            drop,
        );
        let halved = terms(tables().map(|table| table.cast(dtype)));
        let y = disentangled_attention(half(&q), half(&k), half(&v), halved, &shape(), drop);
        near("disentangled attention", dtype, 8.0, y, full);
    }
}

/// The products of queries and keys alone are beyond 65504; divided before, they are not.
#[test]
fn scores_are_divided_before_the_product() {
    let ones = |value: f64| Tensor::<2>::full([8, 32], value, &device()).cast(DType::F16);
    let shape = AttentionShape {
        scale: 1.0 / 64.0,
        ..shape()
    };
    let v = random([8, 32], 3);
    // 16 terms of 80 x 80 are 102400; over 64 they are 1600.
    let y = attention(
        ones(80.0),
        ones(80.0),
        v.clone().cast(DType::F16),
        &shape,
        Dropout::NONE,
    );
    assert!(numbers(y).iter().all(|value| value.is_finite()));
    let terms = PositionTerms {
        key: Some(ones(80.0)),
        query: Some(ones(80.0)),
        index: RelativeIndex::new(4, 5, |distance| distance.clamp(-3, 3)),
    };
    let v = v.cast(DType::F16);
    let y = disentangled_attention(ones(80.0), ones(80.0), v, terms, &shape, Dropout::NONE);
    assert!(numbers(y).iter().all(|value| value.is_finite()));
}

//! The fused operations equal the composed ones, values and gradients.

mod common;

use common::{NoGrad, compare, random};
use lowburn_kernels::{
    AttentionShape, Dropout, LoraScale, add_layer_norm, attention, bias_gelu, composed, dropout,
    linear, lora_linear,
};

#[test]
fn linear_equals() {
    let x = random([3, 5, 24], 1);
    let bias = random([40], 3);
    for transposed in [false, true] {
        let stored = if transposed {
            random([40, 24], 2)
        } else {
            random([24, 40], 2)
        };
        let weight = || {
            if transposed {
                stored.clone().transpose()
            } else {
                stored.clone()
            }
        };
        compare!(
            "linear",
            [x, stored, bias],
            linear(x.clone(), weight(), Some(bias.clone())),
            composed::linear(x.clone(), weight(), Some(bias.clone()))
        );
        compare!(
            "linear without bias",
            [x, stored],
            linear(x.clone(), weight(), None),
            composed::linear(x.clone(), weight(), None)
        );
    }
}

#[test]
fn lora_linear_equals() {
    for (rank, probability) in [(3, 0.0), (3, 0.3), (40, 0.0), (40, 0.2)] {
        let x = random([4, 9, 24], 1);
        let weight = random([24, 56], 2).no_grad();
        let (bias, a, b) = (
            random([56], 3),
            random([24, rank], 4),
            random([rank, 56], 5),
        );
        let lora = LoraScale {
            scale: 0.7,
            dropout: Dropout::new(probability, 11),
        };
        compare!(
            format!("lora r {rank} p {probability}"),
            [x, weight, bias, a, b],
            lora_linear(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                [a.clone(), b.clone()],
                lora
            ),
            composed::lora_linear(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                [a.clone(), b.clone()],
                lora
            )
        );
        compare!(
            "lora without bias",
            [x, weight, a, b],
            lora_linear(
                x.clone(),
                weight.clone(),
                None,
                [a.clone(), b.clone()],
                lora
            ),
            composed::lora_linear(
                x.clone(),
                weight.clone(),
                None,
                [a.clone(), b.clone()],
                lora
            )
        );
    }
}

#[test]
fn frozen_weights_get_no_gradient() {
    let x = random([2, 3, 8], 1).no_grad();
    let weight = random([8, 8], 2).no_grad();
    let (a, b) = (random([8, 2], 3), random([2, 8], 4));
    let lora = LoraScale {
        scale: 2.0,
        dropout: Dropout::NONE,
    };
    let y = lora_linear(
        x.clone(),
        weight.clone(),
        None,
        [a.clone(), b.clone()],
        lora,
    );
    let gradients = y.sum().backward();
    assert!(weight.grad(&gradients).is_none() && x.grad(&gradients).is_none());
    assert!(a.grad(&gradients).is_some() && b.grad(&gradients).is_some());
}

#[test]
fn bias_gelu_equals() {
    let (x, bias) = (random([3, 7, 33], 1), random([33], 2));
    compare!(
        "gelu",
        [x, bias],
        bias_gelu(x.clone(), Some(bias.clone())),
        composed::bias_gelu(x.clone(), Some(bias.clone()))
    );
    compare!(
        "gelu without bias",
        [x],
        bias_gelu(x.clone(), None),
        composed::bias_gelu(x.clone(), None)
    );
}

#[test]
fn dropout_equals() {
    let x = random([6, 50], 1);
    let d = Dropout::new(0.25, 5);
    compare!(
        "dropout",
        [x],
        dropout(x.clone(), d),
        composed::dropout(x.clone(), d)
    );
}

#[test]
fn add_layer_norm_equals() {
    let (x, residual) = (random([3, 7, 40], 1), random([3, 7, 40], 2));
    let (bias, gamma, beta) = (random([40], 3), random([40], 4), random([40], 5));
    for probability in [0.0, 0.2] {
        let d = Dropout::new(probability, 8);
        compare!(
            "add + norm",
            [x, residual, bias, gamma, beta],
            add_layer_norm(
                x.clone(),
                Some(bias.clone()),
                Some(residual.clone()),
                [gamma.clone(), beta.clone()],
                1e-5,
                d
            ),
            composed::add_layer_norm(
                x.clone(),
                Some(bias.clone()),
                Some(residual.clone()),
                [gamma.clone(), beta.clone()],
                1e-5,
                d
            )
        );
    }
    let frozen = [gamma.clone().no_grad(), beta.clone().no_grad()];
    compare!(
        "norm alone",
        [x],
        add_layer_norm(x.clone(), None, None, frozen.clone(), 1e-5, Dropout::NONE),
        composed::add_layer_norm(x.clone(), None, None, frozen.clone(), 1e-5, Dropout::NONE)
    );
}

#[test]
fn attention_equals() {
    let keys = vec![9, 4, 1];
    let (k, v) = (random([14, 24], 2), random([14, 24], 3));
    for (queries, probability) in [
        (vec![9, 4, 1], 0.0),
        (vec![9, 4, 1], 0.2),
        (vec![1, 1, 1], 0.0),
        (vec![1, 1, 1], 0.2),
    ] {
        let q = random([queries.iter().sum(), 24], 1);
        let name = format!("attention {queries:?} p {probability}");
        let shape = AttentionShape {
            heads: 4,
            scale: 0.4,
            queries,
            keys: keys.clone(),
        };
        let d = Dropout::new(probability, 21);
        compare!(
            name,
            [q, k, v],
            attention(q.clone(), k.clone(), v.clone(), &shape, d),
            composed::attention(q.clone(), k.clone(), v.clone(), &shape, d)
        );
    }
}

//! The fused operations equal the composed ones, values and gradients.

mod common;

use burn::tensor::Tensor;

use common::{NoGrad, compare, random};
use lowburn_kernels::{
    AttentionShape, Dropout, LoraScale, Projection, add_layer_norm, attention, bias_gelu, composed,
    composed_only, dropout, first_token_attention, keeps_probabilities, linear, lora_linear,
    self_attention,
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
    for (keys, queries, probability) in [
        (vec![9, 4, 1], vec![9, 4, 1], 0.0),
        (vec![9, 4, 1], vec![9, 4, 1], 0.2),
        (vec![9, 4, 1], vec![1, 1, 1], 0.0),
        (vec![9, 4, 1], vec![1, 1, 1], 0.2),
        // Too many probabilities to keep.
        (vec![40, 3], vec![40, 3], 0.0),
        (vec![40, 3], vec![40, 3], 0.2),
    ] {
        let tokens = keys.iter().sum();
        let (k, v) = (random([tokens, 24], 2), random([tokens, 24], 3));
        let scores: usize = keys.iter().zip(&queries).map(|(k, q)| 4 * k * q).sum();
        let few = keeps_probabilities(scores as u64, 2 * 24 * tokens as u64);
        assert_eq!(few, tokens < 40, "both ways are tested");
        let q = random([queries.iter().sum(), 24], 1);
        let name = format!("attention {queries:?} p {probability}");
        let shape = AttentionShape {
            heads: 4,
            scale: 0.4,
            queries,
            keys,
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

#[test]
fn first_token_attention_equals() {
    // [in, heads x size], keys, rank
    for (inputs, [heads, size], keys, rank) in [
        (24, [4, 6], vec![9, 4, 1], 0),
        (24, [4, 6], vec![9, 4, 1], 3),
        (96, [3, 32], vec![17; 9], 8),
        (40, [2, 16], vec![33, 64], 41),
    ] {
        let inner = heads * size;
        let tokens: usize = keys.iter().sum();
        let x = random([tokens, inputs], 1);
        let q = random([keys.len(), inner], 2);
        // As weights of a file lie, and as a merged one does.
        let key = random([inner, inputs], 3);
        let value = random([inputs, inner], 4);
        let (key_bias, bias) = (random([inner], 5).no_grad(), random([inner], 6));
        let (a, b) = (
            random([inputs, rank.max(1)], 7),
            random([rank.max(1), inner], 8),
        );
        let (key_a, key_b) = (random([inputs, 2], 9), random([2, inner], 10));
        let shape = AttentionShape {
            heads,
            scale: 0.1,
            queries: vec![1; keys.len()],
            keys,
        };
        for probability in [0.0, 0.2] {
            let adapter = (rank > 0).then(|| {
                let scale = LoraScale {
                    scale: 0.5,
                    dropout: Dropout::new(probability, 31),
                };
                ([a.clone(), b.clone()], scale)
            });
            let keys = Projection {
                weight: key.clone(),
                bias: Some(key_bias.clone()),
                adapter: (rank % 2 == 1).then(|| {
                    let scale = LoraScale {
                        scale: 0.25,
                        dropout: Dropout::new(probability, 41),
                    };
                    ([key_a.clone(), key_b.clone()], scale)
                }),
            };
            let values = Projection {
                weight: value.clone(),
                bias: Some(bias.clone()),
                adapter,
            };
            let run = || {
                let (mut keys, values) = (keys.clone(), values.clone());
                keys.weight = keys.weight.transpose();
                let dropout = Dropout::new(probability, 21);
                first_token_attention(q.clone(), x.clone(), keys, values, &shape, dropout)
            };
            let name = format!("first token {inputs} {heads} x {size} r {rank} p {probability}");
            compare!(
                name,
                [q, x, key, value, bias, a, b],
                run(),
                composed_only(run)
            );
        }
    }
}

#[test]
fn self_attention_equals() {
    // [in, heads x size], tokens of the rows, rank; the last is large enough for products of quarters.
    for (inputs, [heads, size], rows, rank) in [
        (24, [4, 6], vec![9, 4, 1], 0),
        (24, [4, 6], vec![9, 4, 2], 3),
        (40, [2, 16], vec![33, 64], 41),
        (384, [6, 64], vec![107; 6], 8),
    ] {
        let inner = heads * size;
        let tokens: usize = rows.iter().sum();
        let x = random([tokens, inputs], 1);
        // As weights of a file lie, as a merged one does, and one that is frozen.
        let scale = 1.0 / (inputs as f64).sqrt();
        let query = random([inner, inputs], 2).mul_scalar(scale);
        let key = random([inputs, inner], 3).mul_scalar(scale).no_grad();
        let value = random([inner, inputs], 4).mul_scalar(scale);
        let [query, value] = [query, value].map(|weight| weight.detach().require_grad());
        let (query_bias, bias) = (random([inner], 5), random([inner], 6));
        let rank_or_one = rank.max(1);
        let (query_a, query_b) = (
            random([inputs, rank_or_one], 7),
            random([rank_or_one, inner], 8),
        );
        let (a, b) = (
            random([inputs, rank_or_one], 9),
            random([rank_or_one, inner], 10),
        );
        let shape = AttentionShape {
            heads,
            scale: 0.1,
            queries: rows.clone(),
            keys: rows,
        };
        for probability in [0.0, 0.2] {
            let adapter = |factors: [&Tensor<2>; 2], key| {
                let lora = LoraScale {
                    scale: 0.1,
                    dropout: Dropout::new(probability, key),
                };
                (rank > 0).then(|| (factors.map(Tensor::clone), lora))
            };
            let run = || {
                let layer = |weight: Tensor<2>, bias, adapter| Projection {
                    weight,
                    bias,
                    adapter,
                };
                let layers = [
                    layer(
                        query.clone().transpose(),
                        Some(query_bias.clone()),
                        adapter([&query_a, &query_b], 31),
                    ),
                    layer(key.clone(), None, None),
                    layer(
                        value.clone().transpose(),
                        Some(bias.clone()),
                        adapter([&a, &b], 41),
                    ),
                ];
                self_attention(x.clone(), layers, &shape, Dropout::new(probability, 21))
            };
            let name = format!("self-attention {inputs} {heads} x {size} r {rank} p {probability}");
            // No adapter but the keys', frozen weights, and an x that nobody asks about.
            let (key_a, key_b) = (random([inputs, 3], 11), random([3, inner], 12));
            for (adapted, tracked) in [(true, true), (false, true), (true, false)] {
                let x = match tracked {
                    true => x.clone(),
                    false => x.clone().no_grad(),
                };
                let part = || {
                    let layer = |bias: Option<&Tensor<1>>| Projection {
                        weight: key.clone(),
                        bias: bias.cloned(),
                        adapter: None,
                    };
                    let mut layers = [layer(Some(&query_bias)), layer(None), layer(Some(&bias))];
                    let lora = LoraScale {
                        scale: 0.1,
                        dropout: Dropout::new(probability, 51),
                    };
                    let factors = [key_a.clone(), key_b.clone()];
                    layers[1].adapter = adapted.then_some((factors, lora));
                    self_attention(x.clone(), layers, &shape, Dropout::new(probability, 21))
                };
                compare!(
                    format!("{name}, frozen {adapted} {tracked}"),
                    [x, query_bias, bias, key_a, key_b],
                    part(),
                    composed_only(part)
                );
            }
            compare!(
                name,
                [x, query, value, query_bias, bias, query_a, query_b, a, b],
                run(),
                composed_only(run)
            );
        }
    }
}

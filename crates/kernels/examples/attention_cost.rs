//! What position terms cost: a disentangled attention beside a plain one, forward and backward.
//!
//!     cargo run -p lowburn-kernels --example attention_cost

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use lowburn_kernels::{
    AttentionShape, Dropout, PositionTerms, RelativeIndex, attention, disentangled_attention,
};

const ROWS: usize = 16;
const LENGTH: usize = 128;
const HEADS: usize = 12;
const WIDTH: usize = 768;
const SPAN: usize = 256;
const ROUNDS: usize = 15;

fn main() {
    let device = Device::flex().autodiff();
    let random = |rows| {
        Tensor::<2>::random([rows, WIDTH], Distribution::Normal(0.0, 1.0), &device).require_grad()
    };
    let [q, k, v] = [(); 3].map(|()| random(ROWS * LENGTH));
    let [key, query] = [(); 2].map(|()| random(2 * SPAN));
    let index = RelativeIndex::new(SPAN, LENGTH, |distance| distance);
    let shape = |terms: usize| AttentionShape {
        heads: HEADS,
        scale: 1.0 / ((WIDTH / HEADS * terms) as f64).sqrt(),
        queries: vec![LENGTH; ROWS],
        keys: vec![LENGTH; ROWS],
    };
    let dropout = Dropout::new(0.1, 1);
    let content = || (q.clone(), k.clone(), v.clone());
    let plain = || {
        let (q, k, v) = content();
        attention(q, k, v, &shape(1), dropout)
    };
    let terms = |key: &Tensor<2>, query: &Tensor<2>| PositionTerms {
        key: Some(key.clone()),
        query: Some(query.clone()),
        index: index.clone(),
    };
    let disentangled = || {
        let (q, k, v) = content();
        disentangled_attention(q, k, v, terms(&key, &query), &shape(3), dropout)
    };
    let frozen = [&key, &query].map(|table| table.clone().inner().autodiff());
    let with_frozen = || {
        let (q, k, v) = content();
        let terms = terms(&frozen[0], &frozen[1]);
        disentangled_attention(q, k, v, terms, &shape(3), dropout)
    };

    // The rounds take turns, so that a busy machine disturbs all alike; the best of each counts.
    let mut best = [[f64::INFINITY; 2]; 3];
    for _ in 0..ROUNDS {
        let runs: [&dyn Fn() -> Tensor<2>; 3] = [&plain, &disentangled, &with_frozen];
        for (best, run) in best.iter_mut().zip(runs) {
            let start = Instant::now();
            let y = run();
            let forward = start.elapsed().as_secs_f64();
            let gradients = y.sum().backward();
            let both = start.elapsed().as_secs_f64();
            assert!(q.grad(&gradients).is_some());
            *best = [best[0].min(forward), best[1].min(both)];
        }
    }
    let names = ["plain", "disentangled", "disentangled, frozen tables"];
    for (name, [forward, both]) in names.iter().zip(best) {
        println!(
            "{name}: forward {:.1} ms, forward and backward {:.1} ms, {:.2} x plain",
            1e3 * forward,
            1e3 * both,
            both / best[0][1]
        );
    }
}

#[global_allocator]
static PAGES: lowburn_kernels::PagePool = lowburn_kernels::PagePool;

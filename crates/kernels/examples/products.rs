//! How fast products of matrices are: this crate's beside those of the crate `gemm`, in GFLOP/s.
//!
//!     cargo run -p lowburn-kernels --example products

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use lowburn_kernels::linear;

const ROUNDS: usize = 12;
/// Tokens, inputs and outputs of the layers of roberta-base and of a small model.
const SHAPES: [[usize; 3]; 6] = [
    [2048, 768, 768],
    [2048, 768, 3072],
    [2048, 3072, 768],
    [1024, 384, 384],
    [1024, 384, 1536],
    [1024, 1536, 384],
];

fn main() {
    let device = Device::flex();
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    for [rows, inputs, outputs] in SHAPES {
        let x = random([rows, inputs]);
        let plain = random([inputs, outputs]);
        let turned = random([outputs, inputs]).transpose();
        let mut best = [f64::INFINITY; 3];
        let a = vec![0.5f32; rows * inputs];
        let b = vec![0.5f32; inputs * outputs];
        // The rounds take turns, so that a busy machine disturbs all alike; the best of each counts.
        for _ in 0..ROUNDS {
            for (best, weight) in best.iter_mut().zip([&plain, &turned]) {
                let start = Instant::now();
                let y = linear(x.clone(), weight.clone(), None);
                *best = best.min(start.elapsed().as_secs_f64());
                drop(y);
            }
            let start = Instant::now();
            let y = by_crate(&a, &b, [rows, inputs, outputs]);
            best[2] = best[2].min(start.elapsed().as_secs_f64());
            drop(y);
        }
        let work = 2e-9 * (rows * inputs * outputs) as f64;
        let [plain, turned, other] = best.map(|seconds| work / seconds);
        println!(
            "{rows} x {inputs} x {outputs}: {plain:.0}, weight transposed {turned:.0}, crate gemm {other:.0} GFLOP/s"
        );
    }
}

fn by_crate(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut c = vec![0.0f32; m * n];
    // SAFETY: the three have the sizes that are stated.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
    c
}

#[global_allocator]
static PAGES: lowburn_kernels::PagePool = lowburn_kernels::PagePool;

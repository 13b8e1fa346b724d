//! y = x W + b + s drop(x) A B, and its gradients, as matrix products with as few passes as possible.

use burn::tensor::Shape;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Out, contiguous, tensor, values, written};
use super::low_rank::{Prefill, Wide, transpose};
use super::product::{Joined, Matrix, Start, is_dense, joined, multiplied};
use super::simd::multiversion;
use super::widen::widened;
use crate::backend::{LinearGradients, LinearNeeds, LoraScale};
use crate::keeps_projected;
use crate::random::Dropout;

/// A layer as the products read it: `weight` [in, out], `bias` [out], and an adapter's A [in, r] and B [r, out].
pub(crate) struct Layer {
    pub(crate) weight: FlexTensor,
    pub(crate) bias: Option<FlexTensor>,
    pub(crate) lora: Option<(FlexTensor, FlexTensor, LoraScale)>,
}

impl Layer {
    /// The same, with what a product can read.
    fn dense(self) -> Self {
        Self {
            weight: viewable(self.weight),
            bias: self.bias.map(contiguous),
            lora: (self.lora).map(|(a, b, lora)| (contiguous(a), contiguous(b), lora)),
        }
    }

    /// The weight of a layer that is [`Layer::dense`].
    fn matrix(&self) -> Matrix<'_> {
        Matrix::view(&self.weight).expect("made viewable")
    }
}

/// An output, and drop(x) A [rows, r] where there is an adapter whose backward pass keeps it.
pub(crate) type Output = (FlexTensor, Option<FlexTensor>);

/// The outputs of layers of one size, for x [.., in].
pub(crate) fn forward<const N: usize>(x: FlexTensor, layers: [Layer; N]) -> [Output; N] {
    let x = contiguous(x);
    let layers = layers.map(Layer::dense);
    let weights = layers.each_ref().map(Layer::matrix);
    let (inputs, outputs) = (weights[0].rows(), weights[0].cols());
    let rows = rows_of(&x, inputs, "x", "the weight's rows");
    let low_rank = layers.each_ref().map(|layer| {
        layer.lora.as_ref().map(|(a, b, lora)| {
            let rank = checked_rank(a, b, [inputs, outputs]);
            let a = transpose(values(a), inputs, rank);
            let wide = Wide::new(values(&x), [rows, inputs], lora.dropout);
            let t = wide.project(&a, rank, 1.0);
            (t, values(b), lora.scale as f32)
        })
    });
    let mut out: [Vec<f32>; N] = std::array::from_fn(|_| Vec::with_capacity(rows * outputs));
    let results: [_; N] = std::array::from_fn(|i| {
        let place = Out(out[i].as_mut_ptr());
        let bias = layers[i].bias.as_ref().map(values);
        let start = match (&low_rank[i], bias) {
            (Some((t, b, scale)), _) => {
                let prefill = Prefill {
                    bias,
                    t,
                    b,
                    scale: *scale,
                    dropout: Dropout::NONE,
                };
                // SAFETY: there is room for all rows.
                unsafe { prefill.write(place, rows, outputs) };
                Start::Add
            }
            (None, Some(bias)) => Start::Bias(bias),
            (None, None) => Start::Zero,
        };
        (place, start)
    });
    let of = Joined {
        results: &results,
        a: &[Matrix::new(values(&x), rows, inputs)],
        b: &weights,
        scale: 1.0,
    };
    // SAFETY: the products write every element, or add to the prefill, which did.
    unsafe {
        joined(&of);
        out.iter_mut().for_each(|out| out.set_len(rows * outputs));
    }
    let kept = low_rank.map(|low_rank| {
        let (t, _, _) = low_rank?;
        let rank = t.len() / rows.max(1);
        keeps_projected(rank as u64).then(|| tensor(t, [rows, rank]))
    });
    let shape = with_last(&x, outputs);
    let mut kept = kept.into_iter();
    out.map(|out| (tensor(out, shape.clone()), kept.next().flatten()))
}

/// The shape of a tensor with another last dimension.
fn with_last(x: &FlexTensor, last: usize) -> Shape {
    let mut shape: Vec<usize> = x.layout().shape().to_vec();
    *shape.last_mut().expect("at least one dimension") = last;
    Shape::from(shape)
}

/// The rank of the factors A [inputs, rank] and B [rank, outputs].
pub(crate) fn checked_rank(a: &FlexTensor, b: &FlexTensor, [inputs, outputs]: [usize; 2]) -> usize {
    let rank = a.layout().shape()[1];
    assert_eq!(&a.layout().shape()[..], [inputs, rank], "A is [in, r]");
    assert_eq!(&b.layout().shape()[..], [rank, outputs], "B is [r, out]");
    rank
}

/// The number of vectors in a tensor whose last dimension is `width`.
fn rows_of(x: &FlexTensor, width: usize, name: &str, of: &str) -> usize {
    let shape = x.layout().shape();
    let (last, leading) = shape.split_last().expect("at least one dimension");
    assert_eq!(*last, width, "the last dimension of {name} and {of}");
    leading.iter().product()
}

/// A weight as a dense matrix of f32. One of halves is copied, for as long as the product takes.
pub(crate) fn viewable(weight: FlexTensor) -> FlexTensor {
    let weight = match is_dense(weight.layout()) {
        true => weight,
        false => weight.to_contiguous(),
    };
    widened(weight)
}

/// What the gradients of a layer are made of: that of its output, the layer, and drop(x) A if [`forward`] kept it.
pub(crate) struct Backward {
    pub(crate) gradient: FlexTensor,
    pub(crate) layer: Layer,
    pub(crate) projected: Option<FlexTensor>,
    pub(crate) needs: LinearNeeds,
}

/// The gradient of the input that layers of one size share, where one of them asks for it, and the others that they ask for.
pub(crate) fn backward<const N: usize>(
    x: Option<FlexTensor>,
    of: [Backward; N],
) -> (Option<FlexTensor>, [LinearGradients<burn_flex::Flex>; N]) {
    let x = x.map(contiguous);
    let of = of.map(|of| Backward {
        gradient: contiguous(of.gradient),
        layer: of.layer.dense(),
        ..of
    });
    let weights = of.each_ref().map(|of| of.layer.matrix());
    let (inputs, outputs) = (weights[0].rows(), weights[0].cols());
    let rows = rows_of(
        &of[0].gradient,
        outputs,
        "the gradient",
        "the weight's columns",
    );
    let gradients = of
        .each_ref()
        .map(|of| Matrix::new(values(&of.gradient), rows, outputs));
    // For the gradient of x: dt = s dy B^T [rows, r], A^T, and the adapter's dropout.
    let mut low_rank = Vec::new();
    let results = of.each_ref().map(|of| {
        let mut result = LinearGradients::default();
        let g = values(&of.gradient);
        if let Some((a, b, lora)) = &of.layer.lora {
            let rank = checked_rank(a, b, [inputs, outputs]);
            let a = transpose(values(a), inputs, rank);
            let scale = lora.scale as f32;
            let wide_gradient = Wide::new(g, [rows, outputs], Dropout::NONE);
            let dt = wide_gradient.project(values(b), rank, scale);
            if of.needs.a || of.needs.b {
                let x = x.as_ref().expect("the input is kept for the adapter");
                let mut storage = Vec::new();
                let input = Wide::new(values(x), [rows, inputs], lora.dropout);
                let input = input.settled(rank, &mut storage);
                if of.needs.b {
                    let db = match &of.projected {
                        Some(t) => wide_gradient.gather(values(t), rank, scale),
                        None => wide_gradient.gather(&input.project(&a, rank, 1.0), rank, scale),
                    };
                    result.b = Some(tensor(db, [rank, outputs]));
                }
                if of.needs.a {
                    let da = transpose(&input.gather(&dt, rank, 1.0), rank, inputs);
                    result.a = Some(tensor(da, [inputs, rank]));
                }
            }
            low_rank.push((dt, a, lora.dropout));
        }
        if of.needs.weight {
            let x = values(x.as_ref().expect("the input is kept for the weight"));
            let x = Matrix::new(x, rows, inputs).transposed();
            let gradient = multiplied(x, Matrix::new(g, rows, outputs), 1.0);
            result.weight = Some(tensor(gradient, [inputs, outputs]));
        }
        if of.needs.bias {
            result.bias = Some(tensor(sum_rows(g, outputs), [outputs]));
        }
        result
    });
    let dx = of.iter().any(|of| of.needs.x).then(|| {
        // SAFETY: the product writes every element, or adds to the first prefill, which did.
        let dx = unsafe {
            written(rows * inputs, |out| {
                let mut start = Start::Zero;
                for (dt, a, dropout) in &low_rank {
                    let prefill = Prefill {
                        bias: None,
                        t: dt,
                        b: a,
                        scale: 1.0,
                        dropout: *dropout,
                    };
                    match start {
                        Start::Zero => prefill.write(out, rows, inputs),
                        _ => prefill.add(out, rows, inputs),
                    }
                    start = Start::Add;
                }
                joined(&Joined {
                    results: &[(out, start)],
                    a: &gradients,
                    b: &weights.map(Matrix::transposed),
                    scale: 1.0,
                });
            })
        };
        tensor(dx, with_last(&of[0].gradient, inputs))
    });
    (dx, results)
}

/// The sum over the rows of x [rows, width]. The order of additions depends on the shape only.
pub(crate) fn sum_rows(x: &[f32], width: usize) -> Vec<f32> {
    let rows = x.len() / width.max(1);
    let step = 64;
    let partial: Vec<Vec<f32>> = (0..rows.div_ceil(step))
        .into_par_iter()
        .map(|block| {
            let mut sum = vec![0.0; width];
            let end = ((block + 1) * step).min(rows);
            add_rows(&mut sum, &x[block * step * width..end * width]);
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for sum in &partial {
        add_rows(&mut total, sum);
    }
    total
}

multiversion! {
    /// Adds every row of `x` to `sum`.
    fn add_rows(sum: &mut [f32], x: &[f32]) {
        for row in x.chunks_exact(sum.len()) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

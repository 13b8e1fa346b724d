//! Disentangled attention equals its definition and the composed operation, values and gradients.

mod common;

use burn::tensor::Tensor;
use common::{NoGrad, close, compare, loss, random};
use lowburn_kernels::{
    AttentionShape, Dropout, PositionTerms, RelativeIndex, composed, disentangled_attention,
};

const HEADS: usize = 3;
const WIDTH: usize = 24;

/// Distances up to `mid` as they are, beyond it logarithmic up to 2 `mid` - 1, as in DeBERTa-v2.
fn log_bucket(distance: isize, mid: isize, farthest: isize) -> isize {
    let far = distance.abs();
    if far <= mid {
        return distance;
    }
    let share = (far as f64 / mid as f64).ln() / ((farthest - 1) as f64 / mid as f64).ln();
    distance.signum() * ((share * (mid - 1) as f64).ceil() as isize + mid)
}

/// One batch: shape, inputs, tables and index.
struct Case {
    shape: AttentionShape,
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    key: Tensor<2>,
    query: Tensor<2>,
    index: RelativeIndex,
}

impl Case {
    fn new(
        queries: &[usize],
        keys: &[usize],
        span: usize,
        bucket: impl Fn(isize) -> isize,
    ) -> Self {
        let longest = *keys.iter().max().unwrap();
        let tokens = keys.iter().sum();
        Self {
            shape: AttentionShape {
                heads: HEADS,
                scale: 0.2,
                queries: queries.to_vec(),
                keys: keys.to_vec(),
            },
            q: random([queries.iter().sum(), WIDTH], 1),
            k: random([tokens, WIDTH], 2),
            v: random([tokens, WIDTH], 3),
            key: random([2 * span, WIDTH], 4),
            query: random([2 * span, WIDTH], 5),
            index: RelativeIndex::new(span, longest, bucket),
        }
    }

    /// The terms, with the tables that `has` names (content to position, position to content).
    fn terms(&self, has: [bool; 2]) -> PositionTerms {
        PositionTerms {
            key: has[0].then(|| self.key.clone()),
            query: has[1].then(|| self.query.clone()),
            index: self.index.clone(),
        }
    }

    fn fused(&self, has: [bool; 2], dropout: Dropout) -> Tensor<2> {
        let (q, k, v) = (self.q.clone(), self.k.clone(), self.v.clone());
        disentangled_attention(q, k, v, self.terms(has), &self.shape, dropout)
    }

    fn composed(&self, has: [bool; 2], dropout: Dropout) -> Tensor<2> {
        let (q, k, v) = (self.q.clone(), self.k.clone(), self.v.clone());
        composed::disentangled_attention(q, k, v, self.terms(has), &self.shape, dropout)
    }

    fn compare(&self, name: &str) {
        let Self {
            q,
            k,
            v,
            key,
            query,
            ..
        } = self;
        for has in [[true, false], [false, true], [true, true]] {
            for probability in [0.0, 0.2] {
                let dropout = Dropout::new(probability, 21);
                compare!(
                    format!("{name}, tables {has:?}, p {probability}"),
                    [q, k, v, key, query],
                    self.fused(has, dropout),
                    self.composed(has, dropout)
                );
            }
        }
    }
}

#[test]
fn equals_on_short_rows() {
    Case::new(&[9, 4, 1], &[9, 4, 1], 16, |d| d).compare("short rows");
}

#[test]
fn equals_where_distances_leave_the_table() {
    Case::new(&[11, 3], &[11, 3], 4, |d| d).compare("clamped");
}

/// Rows of several blocks of tokens, of one block exactly, and of a block and one token; more rows
/// than groups; distances beyond the linear buckets.
#[test]
fn equals_with_log_buckets_on_long_rows() {
    let lengths = [70, 33, 1, 32, 64, 5];
    let bucket = |d| log_bucket(d, 8, 64);
    Case::new(&lengths, &lengths, 16, bucket).compare("log buckets");
}

#[test]
fn equals_for_the_first_token_alone() {
    let bucket = |d| log_bucket(d, 8, 64);
    Case::new(&[1, 1, 1], &[70, 33, 1], 16, bucket).compare("first token");
    Case::new(&[2, 0, 1], &[40, 3, 1], 64, |d| d).compare("few queries");
}

/// Nothing in the API says that buckets grow with the distance.
#[test]
fn equals_with_buckets_in_disorder() {
    let bucket = |d: isize| (d * 7).rem_euclid(15) - 7;
    Case::new(&[35, 6], &[35, 6], 8, bucket).compare("disorder");
}

/// The definition, in f64 and one pair at a time.
fn definition(case: &Case, bucket: impl Fn(isize) -> isize, span: isize) -> Vec<f64> {
    let get = |x: &Tensor<2>| {
        let x = x.clone().into_data().try_to_vec::<f32>().unwrap();
        x.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let [q, k, v] = [&case.q, &case.k, &case.v].map(get);
    let [key, query] = [&case.key, &case.query].map(get);
    let size = WIDTH / HEADS;
    let mut out = vec![0.0; q.len()];
    let (mut first_q, mut first_k) = (0, 0);
    for (&queries, &keys) in case.shape.queries.iter().zip(&case.shape.keys) {
        for (head, i) in (0..HEADS).flat_map(|h| (0..queries).map(move |i| (h, i))) {
            let at = |x: &[f64], row: usize, c: usize| x[row * WIDTH + head * size + c];
            let score = |j: usize| {
                let d = bucket(i as isize - j as isize) + span;
                let d = d.clamp(0, 2 * span - 1) as usize;
                let terms = (0..size).map(|c| {
                    let (qi, kj) = (at(&q, first_q + i, c), at(&k, first_k + j, c));
                    qi * kj + qi * at(&key, d, c) + kj * at(&query, d, c)
                });
                case.shape.scale * terms.sum::<f64>()
            };
            let weights: Vec<f64> = (0..keys).map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            for c in 0..size {
                let mixed = (0..keys).map(|j| weights[j] * at(&v, first_k + j, c));
                out[(first_q + i) * WIDTH + head * size + c] = mixed.sum::<f64>() / total;
            }
        }
        first_q += queries;
        first_k += keys;
    }
    out
}

#[test]
fn equals_its_definition() {
    let bucket = |d| log_bucket(d, 4, 24);
    for queries in [[21, 6, 1], [1, 1, 1]] {
        let case = Case::new(&queries, &[21, 6, 1], 8, bucket);
        let y = case.fused([true, true], Dropout::NONE);
        let expected = definition(&case, bucket, 8);
        let expected = expected.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let shape = y.dims();
        let expected = burn::tensor::TensorData::new(expected, shape);
        close(
            "definition",
            y.clone(),
            Tensor::from_data(expected, &y.device()),
        );
    }
}

#[test]
fn only_tracked_tables_get_gradients() {
    let mut case = Case::new(&[5, 3], &[5, 3], 8, |d| d);
    case.key = case.key.no_grad();
    let gradients = loss(case.fused([true, true], Dropout::NONE)).backward();
    assert!(case.key.grad(&gradients).is_none());
    assert!(case.query.grad(&gradients).is_some() && case.q.grad(&gradients).is_some());
    case.query = case.query.no_grad();
    case.compare("frozen tables");
    let (q, k, v) = (case.q.clone(), case.k.clone(), case.v.clone());
    case.q = q.no_grad();
    case.k = k.no_grad();
    case.v = v.no_grad();
    let y = case.fused([true, true], Dropout::NONE);
    close("untracked", y, case.composed([true, true], Dropout::NONE));
}

/// Scores of some thousands, whose exponentials overflow unless the largest is subtracted first.
#[test]
fn large_scores_stay_finite() {
    let mut case = Case::new(&[40, 7], &[40, 7], 32, |d| d);
    case.shape.scale = 1e3;
    let y = case.fused([true, true], Dropout::NONE);
    let gradients = loss(y.clone()).backward();
    let inputs = [&case.q, &case.k, &case.v, &case.key, &case.query];
    let gradients = inputs.map(|x| x.grad(&gradients).unwrap());
    for x in gradients.into_iter().chain([y.inner()]) {
        let values = x.into_data().try_to_vec::<f32>().unwrap();
        assert!(values.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let lengths = [70, 33, 1, 32, 64, 5, 9, 41, 50];
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let case = Case::new(&lengths, &lengths, 16, |d| log_bucket(d, 8, 64));
            let y = case.fused([true, true], Dropout::new(0.1, 3));
            let gradients = loss(y.clone()).backward();
            let inputs = [&case.q, &case.k, &case.v, &case.key, &case.query];
            let gradients = inputs.map(|x| x.grad(&gradients).unwrap());
            let all = gradients.into_iter().chain([y.inner()]);
            all.flat_map(|x| x.into_data().try_to_vec::<f32>().unwrap())
                .map(f32::to_bits)
                .collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
#[should_panic(expected = "the index ends at 4")]
fn a_row_beyond_the_index_is_refused() {
    let mut case = Case::new(&[5], &[5], 8, |d| d);
    case.index = RelativeIndex::new(8, 4, |d| d);
    case.fused([true, true], Dropout::NONE);
}

#[test]
#[should_panic(expected = "needs a table")]
fn no_table_is_refused() {
    Case::new(&[5], &[5], 8, |d| d).fused([false, false], Dropout::NONE);
}

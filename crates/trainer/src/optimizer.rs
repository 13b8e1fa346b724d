//! AdamW over named parameters, one global gradient clip, and gradients summed over micro-batches.
//!
//! Burn's optimisers key their state by a parameter id that is random in every process, clip
//! each tensor on its own, and default to another epsilon. Here the state is keyed by the
//! Hugging Face name, the clip sees all gradients at once, and the constants are written out,
//! so that a state saved by one process means the same in the next.
//!
//! Everything is element-wise or summed in a fixed order, so the bits do not depend on the
//! number of threads.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// Decay rate of the first moment.
pub const BETA_1: f64 = 0.9;
/// Decay rate of the second moment.
pub const BETA_2: f64 = 0.999;
/// Added to the root of the second moment.
pub const EPSILON: f64 = 1e-8;
/// The largest global gradient norm that is passed on unscaled.
pub const MAX_GRAD_NORM: f64 = 1.0;

/// Elements handled by one task, and summed in one go: fixed, so that sums are reproducible.
const CHUNK: usize = 1 << 14;

/// Whether weight decay acts on the parameter of that Hugging Face name:
/// not on biases and not on LayerNorm, but on LoRA factors and head weights.
#[must_use]
pub fn decays(name: &str) -> bool {
    let norm = |part: &str| {
        let part = part.to_ascii_lowercase();
        part.contains("layernorm") || part.contains("layer_norm")
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    !(matches!(last, "bias" | "beta" | "gamma") || name.split('.').any(norm))
}

/// The two moments of one parameter, in the layout of its values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of the squared gradient.
    pub second: Vec<f32>,
}

impl Moments {
    fn zeros(len: usize) -> Self {
        Self {
            first: vec![0.0; len],
            second: vec![0.0; len],
        }
    }
}

/// `torch.optim.AdamW` (betas .9 / .999, epsilon 1e-8, decoupled decay before the step).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdamW {
    weight_decay: f64,
    step: u64,
    moments: BTreeMap<String, Moments>,
}

/// The constants of one step, in the precision the element loop uses.
#[derive(Clone, Copy)]
struct Step {
    decay: f32,
    step_size: f32,
    root_correction: f32,
    scale: f32,
}

impl AdamW {
    /// A fresh optimiser.
    #[must_use]
    pub fn new(weight_decay: f64) -> Self {
        Self {
            weight_decay,
            step: 0,
            moments: BTreeMap::new(),
        }
    }

    /// An optimiser that goes on after `step` steps with the moments of then.
    #[must_use]
    pub fn restore(weight_decay: f64, step: u64, moments: BTreeMap<String, Moments>) -> Self {
        Self {
            weight_decay,
            step,
            moments,
        }
    }

    /// Steps taken so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The moments by parameter name, for saving.
    #[must_use]
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// Starts the next step: to be called once before [`AdamW::update`] of each parameter.
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Moves one parameter: `values` by the gradient `gradient * scale` at rate `lr`.
    ///
    /// `scale` is the global clip's factor. A parameter that got no gradient is not to be
    /// passed at all, as in the reference.
    ///
    /// # Panics
    /// When `gradient` is not as long as `values`, or the parameter changed its length between
    /// steps: both are errors of the caller.
    pub fn update(
        &mut self,
        name: &str,
        values: &mut [f32],
        gradient: &[f32],
        lr: f64,
        scale: f64,
    ) {
        assert_eq!(
            values.len(),
            gradient.len(),
            "{name}: values and gradient differ in length"
        );
        let moments = match self.moments.get_mut(name) {
            Some(moments) => moments,
            None => self
                .moments
                .entry(name.to_owned())
                .or_insert_with(|| Moments::zeros(values.len())),
        };
        assert_eq!(
            values.len(),
            moments.first.len(),
            "{name}: the parameter changed its length"
        );
        let correction_1 = 1.0 - BETA_1.powf(self.step as f64);
        let correction_2 = 1.0 - BETA_2.powf(self.step as f64);
        let decay = if decays(name) { self.weight_decay } else { 0.0 };
        let step = Step {
            decay: (1.0 - lr * decay) as f32,
            step_size: (lr / correction_1) as f32,
            root_correction: correction_2.sqrt() as f32,
            scale: scale as f32,
        };
        values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(moments.first.par_chunks_mut(CHUNK))
            .zip(moments.second.par_chunks_mut(CHUNK))
            .for_each(|(((values, gradient), first), second)| {
                update_chunk(values, gradient, first, second, step);
            });
    }
}

/// One piece of [`AdamW::update`], in the operation order of torch's single-tensor AdamW.
fn update_chunk(
    values: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    step: Step,
) {
    let (beta_2, rest_1, rest_2) = (BETA_2 as f32, (1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32);
    let epsilon = EPSILON as f32;
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
        let gradient = gradient * step.scale;
        *value *= step.decay;
        *first += (gradient - *first) * rest_1;
        *second = *second * beta_2 + rest_2 * gradient * gradient;
        let denominator = second.sqrt() / step.root_correction + epsilon;
        *value -= step.step_size * (*first / denominator);
    }
}

/// Gradients by parameter name, summed over micro-batches.
#[derive(Debug, Default)]
pub struct Gradients {
    by_name: BTreeMap<String, Vec<f32>>,
}

impl Gradients {
    /// Adds the gradient of one parameter from one more micro-batch.
    ///
    /// # Panics
    /// When it is not as long as the one before.
    pub fn add(&mut self, name: &str, gradient: Vec<f32>) {
        match self.by_name.get_mut(name) {
            None => {
                self.by_name.insert(name.to_owned(), gradient);
            }
            Some(sum) => {
                assert_eq!(
                    sum.len(),
                    gradient.len(),
                    "{name}: gradients differ in length"
                );
                sum.par_chunks_mut(CHUNK)
                    .zip(gradient.par_chunks(CHUNK))
                    .for_each(|(sum, more)| {
                        for (sum, more) in sum.iter_mut().zip(more) {
                            *sum += more;
                        }
                    });
            }
        }
    }

    /// The gradient of one parameter, if it got any.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// The L2 norm over all gradients together, summed in 64 bit in a fixed order.
    #[must_use]
    pub fn norm(&self) -> f64 {
        let squares: f64 = self
            .by_name
            .values()
            .map(|values| sum_of_squares(values))
            .sum();
        squares.sqrt()
    }
}

/// Sum of squares in 64 bit: chunks in parallel, their sums in order.
fn sum_of_squares(values: &[f32]) -> f64 {
    let chunks: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&v| f64::from(v) * f64::from(v)).sum())
        .collect();
    chunks.iter().sum()
}

/// The factor of `torch.nn.utils.clip_grad_norm_`: `max / (norm + 1e-6)`, at most 1.
#[must_use]
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_by_hand() {
        // m = 0.1 g, v = 0.001 g^2, both corrections undo that: the step is lr * g / (|g| + eps).
        let mut adam = AdamW::new(0.0);
        let mut values = [1.0, -2.0];
        adam.begin_step();
        adam.update("x.weight", &mut values, &[0.5, -4.0], 0.1, 1.0);
        assert!((values[0] - 0.9).abs() < 1e-6, "{values:?}");
        assert!((values[1] + 1.9).abs() < 1e-6, "{values:?}");
    }

    #[test]
    fn three_steps_equal_64_bit_arithmetic() {
        let (mut m, mut v, mut x) = (0.0_f64, 0.0_f64, 0.7_f64);
        let (lr, decay) = (0.05, 0.1);
        let mut adam = AdamW::new(decay);
        let mut values = [0.7_f32];
        for (t, g) in [0.3_f64, -0.2, 1.5].into_iter().enumerate() {
            let t = t as i32 + 1;
            x -= lr * decay * x;
            m = BETA_1 * m + (1.0 - BETA_1) * g;
            v = BETA_2 * v + (1.0 - BETA_2) * g * g;
            let m_hat = m / (1.0 - BETA_1.powi(t));
            let v_hat = v / (1.0 - BETA_2.powi(t));
            x -= lr * m_hat / (v_hat.sqrt() + EPSILON);
            adam.begin_step();
            adam.update("classifier.dense.weight", &mut values, &[g as f32], lr, 1.0);
            assert!((f64::from(values[0]) - x).abs() < 1e-6, "step {t}");
        }
    }

    #[test]
    fn decay_spares_biases_and_norms_only() {
        for name in [
            "roberta.encoder.layer.0.attention.output.LayerNorm.weight",
            "roberta.embeddings.LayerNorm.bias",
            "deberta.encoder.rel_embeddings.LayerNorm.weight",
            "classifier.dense.bias",
        ] {
            assert!(!decays(name), "{name}");
        }
        for name in [
            "roberta.encoder.layer.0.attention.self.query.lora_A.weight",
            "roberta.encoder.layer.0.attention.self.query.lora_B.weight",
            "classifier.out_proj.weight",
            "roberta.embeddings.word_embeddings.weight",
        ] {
            assert!(decays(name), "{name}");
        }
        let mut adam = AdamW::new(0.5);
        let (mut weight, mut bias) = ([1.0_f32], [1.0_f32]);
        adam.begin_step();
        adam.update("a.weight", &mut weight, &[0.0], 0.1, 1.0);
        adam.update("a.bias", &mut bias, &[0.0], 0.1, 1.0);
        assert_eq!(weight, [0.95]);
        assert_eq!(bias, [1.0]);
    }

    #[test]
    fn rate_zero_moves_nothing_but_the_moments() {
        let mut adam = AdamW::new(0.1);
        let mut values = [3.0_f32];
        adam.begin_step();
        adam.update("a.weight", &mut values, &[2.0], 0.0, 1.0);
        assert_eq!(values, [3.0]);
        assert_eq!(adam.moments()["a.weight"].first, [0.2]);
    }

    #[test]
    fn clip_is_global_and_as_in_torch() {
        let mut gradients = Gradients::default();
        gradients.add("a", vec![3.0, 0.0]);
        gradients.add("b", vec![0.0, 4.0, 0.0]);
        assert!((gradients.norm() - 5.0).abs() < 1e-12);
        assert!((clip_scale(5.0, 1.0) - 1.0 / (5.0 + 1e-6)).abs() < 1e-15);
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert_eq!(clip_scale(0.0, 1.0), 1.0);
    }

    #[test]
    fn micro_batches_add_up() {
        let mut gradients = Gradients::default();
        gradients.add("a", vec![1.0, 2.0]);
        gradients.add("a", vec![0.5, -2.0]);
        assert_eq!(gradients.get("a"), Some(&[1.5, 0.0][..]));
        assert_eq!(gradients.get("b"), None);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let values: Vec<f32> = (0..100_000)
            .map(|i| ((i * 37 % 101) as f32).sin())
            .collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool");
            pool.install(|| {
                let mut gradients = Gradients::default();
                gradients.add("a.weight", values.clone());
                let norm = gradients.norm();
                let mut moved = values.clone();
                let mut adam = AdamW::new(0.1);
                adam.begin_step();
                adam.update("a.weight", &mut moved, &values, 1e-3, clip_scale(norm, 1.0));
                (norm, moved)
            })
        };
        assert!(run(1) == run(3));
    }

    #[test]
    fn a_restored_optimiser_goes_on_bit_for_bit() {
        let steps = |adam: &mut AdamW, values: &mut Vec<f32>, range: std::ops::Range<u32>| {
            for t in range {
                let gradient: Vec<f32> = values.iter().map(|v| (v * t as f32).cos()).collect();
                adam.begin_step();
                adam.update("a.weight", values, &gradient, 1e-2, 0.7);
            }
        };
        let (mut adam, mut values) = (AdamW::new(0.01), vec![0.3, -1.0, 2.0]);
        steps(&mut adam, &mut values, 0..4);
        let mut again = AdamW::restore(0.01, adam.steps(), adam.moments().clone());
        let mut values_again = values.clone();
        steps(&mut adam, &mut values, 4..9);
        steps(&mut again, &mut values_again, 4..9);
        assert_eq!(values, values_again);
        assert_eq!(adam, again);
    }
}

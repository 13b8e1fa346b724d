//! One optimiser step: forward and backward of every micro-batch, one clip, one update.

use std::path::Path;
use std::time::Instant;

use burn::tensor::{Gradients as Graph, Tensor};
use lowburn_models::{Dtype, KeptInputs, Mode, ModelInput, SequenceClassifier};

use crate::error::TrainError;
use crate::loss::training_loss;
use crate::optimizer::{AdamW, Gradients, MAX_GRAD_NORM, clip_scale};
use crate::parameters::{self, Slot};
use crate::plan::RunPlan;
use crate::prepare::Prepared;
use crate::rows::{Rows, model_input};
use crate::scale::LossScale;
use crate::state::{self, Restored};

/// The optimiser and what it needs to know of the run.
pub(crate) struct Stepper {
    optimizer: AdamW,
    seed: u64,
    checkpoint_activations: bool,
    /// Where gradients may be of f16.
    scale: Option<LossScale>,
}

/// What one step works on.
pub(crate) struct Micro<'a> {
    pub(crate) rows: &'a Rows,
    /// Row numbers of every micro-batch.
    pub(crate) group: &'a [Vec<usize>],
    /// Steps done before, so 0 in the first.
    pub(crate) step: u64,
    pub(crate) lr: f64,
}

/// Where the seconds of a step went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seconds {
    pub(crate) batch: f64,
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    pub(crate) update: f64,
}

/// What a step gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepOutcome {
    /// Mean over the effective batch.
    pub(crate) loss: f64,
    /// Global, before clipping.
    pub(crate) grad_norm: f64,
    pub(crate) rows: usize,
    /// Real tokens.
    pub(crate) tokens: usize,
    pub(crate) seconds: Seconds,
    /// What the loss was multiplied by, where it was.
    pub(crate) loss_scale: Option<f64>,
    /// The gradients were not numbers at that scale, and nothing was moved.
    pub(crate) skipped: bool,
}

impl Stepper {
    pub(crate) fn new(plan: &RunPlan) -> Self {
        let config = plan.config();
        Self {
            checkpoint_activations: config.checkpoint_activations,
            ..Self::without_run(config.weight_decay, config.seed, config.dtype)
        }
    }

    /// Steps at their beginning that belong to no run; `dtype` is the base's.
    pub(crate) fn without_run(weight_decay: f64, seed: u64, dtype: Dtype) -> Self {
        Self {
            optimizer: AdamW::new(weight_decay),
            seed,
            checkpoint_activations: false,
            scale: (dtype == Dtype::F16).then(LossScale::default),
        }
    }

    /// Goes on where a saved state stopped: its values go into the model.
    pub(crate) fn restore(
        plan: &RunPlan,
        output: &Path,
        prepared: &mut Prepared,
        restored: &Restored,
    ) -> Result<Self, TrainError> {
        let put_back = prepared.model.restore(&restored.tensors);
        put_back.map_err(|reason| TrainError::State {
            path: state::folder(output),
            reason: format!("{reason}; start again with --overwrite"),
        })?;
        let config = plan.config();
        let scale = (config.dtype == Dtype::F16).then_some(restored.progress.loss_scale);
        let scale = scale.map(Option::unwrap_or_default);
        let skipped = scale.map_or(0, |scale| scale.skipped);
        let taken = restored.progress.step.saturating_sub(skipped);
        let moments = restored.moments.clone();
        Ok(Self {
            optimizer: AdamW::restore(config.weight_decay, taken, moments),
            seed: config.seed,
            checkpoint_activations: config.checkpoint_activations,
            scale,
        })
    }

    /// The loss scale as it is now, where there is one.
    pub(crate) fn loss_scale(&self) -> Option<LossScale> {
        self.scale
    }

    pub(crate) fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// One step. When loss or gradient are not numbers the parameters stay as they were; with a loss scale that is not the
    /// smallest yet, such a gradient is no error but a step that is skipped.
    pub(crate) fn step(
        &mut self,
        model: &mut Slot,
        micro: &Micro<'_>,
    ) -> Result<StepOutcome, TrainError> {
        let effective: usize = micro.group.iter().map(Vec::len).sum();
        let mut gradients = Gradients::default();
        let mut outcome = StepOutcome {
            loss: 0.0,
            grad_norm: 0.0,
            rows: effective,
            tokens: 0,
            seconds: Seconds::default(),
            loss_scale: self.scale.map(|scale| scale.scale),
            skipped: false,
        };
        for (index, indices) in micro.group.iter().enumerate() {
            let clock = Instant::now();
            let batch = micro.rows.batch(indices);
            outcome.tokens += batch.tokens();
            let labels = batch.labels.clone();
            let input = model_input(batch);
            let built = clock.elapsed().as_secs_f64();
            let seed = dropout_seed(self.seed, micro.step, index as u64);
            let again = self.checkpoint_activations;
            let (logits, kept) = forward(model.get(), &input, Mode::train(seed), again);
            let loss = training_loss(logits, &labels, effective);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            finite("loss", value, micro)?;
            outcome.loss += value;
            let forward = clock.elapsed().as_secs_f64();
            let loss = match outcome.loss_scale {
                Some(scale) => loss.mul_scalar(scale),
                None => loss,
            };
            backward(model.get(), &loss, kept, &mut gradients);
            let whole = clock.elapsed().as_secs_f64();
            outcome.seconds.batch += built;
            outcome.seconds.forward += forward - built;
            outcome.seconds.backward += whole - forward;
        }
        let clock = Instant::now();
        let divisor = outcome.loss_scale.unwrap_or(1.0);
        outcome.grad_norm = gradients.norm() / divisor;
        if !outcome.grad_norm.is_finite() && self.scale.as_mut().is_some_and(LossScale::overflowed)
        {
            outcome.skipped = true;
            return Ok(outcome);
        }
        finite("gradient norm", outcome.grad_norm, micro)?;
        let scale = clip_scale(outcome.grad_norm, MAX_GRAD_NORM) / divisor;
        let optimizer = &mut self.optimizer;
        optimizer.begin_step();
        model.update(|name, values| {
            if let Some(gradient) = gradients.get(name) {
                optimizer.update(name, values, gradient, micro.lr, scale);
            }
        });
        if let Some(scale) = &mut self.scale {
            scale.taken();
        }
        outcome.seconds.update = clock.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

/// The logits, and where layers are computed `again` what their backward pass needs.
pub(crate) fn forward<'a>(
    model: &'a SequenceClassifier,
    input: &'a ModelInput,
    mut mode: Mode,
    again: bool,
) -> (Tensor<2>, Option<KeptInputs<'a>>) {
    if again {
        let (logits, kept) = model.forward_keeping_inputs(input, &mut mode);
        return (logits, Some(kept));
    }
    (model.forward(input, &mut mode), None)
}

/// Adds the gradients of one micro-batch to the sum.
pub(crate) fn backward(
    model: &SequenceClassifier,
    loss: &Tensor<1>,
    kept: Option<KeptInputs<'_>>,
    sum: &mut Gradients,
) {
    let mut collect = |graph: &mut Graph| parameters::collect(model, graph, sum);
    match kept {
        Some(kept) => kept.backward(loss, &mut collect),
        None => collect(&mut loss.backward()),
    }
}

fn finite(what: &'static str, value: f64, micro: &Micro<'_>) -> Result<(), TrainError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(TrainError::Diverged {
        what,
        value,
        step: micro.step + 1,
        lr: micro.lr,
    })
}

/// The seed of all dropouts of one micro-batch: a function of the run's seed and its place, so
/// that a resumed run draws the same without any saved generator.
pub(crate) fn dropout_seed(seed: u64, step: u64, micro: u64) -> u64 {
    let mut state = seed ^ 0x6c6f_7762_7572_6e21;
    for part in [step, micro] {
        state = split_mix(state ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    state
}

/// One output of the splitmix64 generator (Steele, Lea and Flood 2014).
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use lowburn_glue::Task;
    use lowburn_lora::{LoraConfig, Targets};
    use lowburn_models::Method;

    use super::*;
    use crate::config::{DeviceName, EvalEvery, RunConfig};
    use crate::prepare::prepare;
    use crate::progress::Silent;
    use crate::schedule::Warmup;

    fn plan() -> RunPlan {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini");
        let config = RunConfig {
            model: data.join("model"),
            model_name: "mini".into(),
            task: Task::Rte,
            data_dir: data.join("glue"),
            method: Method::Lora,
            lora: Some(LoraConfig::new(2, 4.0, Targets::names(["query"]))),
            position_branch: None,
            init_adapter: None,
            epochs: 1,
            batch_size: 4,
            accumulate: 2,
            lr: 2e-3,
            weight_decay: 0.1,
            warmup: Warmup::Steps(0),
            max_length: 40,
            seed: 3,
            head_dropout: None,
            shuffle: false,
            group_by_length: false,
            train_rows: Some(8),
            max_steps: None,
            eval_every: EvalEvery::Epoch,
            device: DeviceName::FLEX,
            threads: None,
            checkpoint_activations: false,
            dtype: Dtype::F16,
        };
        config.check().expect("a plan")
    }

    /// One step from the beginning at a loss scale: its outcome, the scale after it, what it left.
    fn step_at(scale: f64) -> (StepOutcome, LossScale, Vec<Vec<f32>>) {
        let plan = plan();
        let mut prepared = prepare(&plan, &mut Silent).expect("the mini model and data");
        let mut stepper = Stepper::new(&plan);
        let known = stepper.scale.as_mut().expect("f16 has a scale");
        known.scale = scale;
        let micro = Micro {
            rows: &prepared.train,
            group: &[vec![0, 1, 2, 3], vec![4, 5, 6, 7]],
            step: 0,
            lr: 1e-3,
        };
        let outcome = stepper.step(&mut prepared.model, &micro).expect("a step");
        let taken = u64::from(!outcome.skipped);
        assert_eq!(stepper.optimizer().steps(), taken);
        let values = prepared.trainable_values();
        let values = values.into_iter().map(|tensor| tensor.values).collect();
        (outcome, stepper.scale.expect("still there"), values)
    }

    #[test]
    fn a_scale_leaves_no_trace_unless_gradients_overflow() {
        let [(small, _, expected), (large, after, found)] = [1.0, 65_536.0].map(step_at);
        assert!(!small.skipped && !large.skipped);
        assert_eq!((small.loss, small.grad_norm), (large.loss, large.grad_norm));
        assert!(found == expected, "a power of two is exact");
        assert_eq!((after.scale, after.skipped), (65_536.0, 0));
        let (skipped, after, left) = step_at(2f64.powi(140));
        assert!(skipped.skipped && skipped.loss == small.loss);
        assert_eq!((after.scale, after.skipped), (2f64.powi(139), 1));
        let start = prepare(&plan(), &mut Silent).expect("the mini model and data");
        let start = start.trainable_values();
        assert!(left.iter().eq(start.iter().map(|tensor| &tensor.values)));
        assert!(left != found, "a step that is taken moves something");
    }

    #[test]
    fn every_place_has_its_own_dropout() {
        let mut seen = BTreeSet::new();
        for seed in 0..4 {
            for step in 0..50 {
                for micro in 0..4 {
                    assert!(seen.insert(dropout_seed(seed, step, micro)));
                }
            }
        }
        assert_eq!(dropout_seed(1, 2, 3), dropout_seed(1, 2, 3));
    }
}

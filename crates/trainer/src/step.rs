//! One optimiser step: forward and backward of every micro-batch, one clip, one update.

use std::path::Path;
use std::time::Instant;

use burn::tensor::{Gradients as Graph, Tensor};
use lowburn_models::{KeptInputs, Mode, ModelInput, SequenceClassifier};

use crate::error::TrainError;
use crate::loss::training_loss;
use crate::optimizer::{AdamW, Gradients, MAX_GRAD_NORM, clip_scale};
use crate::parameters::{self, Slot};
use crate::plan::RunPlan;
use crate::prepare::Prepared;
use crate::rows::{Rows, model_input};
use crate::state::{self, Restored};

/// The optimiser and what it needs to know of the run.
pub(crate) struct Stepper {
    optimizer: AdamW,
    seed: u64,
    checkpoint_activations: bool,
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
}

impl Stepper {
    pub(crate) fn new(plan: &RunPlan) -> Self {
        let config = plan.config();
        Self {
            optimizer: AdamW::new(config.weight_decay),
            seed: config.seed,
            checkpoint_activations: config.checkpoint_activations,
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
        let (step, moments) = (restored.progress.step, restored.moments.clone());
        Ok(Self {
            optimizer: AdamW::restore(config.weight_decay, step, moments),
            seed: config.seed,
            checkpoint_activations: config.checkpoint_activations,
        })
    }

    pub(crate) fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// One step. When loss or gradient are not numbers the parameters stay as they were.
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
            backward(model.get(), &loss, kept, &mut gradients);
            let whole = clock.elapsed().as_secs_f64();
            outcome.seconds.batch += built;
            outcome.seconds.forward += forward - built;
            outcome.seconds.backward += whole - forward;
        }
        let clock = Instant::now();
        outcome.grad_norm = gradients.norm();
        finite("gradient norm", outcome.grad_norm, micro)?;
        let scale = clip_scale(outcome.grad_norm, MAX_GRAD_NORM);
        let optimizer = &mut self.optimizer;
        optimizer.begin_step();
        model.update(|name, values| {
            if let Some(gradient) = gradients.get(name) {
                optimizer.update(name, values, gradient, micro.lr, scale);
            }
        });
        outcome.seconds.update = clock.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

/// The logits, and where layers are computed `again` what their backward pass needs.
fn forward<'a>(
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
fn backward(
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
    use super::*;
    use std::collections::BTreeSet;

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

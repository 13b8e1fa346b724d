//! What a device computes in the suite, with the trainer's own code.

use std::collections::BTreeMap;

use burn::tensor::Device;
use lowburn_kernels::composed_only;
use lowburn_models::{Dtype, Method, Mode, SequenceClassifier};

use super::subject::Subject;
use crate::error::TrainError;
use crate::loss::training_loss;
use crate::optimizer::Gradients;
use crate::parameters::{self, Slot, numbers};
use crate::rows::model_input;
use crate::schedule::Schedule;
use crate::state::NamedTensor;
use crate::step::{Micro, Stepper, backward, forward};

/// Steps of a trajectory, of which the first has rate 0.
const STEPS: u64 = 10;
/// Steps that warm up.
const WARMUP: u64 = 2;
/// On everything trained but biases and LayerNorm.
const WEIGHT_DECAY: f64 = 0.1;
/// What the loss is multiplied by before a backward pass in f16, whose gradients would vanish below 6e-8.
const SCALE: f32 = 1024.0;
/// Fixes the masks of every dropout.
const MASKS: u64 = 5;

/// A device and how it is used.
pub(super) struct Side {
    /// With autodiff.
    pub(super) device: Device,
    /// Whether the composed operations run where fused ones exist.
    pub(super) composed: bool,
    /// Fixes the masks of every dropout.
    pub(super) masks: u64,
    /// Changes a model after it was made, which is how tests make a device that computes something else.
    pub(super) change: fn(SequenceClassifier) -> SequenceClassifier,
}

/// What is computed.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) subject: &'a Subject,
    pub(super) method: Method,
    /// How a frozen base is stored.
    pub(super) dtype: Dtype,
}

/// What comes out of one pass forth and back.
pub(super) struct Pass {
    pub(super) logits: Vec<f32>,
    /// Of everything that is trained, by name; nothing where there is no gradient.
    pub(super) gradients: BTreeMap<String, Vec<f32>>,
}

/// What comes out of some steps.
pub(super) struct Trajectory {
    /// Of every step.
    pub(super) losses: Vec<f64>,
    /// What is trained, before the first step.
    pub(super) start: Vec<NamedTensor>,
    /// And after the last.
    pub(super) end: Vec<NamedTensor>,
}

impl Trajectory {
    pub(super) fn mean_loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }
}

impl Side {
    pub(super) fn new(device: Device, composed: bool) -> Self {
        Self {
            device: device.autodiff(),
            composed,
            masks: MASKS,
            change: |model| model,
        }
    }

    /// Does `work` with this side's operations.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.composed {
            true => composed_only(work),
            false => work(),
        }
    }

    fn model(&self, case: Case<'_>) -> Result<SequenceClassifier, TrainError> {
        let model = (self.change)(case.subject.model(case.method, &self.device)?);
        Ok(match case.dtype.is_half() {
            true => model.with_base_dtype(case.dtype),
            false => model,
        })
    }

    /// The logits of an evaluation.
    pub(super) fn logits(&self, case: Case<'_>) -> Result<Vec<f32>, TrainError> {
        let model = parameters::without_gradients(&self.model(case)?);
        let subject = case.subject;
        let input = model_input(subject.rows.batch(subject.first()));
        let logits = self.within(|| model.forward(&input, &mut Mode::eval()));
        Ok(numbers(logits.into_data()))
    }

    /// Logits and gradients of a training pass with dropout; `again`: with the layers computed again on the way back.
    pub(super) fn pass(&self, case: Case<'_>, again: bool) -> Result<Pass, TrainError> {
        let model = self.model(case)?;
        let subject = case.subject;
        let batch = subject.rows.batch(subject.first());
        let (rows, labels) = (batch.rows, batch.labels.clone());
        let input = model_input(batch);
        let scale = match case.dtype {
            Dtype::F16 => SCALE,
            Dtype::F32 | Dtype::Bf16 => 1.0,
        };
        let mut sum = Gradients::default();
        let logits = self.within(|| {
            let mode = Mode::train(self.masks);
            let (logits, kept) = forward(&model, &input, mode, again);
            let loss = training_loss(logits.clone(), &labels, rows).mul_scalar(scale);
            backward(&model, &loss, kept, &mut sum);
            logits
        });
        let gradient = |tensor: NamedTensor| {
            let scaled = sum.get(&tensor.name).unwrap_or_default();
            let gradient: Vec<f32> = scaled.iter().map(|value| value / scale).collect();
            (tensor.name, gradient)
        };
        Ok(Pass {
            logits: numbers(logits.inner().into_data()),
            gradients: parameters::values(&model)
                .into_iter()
                .map(gradient)
                .collect(),
        })
    }

    /// Ten steps of the trainer: two micro-batches each, the clip, the schedule, AdamW, for f16 the loss scale.
    pub(super) fn steps(&self, case: Case<'_>) -> Result<Trajectory, TrainError> {
        let mut model = Slot::new(self.model(case)?);
        let start = parameters::values(model.get());
        let schedule = Schedule {
            lr: match case.method {
                Method::Lora => 5e-3,
                Method::Full | Method::Head | Method::Bitfit => 1e-3,
            },
            warmup: WARMUP,
            total: STEPS,
        };
        let mut stepper = Stepper::without_run(WEIGHT_DECAY, self.masks, case.dtype);
        let mut losses = Vec::new();
        for (step, group) in (0..STEPS).zip(case.subject.groups.iter().cycle()) {
            let micro = Micro {
                rows: &case.subject.rows,
                group,
                step,
                lr: schedule.rate(step),
            };
            let outcome = self.within(|| stepper.step(&mut model, &micro))?;
            losses.push(outcome.loss);
        }
        Ok(Trajectory {
            losses,
            start,
            end: parameters::values(model.get()),
        })
    }
}

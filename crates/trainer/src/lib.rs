//! Fine-tuning as a loop of optimiser steps that can be killed, resumed and trusted.
//!
//! The loop is this project's own, because of what it promises: the seed, the configuration and
//! the files fix every bit of the result; a run killed at any moment goes on and ends with those
//! same bits; only what is trained is saved; the gradient is clipped once, over everything; and
//! the learning rate is the reference's in every step. What it does is small and explicit:
//!
//! 1. [`RunConfig`] is what was asked for, raw. [`RunConfig::check`] makes a [`RunPlan`] of it,
//!    and only a plan trains: every bad value is found before anything is loaded or written.
//! 2. [`identity`] names a run by the digest of its configuration and of all input files.
//! 3. [`train()`] loads, checks, and goes step by step, telling an [`Observer`] what happens. It
//!    leaves `run.json` ([`RunRecord`]), `log.jsonl`, `timing.jsonl`, and of the best evaluation
//!    `adapter/`, `head/`, `bitfit/` or `model/`; until it is done also `state/`, from which a killed run
//!    goes on ([`Start::Resume`]).
//! 4. [`evaluate()`], [`predict()`] and [`merge()`] use what came out.
//!
//! The optimiser ([`AdamW`]) and the schedule ([`Schedule`]) stand on their own, without a model.
//! This crate knows no command line and prints nothing.

mod about;
mod claim;
mod config;
mod device;
mod device_suite;
mod digest;
mod error;
mod evaluate;
mod inspect;
mod journal;
mod keep;
mod load;
mod lock;
mod loss;
mod memory;
mod merge;
mod optimizer;
mod output;
mod parameters;
mod parts;
mod plan;
mod predict;
mod prepare;
mod progress;
mod record;
mod rows;
mod run;
mod scale;
mod schedule;
mod state;
mod step;
mod system;
mod train;

pub use about::About;
pub use claim::{Start, TENSORBOARD};
pub use config::{EvalEvery, RunConfig};
pub use device::{DeviceKind, DeviceName, FoundDevice, found_devices};
pub use device_suite::{
    DeviceCheck, DeviceReport, Difference, Tolerance, check_device, check_device_with,
};
pub use digest::{Identity, digest, file_digest, identity};
pub use error::TrainError;
pub use evaluate::{EvalConfig, Evaluation, evaluate};
pub use inspect::{Forecast, InspectConfig, Inspection, ParameterRow, estimate, forecast, inspect};
pub use keep::kept_folder;
pub use load::Source;
pub use lowburn_kernels::PagePool;
pub use lowburn_models::{Dtype, Method};
pub use memory::{MemoryEstimate, Phase, TrainingShape, tokenizer_bytes};
pub use merge::{Merged, merge};
pub use optimizer::{
    AdamW, BETA_1, BETA_2, EPSILON, Gradients, MAX_GRAD_NORM, Moments, clip_scale, decays,
};
pub use output::{recover_folder, replace_folder, write_atomic, write_json};
pub use plan::RunPlan;
pub use predict::{PredictConfig, PredictInput, PredictionRow, predict};
pub use progress::{Event, Observer, Silent, StepReport};
pub use record::{Best, Digests, EvaluationRecord, ParameterCounts, RunRecord, Status, Timing};
pub use schedule::{Schedule, Warmup};
pub use system::{cpu_name, matrix_rate, peak_memory_bytes};
pub use train::train;

//! What a run tells while it goes on. The trainer prints nothing: whoever starts it decides
//! whether events become a progress bar, plain lines, or nothing.

use serde::{Deserialize, Serialize};

use crate::record::{Best, EvaluationRecord};

/// Receives the events of a run, in order, on the thread that trains.
pub trait Observer {
    /// One thing that happened.
    fn event(&mut self, event: &Event<'_>);
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn event(&mut self, event: &Event<'_>) {
        (**self).event(event);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event<'_>) {}
}

/// What is known after an optimiser step; it can be sent on to another process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Optimiser steps of the whole run.
    pub total: u64,
    /// Epochs done, as a fraction.
    pub epoch: f64,
    /// Mean loss over the effective batch.
    pub loss: f64,
    /// The rate used.
    pub lr: f64,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// Rows a second since this process started to train, evaluations left out.
    pub examples_per_second: f64,
    /// Seconds to go at that pace, further evaluations not counted.
    pub eta_seconds: f64,
}

/// One thing that happened in a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Model and data are loaded, the loop starts.
    Started {
        /// Steps already done by an earlier process.
        done: u64,
        /// Optimiser steps of the whole run.
        total: u64,
        /// Training rows of an epoch.
        rows: usize,
        /// Trainable parameters.
        trainable: usize,
        /// All parameters.
        parameters: usize,
    },
    /// One optimiser step.
    Step(StepReport),
    /// Rows of an evaluation that are done; 0 when it starts.
    Evaluating {
        /// The split.
        split: &'a str,
        /// Rows done.
        done: usize,
        /// Rows of the split.
        total: usize,
    },
    /// One split is evaluated.
    Evaluated {
        /// The numbers.
        evaluation: &'a EvaluationRecord,
        /// Whether this is the best so far.
        is_best: bool,
    },
    /// All done, everything is on disk.
    Finished {
        /// The best evaluation.
        best: &'a Best,
        /// Optimiser steps done.
        steps: u64,
        /// Seconds of the whole run, earlier processes included.
        seconds: f64,
    },
    /// Something worth a line.
    Note(&'a str),
    /// Something that makes the result doubtful: to be shown even when nothing else is.
    Warning(&'a str),
}

//! The device suite: does a device compute what the processor computes?
//!
//! Two small models with random weights, one of each architecture, are run on a device and on flex: logits, gradients
//! with dropout, ten steps of the trainer itself, for LoRA and for full fine-tuning. Dropout's masks are made on the
//! processor from keys, so they are the same everywhere, and what differs is arithmetic. The reference is flex with the
//! fused operations in f32. Where the device is flex, its side runs the composed operations, which are what every other
//! device runs, so that the suite means something in a build without any other device.
//!
//! A limit comes from what arithmetic allows, not from what was seen; each is written down with its reason in
//! [`Tolerance`] and in the report. A part that fails or panics, as runtimes of graphics cards do, is a row of the
//! report that did not pass, and the next part runs.

mod difference;
mod facts;
mod products;
mod report;
mod side;
mod subject;
#[cfg(test)]
mod tests;
mod tolerance;

use std::time::Instant;

use burn::tensor::Device;
use lowburn_models::{Architecture, Dtype, Method};

use crate::device::{DeviceKind, DeviceName, attempt};
use crate::error::TrainError;
use facts::{facts, without_home};
use side::{Case, Side};
use subject::Subject;
use tolerance::Factors;

pub use difference::Difference;
pub use report::{DeviceCheck, DeviceReport};
pub use tolerance::Tolerance;

/// What a row is compared with: the reference, the same device, or 64 bit on the host.
const FLEX: &str = "flex, fused";
const ITSELF: &str = "itself, f32";
const HOST: &str = "64 bit";

/// Compares a device with the processor on the same numbers; takes seconds on flex, and minutes where kernels are
/// compiled when they are used first.
///
/// # Errors
/// When the device is not there or does not start. What it computes wrong, or fails to compute, is in the report.
pub fn check_device(device: DeviceName) -> Result<DeviceReport, TrainError> {
    check_device_with(device, &mut |_| {})
}

/// [`check_device`], which tells what it is about to do.
///
/// # Errors
/// As [`check_device`].
pub fn check_device_with(
    device: DeviceName,
    progress: &mut dyn FnMut(&str),
) -> Result<DeviceReport, TrainError> {
    let started = device.start()?;
    let tested = Side::new(started, device.kind() == DeviceKind::Flex);
    let reference = Side::new(Device::flex(), false);
    let mut suite = Suite::new(tested, reference, progress);
    suite.products();
    // Cards of NVIDIA take TF32 for some shapes only, perhaps for others than those that were just tried.
    if device.kind() == DeviceKind::Cuda {
        suite.factors = Factors::Tf32;
    }
    let halves = Dtype::ALL.into_iter().filter(|dtype| dtype.is_half());
    let halves: Vec<Dtype> = halves.filter(|dtype| device.supports(*dtype)).collect();
    for architecture in Architecture::ALL {
        let subject = Subject::new(architecture)?;
        for method in [Method::Lora, Method::Full] {
            suite.in_f32(&subject, method);
        }
        for dtype in &halves {
            suite.in_halves(&subject, *dtype);
        }
    }
    Ok(DeviceReport {
        device,
        facts: facts(device),
        checks: suite.checks,
    })
}

/// The parts of the suite, and what they gave so far.
struct Suite<'a> {
    tested: Side,
    reference: Side,
    factors: Factors,
    checks: Vec<DeviceCheck>,
    progress: &'a mut dyn FnMut(&str),
}

impl<'a> Suite<'a> {
    fn new(tested: Side, reference: Side, progress: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            tested,
            reference,
            factors: Factors::Full,
            checks: Vec::new(),
            progress,
        }
    }

    /// Products alone, which say how exact the rest can be.
    fn products(&mut self) {
        let rows = [("f32 matrices", Tolerance::products())];
        self.part("products", HOST, rows, |tested, _| {
            Ok([tested.product_error()])
        });
        let exact = |check: &DeviceCheck| {
            let difference = check.outcome.as_ref();
            difference.is_ok_and(|difference| difference.relative <= products::FULL)
        };
        self.factors = match self.checks.last().is_some_and(exact) {
            true => Factors::Full,
            false => Factors::Tf32,
        };
    }

    /// Everything in f32 that a method does.
    fn in_f32(&mut self, subject: &Subject, method: Method) {
        let case = Case {
            subject,
            method,
            dtype: Dtype::F32,
        };
        let on = format!("{}, {method}", subject.name());
        let factors = self.factors;

        let rows = [("logits without dropout", Tolerance::logits(factors))];
        self.part(&on, FLEX, rows, |tested, reference| {
            let (found, expected) = (tested.logits(case)?, reference.logits(case)?);
            Ok([Difference::of(&found, &expected, 0.0)])
        });
        let rows = [
            ("logits", Tolerance::logits(factors)),
            ("gradients", Tolerance::gradients(factors)),
        ];
        self.part(&on, FLEX, rows, |tested, reference| {
            let (found, expected) = (tested.pass(case, false)?, reference.pass(case, false)?);
            Ok(Difference::of_passes(&found, &expected))
        });
        let rows = [
            ("logits, layers computed again", Tolerance::again(factors)),
            (
                "gradients, layers computed again",
                Tolerance::again(factors),
            ),
        ];
        self.part(&on, ITSELF, rows, |tested, _| {
            let (found, expected) = (tested.pass(case, true)?, tested.pass(case, false)?);
            Ok(Difference::of_passes(&found, &expected))
        });
        let rows = [
            ("losses of 10 steps", Tolerance::losses(factors)),
            ("parameters after 10 steps", Tolerance::parameters(factors)),
        ];
        self.part(&on, FLEX, rows, |tested, reference| {
            let (found, expected) = (tested.steps(case)?, reference.steps(case)?);
            let losses = Difference::of_losses(&found.losses, &expected.losses);
            Ok([losses, Difference::of_parameters(&found, &expected)])
        });
    }

    /// LoRA upon a base in halves, compared with the device's own f32.
    fn in_halves(&mut self, subject: &Subject, dtype: Dtype) {
        let case = |dtype| Case {
            subject,
            method: Method::Lora,
            dtype,
        };
        let (half, full) = (case(dtype), case(Dtype::F32));
        let on = format!("{}, lora, {dtype}", subject.name());

        let rows = [("logits without dropout", Tolerance::half_logits(dtype))];
        self.part(&on, ITSELF, rows, |tested, _| {
            let (found, expected) = (tested.logits(half)?, tested.logits(full)?);
            Ok([Difference::of(&found, &expected, 0.0)])
        });
        let rows = [
            ("logits", Tolerance::half_logits(dtype)),
            ("gradients", Tolerance::half_gradients(dtype)),
        ];
        self.part(&on, ITSELF, rows, |tested, _| {
            let (found, expected) = (tested.pass(half, false)?, tested.pass(full, false)?);
            Ok(Difference::of_passes(&found, &expected))
        });
        let rows = [("mean loss of 10 steps", Tolerance::mean_loss())];
        self.part(&on, ITSELF, rows, |tested, _| {
            let (found, expected) = (tested.steps(half)?, tested.steps(full)?);
            let means = [found.mean_loss(), expected.mean_loss()];
            Ok([Difference::of_losses(&means[..1], &means[1..])])
        });
    }

    /// Runs a part and makes a row of each of its differences, of its failure too.
    fn part<const N: usize>(
        &mut self,
        on: &str,
        against: &'static str,
        rows: [(&'static str, Tolerance); N],
        work: impl FnOnce(&Side, &Side) -> Result<[Difference; N], TrainError>,
    ) {
        let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        (self.progress)(&format!("{on}: {}", names.join(", ")));
        let clock = Instant::now();
        let (tested, reference) = (&self.tested, &self.reference);
        let outcome = attempt(|| work(tested, reference));
        let outcome = outcome.and_then(|found| found.map_err(|error| error.to_string()));
        let seconds = clock.elapsed().as_secs_f64();
        for (index, (what, tolerance)) in rows.into_iter().enumerate() {
            let outcome = match &outcome {
                Ok(differences) => Ok(differences[index]),
                Err(message) => Err(without_home(message)),
            };
            self.checks.push(DeviceCheck {
                on: on.to_owned(),
                what,
                against,
                outcome,
                tolerance,
                seconds: (index == 0).then_some(seconds),
            });
        }
    }
}

//! A run from a checked plan to a finished record.
//!
//! Everything that can be wrong is found before the output folder is touched. Then the loop goes
//! step by step; after every evaluation, and every few seconds, the state is saved, so that a
//! process killed at any moment loses a few seconds and not a bit of the result.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::claim::{Claim, Start, claim, clear};
use crate::config::EvalEvery;
use crate::digest::{Identity, identity};
use crate::error::TrainError;
use crate::keep::Keeper;
use crate::output::{LineLog, write_json};
use crate::plan::RunPlan;
use crate::prepare::{Prepared, prepare};
use crate::progress::{Event, Observer};
use crate::record::{Best, EvaluationRecord, RunRecord, Status, Timing};
use crate::state::{self, Progress, Restored};
use crate::step::{Micro, StepOutcome, Stepper};
use crate::{evaluate, system};

/// Seconds of training between two saved states, at least.
const SAVE_SECONDS: f64 = 5.0;
/// Saving may take this share of the time at most; large states are saved less often.
const SAVE_SHARE: f64 = 0.03;

/// Trains, and leaves in `output` what the crate's header lists.
///
/// # Errors
/// For a folder that is in the way, inputs that do not fit, a loss that is not a number, and
/// whatever the system refuses. The last saved state is kept and [`Start::Resume`] goes on there.
pub fn train(
    plan: &RunPlan,
    output: &Path,
    start: Start,
    observer: &mut dyn Observer,
) -> Result<RunRecord, TrainError> {
    let clock = Instant::now();
    let identity = identity(plan)?;
    let claim = claim(output, start, plan, &identity)?;
    if let Claim::Done(record) = claim {
        crate::output::remove_folder(&state::folder(output))?;
        observer.event(&Event::Note("the run is already finished"));
        return Ok(*record);
    }
    let mut prepared = prepare(plan, observer)?;
    let restored = open_output(&claim, output, start, plan, observer)?;
    let mut run = Run::new(plan, output, identity, clock, &mut prepared, restored)?;
    run.write_record(&prepared, Status::Running)?;
    run.announce(&prepared, observer);
    match run.every_step(&mut prepared, observer) {
        Ok(()) => run.finish(&prepared, observer),
        Err(error) => {
            if matches!(error, TrainError::Diverged { .. }) {
                // The parameters are those of the last good step.
                run.save(&prepared)?;
            }
            Err(error)
        }
    }
}

/// Makes the folder what the claim says, and reads the state to go on from.
fn open_output(
    claim: &Claim,
    output: &Path,
    start: Start,
    plan: &RunPlan,
    observer: &mut dyn Observer,
) -> Result<Option<Restored>, TrainError> {
    let restored = match claim {
        Claim::Continue(record) => {
            let threads = system::threads();
            if record.threads != threads {
                observer.event(&Event::Note(&format!(
                    "the run was started with {} threads and goes on with {threads}",
                    record.threads
                )));
            }
            state::load(output)?
        }
        Claim::Replace => {
            clear(output)?;
            None
        }
        _ => None,
    };
    fs::create_dir_all(output).map_err(TrainError::io("create", output))?;
    match &restored {
        Some(restored) => {
            Keeper::check_kept(plan.config().method, output, restored.progress.best.as_ref())?;
            let step = restored.progress.step;
            observer.event(&Event::Note(&format!("going on after step {step}")));
        }
        None if start == Start::Resume => {
            observer.event(&Event::Note("there is no saved state: starting at the beginning"));
        }
        None => {}
    }
    Ok(restored)
}

/// A run on its way.
struct Run<'a> {
    plan: &'a RunPlan,
    output: &'a Path,
    identity: Identity,
    stepper: Stepper,
    keeper: Keeper,
    progress: Progress,
    log: LineLog,
    timing: LineLog,
    clock: Instant,
    earlier_seconds: f64,
    last_save: Instant,
    save_cost: f64,
    trained_here: (u64, f64),
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a RunPlan,
        output: &'a Path,
        identity: Identity,
        clock: Instant,
        prepared: &mut Prepared,
        restored: Option<Restored>,
    ) -> Result<Self, TrainError> {
        let keeper = Keeper::new(plan)?;
        let (stepper, progress) = match restored {
            None => {
                let progress = Progress {
                    digest: identity.digest.clone(),
                    ..Progress::default()
                };
                (Stepper::new(plan), progress)
            }
            Some(restored) => {
                let stepper = Stepper::restore(plan, output, prepared, &restored)?;
                (stepper, restored.progress)
            }
        };
        Ok(Self {
            plan,
            output,
            identity,
            stepper,
            keeper,
            log: LineLog::open(&output.join("log.jsonl"), progress.log_bytes)?,
            timing: LineLog::open(&output.join("timing.jsonl"), progress.timing_bytes)?,
            clock,
            earlier_seconds: progress.total_seconds,
            progress,
            last_save: Instant::now(),
            save_cost: 0.0,
            trained_here: (0, 0.0),
        })
    }

    fn announce(&self, prepared: &Prepared, observer: &mut dyn Observer) {
        observer.event(&Event::Started {
            done: self.progress.step,
            total: prepared.schedule.total,
            rows: prepared.train.len(),
            trainable: prepared.parameters.trainable,
            parameters: prepared.parameters.total,
        });
    }

    /// The steps that are not done yet, with evaluations and saved states between them.
    fn every_step(
        &mut self,
        prepared: &mut Prepared,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let config = self.plan.config();
        let per_epoch = prepared.steps_per_epoch;
        let first = (self.progress.step / per_epoch) as usize;
        for epoch in first..config.epochs {
            let batches = prepared.order.epoch(epoch, prepared.train.lengths());
            for (index, group) in batches.chunks(config.accumulate).enumerate() {
                let step = epoch as u64 * per_epoch + index as u64; // from 0
                if step < self.progress.step {
                    continue;
                }
                if step >= prepared.schedule.total {
                    return Ok(());
                }
                self.one_step(prepared, group, observer)?;
                let done = self.progress.step;
                let due = match config.eval_every {
                    EvalEvery::Epoch => done.is_multiple_of(per_epoch),
                    EvalEvery::Steps(every) => done.is_multiple_of(every),
                };
                if due || done == prepared.schedule.total {
                    self.evaluate(prepared, observer)?;
                    self.save(prepared)?;
                } else if self.save_is_due() {
                    self.save(prepared)?;
                }
            }
        }
        Ok(())
    }

    fn one_step(
        &mut self,
        prepared: &mut Prepared,
        group: &[Vec<usize>],
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let lr = prepared.schedule.rate(self.progress.step);
        let micro = Micro {
            rows: &prepared.train,
            group,
            step: self.progress.step,
            lr,
        };
        let outcome = self.stepper.step(&mut prepared.model, &micro)?;
        let seconds = start.elapsed().as_secs_f64();
        self.progress.step += 1;
        self.progress.examples += outcome.rows as u64;
        self.progress.tokens += outcome.tokens as u64;
        self.progress.train_seconds += seconds;
        self.trained_here.0 += outcome.rows as u64;
        self.trained_here.1 += seconds;
        self.write_lines(prepared, &outcome, lr, seconds)?;
        self.tell(prepared, &outcome, lr, observer);
        Ok(())
    }

    fn epoch(&self, prepared: &Prepared) -> f64 {
        self.progress.step as f64 / prepared.steps_per_epoch as f64
    }

    fn write_lines(
        &mut self,
        prepared: &Prepared,
        outcome: &StepOutcome,
        lr: f64,
        seconds: f64,
    ) -> Result<(), TrainError> {
        let step = self.progress.step;
        self.log.append(&serde_json::json!({
            "step": step,
            "epoch": self.epoch(prepared),
            "loss": outcome.loss,
            "lr": lr,
            "grad_norm": outcome.grad_norm,
            "examples": self.progress.examples,
            "tokens": self.progress.tokens,
        }))?;
        self.timing.append(&serde_json::json!({
            "step": step,
            "seconds": seconds,
            "batch": outcome.seconds.batch,
            "forward": outcome.seconds.forward,
            "backward": outcome.seconds.backward,
            "update": outcome.seconds.update,
        }))
    }

    fn tell(
        &self,
        prepared: &Prepared,
        outcome: &StepOutcome,
        lr: f64,
        observer: &mut dyn Observer,
    ) {
        let (rows, seconds) = self.trained_here;
        let pace = rows as f64 / seconds.max(1e-9);
        let done = self.progress.step;
        let total = prepared.schedule.total;
        let rows_a_step = self.progress.examples as f64 / done as f64;
        observer.event(&Event::Step {
            step: done,
            total,
            epoch: self.epoch(prepared),
            loss: outcome.loss,
            lr,
            grad_norm: outcome.grad_norm,
            examples_per_second: pace,
            eta_seconds: (total - done) as f64 * rows_a_step / pace.max(1e-9),
        });
    }

    /// Evaluates every split and keeps the parameters when they are the best so far.
    fn evaluate(
        &mut self,
        prepared: &Prepared,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let (step, epoch) = (self.progress.step, self.epoch(prepared));
        let model = prepared.evaluation_model();
        let mut is_best = false;
        for (index, rows) in prepared.evaluation.iter().enumerate() {
            let batch = prepared.evaluation_batch;
            let evaluation = evaluate::on_rows(&model, rows, batch, observer);
            let record = EvaluationRecord {
                step,
                epoch,
                split: evaluation.split,
                rows: evaluation.rows,
                loss: evaluation.loss,
                scores: evaluation.scores,
            };
            if index == 0 {
                let candidate = Best::candidate(evaluation.task, &record);
                is_best = candidate.beats(self.progress.best.as_ref());
                if is_best {
                    self.progress.best = Some(candidate);
                }
            }
            observer.event(&Event::Evaluated {
                evaluation: &record,
                is_best: is_best && index == 0,
            });
            self.progress.evaluations.push(record);
        }
        let seconds = start.elapsed().as_secs_f64();
        if is_best {
            self.keeper.keep(prepared.model.get(), self.output)?;
        }
        self.progress.eval_seconds += seconds;
        let line = serde_json::json!({"step": step, "evaluate": seconds});
        self.timing.append(&line)
    }

    fn save_is_due(&self) -> bool {
        let wait = SAVE_SECONDS.max(self.save_cost / SAVE_SHARE);
        self.last_save.elapsed().as_secs_f64() >= wait
    }

    /// Saves the state, unless the parameters have gone wrong: then the one before stays.
    fn save(&mut self, prepared: &Prepared) -> Result<(), TrainError> {
        let start = Instant::now();
        let tensors = prepared.trainable_values();
        if tensors.iter().any(|t| t.values.iter().any(|v| !v.is_finite())) {
            return Ok(());
        }
        self.progress.log_bytes = self.log.sync()?;
        self.progress.timing_bytes = self.timing.sync()?;
        self.update_totals();
        state::save(self.output, &self.progress, &tensors, self.stepper.optimizer())?;
        self.save_cost = start.elapsed().as_secs_f64();
        self.last_save = Instant::now();
        Ok(())
    }

    fn update_totals(&mut self) {
        self.progress.total_seconds = self.earlier_seconds + self.clock.elapsed().as_secs_f64();
        let peak = system::peak_memory_bytes();
        self.progress.peak_memory_bytes = self.progress.peak_memory_bytes.max(peak);
    }

    fn record(&self, prepared: &Prepared, status: Status) -> RunRecord {
        let progress = &self.progress;
        let pace = |count: u64| count as f64 / progress.train_seconds.max(1e-9);
        RunRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            digest: self.identity.digest.clone(),
            config: self.plan.config().clone(),
            digests: self.identity.digests.clone(),
            device: self.plan.config().device.name().to_owned(),
            threads: system::threads(),
            cpu: system::cpu_name(),
            parameters: prepared.parameters,
            evaluations: progress.evaluations.clone(),
            best: progress.best.clone(),
            steps: progress.step,
            timing: Timing {
                train_seconds: progress.train_seconds,
                eval_seconds: progress.eval_seconds,
                total_seconds: progress.total_seconds,
                examples_per_second: pace(progress.examples),
                tokens_per_second: pace(progress.tokens),
            },
            peak_memory_bytes: progress.peak_memory_bytes,
            status,
        }
    }

    fn write_record(&self, prepared: &Prepared, status: Status) -> Result<(), TrainError> {
        let path = self.output.join(RunRecord::FILE);
        write_json(&path, &self.record(prepared, status))
    }

    /// The finished record first, then the state goes: killed between the two, a resume finds
    /// the run finished.
    fn finish(
        mut self,
        prepared: &Prepared,
        observer: &mut dyn Observer,
    ) -> Result<RunRecord, TrainError> {
        self.log.sync()?;
        self.timing.sync()?;
        self.update_totals();
        self.write_record(prepared, Status::Finished)?;
        crate::output::remove_folder(&state::folder(self.output))?;
        let record = self.record(prepared, Status::Finished);
        if let Some(best) = &record.best {
            observer.event(&Event::Finished {
                best,
                steps: record.steps,
                seconds: record.timing.total_seconds,
            });
        }
        Ok(record)
    }
}

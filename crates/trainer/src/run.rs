//! The loop: steps, evaluations and saved states, from wherever the run stands to its end.

use std::path::Path;
use std::time::Instant;

use crate::config::EvalEvery;
use crate::digest::Identity;
use crate::error::TrainError;
use crate::evaluate;
use crate::journal::Journal;
use crate::keep::Keeper;
use crate::output::remove_folder;
use crate::plan::RunPlan;
use crate::prepare::Prepared;
use crate::progress::{Event, Observer, StepReport};
use crate::record::{Best, EvaluationRecord, RunRecord, Status};
use crate::rows::Rows;
use crate::state::{self, Restored};
use crate::step::{Micro, StepOutcome, Stepper};

/// Seconds of training between two saved states, at least.
const SAVE_SECONDS: f64 = 5.0;
/// Saving may take this share of the time at most; large states are saved less often.
const SAVE_SHARE: f64 = 0.03;

/// A run on its way.
pub(crate) struct Run<'a> {
    plan: &'a RunPlan,
    output: &'a Path,
    stepper: Stepper,
    keeper: Keeper,
    journal: Journal,
    last_save: Instant,
    save_cost: f64,
    /// Rows and seconds of the steps of this process.
    trained_here: (u64, f64),
}

impl<'a> Run<'a> {
    /// A run at its beginning, or where the saved state left it.
    pub(crate) fn new(
        plan: &'a RunPlan,
        output: &'a Path,
        identity: Identity,
        clock: Instant,
        prepared: &mut Prepared,
        restored: Option<Restored>,
    ) -> Result<Self, TrainError> {
        let keeper = Keeper::new(plan)?;
        let stepper = match &restored {
            None => Stepper::new(plan),
            Some(restored) => Stepper::restore(plan, output, prepared, restored)?,
        };
        let progress = restored.map(|restored| restored.progress);
        let journal = Journal::open(output, identity, clock, progress)?;
        journal.write_record(plan, prepared, Status::Running)?;
        Ok(Self {
            plan,
            output,
            stepper,
            keeper,
            journal,
            last_save: Instant::now(),
            save_cost: 0.0,
            trained_here: (0, 0.0),
        })
    }

    /// Goes to the end.
    pub(crate) fn go(
        mut self,
        prepared: &mut Prepared,
        observer: &mut dyn Observer,
    ) -> Result<RunRecord, TrainError> {
        observer.event(&Event::Started {
            done: self.journal.progress.step,
            total: prepared.schedule.total,
            rows: prepared.train.len(),
            trainable: prepared.parameters.trainable,
            parameters: prepared.parameters.total,
        });
        self.every_step(prepared, observer)?;
        self.finish(prepared, observer)
    }

    /// The steps that are not done yet, with evaluations and saved states between them.
    fn every_step(
        &mut self,
        prepared: &mut Prepared,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let config = self.plan.config();
        let per_epoch = prepared.steps_per_epoch;
        let first = (self.journal.progress.step / per_epoch) as usize;
        for epoch in first..config.epochs {
            let batches = prepared.order.epoch(epoch, prepared.train.lengths());
            for (index, group) in batches.chunks(config.accumulate).enumerate() {
                let step = epoch as u64 * per_epoch + index as u64; // from 0
                if step < self.journal.progress.step {
                    continue;
                }
                if step >= prepared.schedule.total {
                    return Ok(());
                }
                self.one_step(prepared, group, observer)?;
                let done = step + 1;
                let due = match config.eval_every {
                    EvalEvery::Epoch => done.is_multiple_of(per_epoch),
                    EvalEvery::Steps(every) => done.is_multiple_of(every),
                };
                // A state without the evaluation that was due would make a resumed run skip it.
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
        let step = self.journal.progress.step;
        let lr = prepared.schedule.rate(step);
        let micro = Micro {
            rows: &prepared.train,
            group,
            step,
            lr,
        };
        let outcome = match self.stepper.step(&mut prepared.model, &micro) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The parameters are still those of the last good step.
                self.save(prepared)?;
                return Err(error);
            }
        };
        self.journal.progress.loss_scale = self.stepper.loss_scale();
        let seconds = start.elapsed().as_secs_f64();
        self.trained_here.0 += outcome.rows as u64;
        self.trained_here.1 += seconds;
        let per_epoch = prepared.steps_per_epoch;
        self.journal.step(&outcome, lr, per_epoch, seconds)?;
        self.tell(prepared, &outcome, lr, observer);
        if let (true, Some(now)) = (outcome.skipped, self.stepper.loss_scale()) {
            observer.event(&Event::Note(&format!(
                "step {} is skipped: its gradients overflow f16; the loss scale is now {}",
                step + 1,
                now.scale
            )));
        }
        Ok(())
    }

    fn epoch(&self, prepared: &Prepared) -> f64 {
        self.journal.progress.step as f64 / prepared.steps_per_epoch as f64
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
        let progress = &self.journal.progress;
        let total = prepared.schedule.total;
        let rows_a_step = progress.examples as f64 / progress.step as f64;
        observer.event(&Event::Step(StepReport {
            step: progress.step,
            total,
            epoch: self.epoch(prepared),
            loss: outcome.loss,
            lr,
            grad_norm: outcome.grad_norm,
            examples_per_second: pace,
            eta_seconds: (total - progress.step) as f64 * rows_a_step / pace.max(1e-9),
        }));
    }

    /// Evaluates every split and keeps the parameters when they are the best so far.
    fn evaluate(
        &mut self,
        prepared: &Prepared,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let model = prepared.evaluation_model();
        let mut records = Vec::new();
        for rows in &prepared.evaluation {
            let batch = prepared.evaluation_batch;
            let evaluation = evaluate::on_rows(&model, rows, batch, observer);
            records.push(self.checked(prepared, rows, evaluation)?);
        }
        let seconds = start.elapsed().as_secs_f64();
        let progress = &mut self.journal.progress;
        let candidate = records
            .first()
            .map(|record| Best::candidate(self.plan.config().task, record))
            .filter(|candidate| candidate.beats(progress.best.as_ref()));
        for (index, evaluation) in records.iter().enumerate() {
            observer.event(&Event::Evaluated {
                evaluation,
                is_best: candidate.is_some() && index == 0,
            });
        }
        progress.evaluations.extend(records);
        if candidate.is_some() {
            progress.best = candidate;
            self.keeper.keep(prepared.model.get(), self.output)?;
        }
        self.journal.evaluation(seconds)
    }

    /// An evaluation for the record; one whose loss is no number stops the run.
    fn checked(
        &self,
        prepared: &Prepared,
        rows: &Rows,
        evaluation: evaluate::Evaluation,
    ) -> Result<EvaluationRecord, TrainError> {
        let step = self.journal.progress.step;
        if evaluation.loss.is_none() {
            return Err(TrainError::Diverged {
                what: "loss on the evaluation split",
                value: f64::NAN,
                step,
                lr: prepared.schedule.rate(step - 1),
            });
        }
        Ok(EvaluationRecord {
            step,
            epoch: self.epoch(prepared),
            split: evaluation.split,
            rows: rows.len(),
            loss: evaluation.loss,
            scores: evaluation.scores,
        })
    }

    fn save_is_due(&self) -> bool {
        let wait = SAVE_SECONDS.max(self.save_cost / SAVE_SHARE);
        self.last_save.elapsed().as_secs_f64() >= wait
    }

    /// Saves the state, unless the parameters have gone wrong: then the one before stays.
    fn save(&mut self, prepared: &Prepared) -> Result<(), TrainError> {
        let start = Instant::now();
        let tensors = prepared.trainable_values();
        let mut values = tensors.iter().flat_map(|tensor| &tensor.values);
        if values.any(|value| !value.is_finite()) {
            return Ok(());
        }
        self.journal.sync()?;
        let progress = &self.journal.progress;
        state::save(self.output, progress, &tensors, self.stepper.optimizer())?;
        self.save_cost = start.elapsed().as_secs_f64();
        self.last_save = Instant::now();
        tracing::debug!(
            step = progress.step,
            seconds = self.save_cost,
            "state saved"
        );
        Ok(())
    }

    /// The finished record first, then the state goes: killed between the two, a resume finds
    /// the run finished.
    fn finish(
        mut self,
        prepared: &Prepared,
        observer: &mut dyn Observer,
    ) -> Result<RunRecord, TrainError> {
        self.journal.sync()?;
        let plan = self.plan;
        let record = self
            .journal
            .write_record(plan, prepared, Status::Finished)?;
        remove_folder(&state::folder(self.output))?;
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

//! What a run writes down as it goes: how far it is, its two logs, and its record.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::digest::Identity;
use crate::error::TrainError;
use crate::output::{LineLog, write_json};
use crate::plan::RunPlan;
use crate::prepare::Prepared;
use crate::record::{RunRecord, Status, Timing, versions};
use crate::state::Progress;
use crate::step::StepOutcome;
use crate::system;

/// The books of a run.
pub(crate) struct Journal {
    /// How far the run is.
    pub(crate) progress: Progress,
    identity: Identity,
    output: PathBuf,
    log: LineLog,
    timing: LineLog,
    clock: Instant,
    earlier_seconds: f64,
}

impl Journal {
    /// Opens the books at `progress`; later lines of a killed process are cut off.
    pub(crate) fn open(
        output: &Path,
        identity: Identity,
        clock: Instant,
        progress: Option<Progress>,
    ) -> Result<Self, TrainError> {
        let progress = progress.unwrap_or_else(|| Progress {
            digest: identity.digest.clone(),
            ..Progress::default()
        });
        Ok(Self {
            identity,
            output: output.to_path_buf(),
            log: LineLog::open(&output.join("log.jsonl"), progress.log_bytes)?,
            timing: LineLog::open(&output.join("timing.jsonl"), progress.timing_bytes)?,
            clock,
            earlier_seconds: progress.total_seconds,
            progress,
        })
    }

    /// Books one optimiser step, the log's line included.
    pub(crate) fn step(
        &mut self,
        outcome: &StepOutcome,
        lr: f64,
        steps_per_epoch: u64,
        seconds: f64,
    ) -> Result<(), TrainError> {
        let progress = &mut self.progress;
        progress.step += 1;
        progress.examples += outcome.rows as u64;
        progress.tokens += outcome.tokens as u64;
        progress.train_seconds += seconds;
        let mut line = serde_json::json!({
            "step": progress.step,
            "epoch": progress.step as f64 / steps_per_epoch as f64,
            "loss": outcome.loss,
            "lr": lr,
            "grad_norm": outcome.grad_norm,
            "examples": progress.examples,
            "tokens": progress.tokens,
        });
        if let Some(scale) = outcome.loss_scale {
            line["loss_scale"] = scale.into();
            line["skipped"] = outcome.skipped.into();
        }
        self.log.append(&line)?;
        self.timing.append(&serde_json::json!({
            "step": progress.step,
            "seconds": seconds,
            "batch": outcome.seconds.batch,
            "forward": outcome.seconds.forward,
            "backward": outcome.seconds.backward,
            "update": outcome.seconds.update,
        }))
    }

    /// Books the time of an evaluation.
    pub(crate) fn evaluation(&mut self, seconds: f64) -> Result<(), TrainError> {
        self.progress.eval_seconds += seconds;
        let step = self.progress.step;
        let line = serde_json::json!({"step": step, "evaluate": seconds});
        self.timing.append(&line)
    }

    /// Puts the logs on the disk and brings the progress up to date.
    pub(crate) fn sync(&mut self) -> Result<(), TrainError> {
        self.progress.log_bytes = self.log.sync()?;
        self.progress.timing_bytes = self.timing.sync()?;
        self.progress.total_seconds = self.earlier_seconds + self.clock.elapsed().as_secs_f64();
        let peak = system::peak_memory_bytes();
        self.progress.peak_memory_bytes = self.progress.peak_memory_bytes.max(peak);
        Ok(())
    }

    /// The record as things are now.
    pub(crate) fn record(&self, plan: &RunPlan, prepared: &Prepared, status: Status) -> RunRecord {
        let progress = &self.progress;
        let pace = |count: u64| count as f64 / progress.train_seconds.max(1e-9);
        RunRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            versions: versions(),
            digest: self.identity.digest.clone(),
            config: plan.config().clone(),
            digests: self.identity.digests.clone(),
            device: plan.config().device.described(),
            threads: system::threads(),
            cpu: system::cpu_name(),
            parameters: prepared.parameters,
            evaluations: progress.evaluations.clone(),
            best: progress.best.clone(),
            steps: progress.step,
            skipped_steps: progress.loss_scale.map_or(0, |scale| scale.skipped),
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

    /// Writes the record and gives it.
    pub(crate) fn write_record(
        &self,
        plan: &RunPlan,
        prepared: &Prepared,
        status: Status,
    ) -> Result<RunRecord, TrainError> {
        let record = self.record(plan, prepared, status);
        write_json(&self.output.join(RunRecord::FILE), &record)?;
        Ok(record)
    }
}

//! What a run looks like while it goes on: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lowburn_trainer::{EvaluationRecord, Event, Observer, StepReport};

use crate::show::{grouped, number, pace};

/// Seconds between two plain lines.
const LINE_SECONDS: u64 = 10;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings only.
    Quiet,
    /// Lines, for logs and pipes.
    Lines,
    /// A bar that moves, for terminals.
    Bar,
}

impl Verbosity {
    /// What fits standard error.
    #[must_use]
    pub fn of(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Bar
        } else {
            Self::Lines
        }
    }
}

/// Shows the events of a run on standard error.
#[derive(Debug)]
pub struct Progress {
    verbosity: Verbosity,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Shows as much as that.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            bar: None,
            last_line: Instant::now(),
        }
    }

    /// One line, above the bar where there is one.
    pub fn line(&self, text: &str) {
        match (&self.bar, self.verbosity) {
            (_, Verbosity::Quiet) => {}
            (Some(bar), _) => bar.suspend(|| say(text)),
            (None, _) => say(text),
        }
    }

    /// One line that is said even when all else is quiet.
    fn warning(&self, text: &str) {
        let text = format!("warning: {text}");
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&text)),
            None => say(&text),
        }
    }

    fn start_bar(&mut self, done: u64, total: u64) {
        self.last_line = Instant::now();
        if self.verbosity != Verbosity::Bar {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let layout = "{bar:30.cyan/blue} {pos}/{len}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(layout) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_position(done);
        self.bar = Some(bar);
    }

    /// Whether the next plain line is due.
    fn line_due(&mut self) -> bool {
        let wait = Duration::from_secs(LINE_SECONDS);
        let due = self.last_line.elapsed() >= wait;
        if due {
            self.last_line = Instant::now();
        }
        due
    }

    fn step(&mut self, report: &StepReport) {
        let StepReport { step, total, .. } = *report;
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(pace(report));
        } else if self.verbosity == Verbosity::Lines
            && (step == 1 || step == total || self.line_due())
        {
            say(&format!("step {step}/{total}  {}", pace(report)));
        }
    }

    fn evaluating(&mut self, split: &str, done: usize, total: usize) {
        let text = format!("evaluating {split} {done}/{total}");
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        } else if self.verbosity == Verbosity::Lines && done < total && self.line_due() {
            say(&text);
        }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                done,
                total,
                rows,
                trainable,
                parameters,
            } => {
                let share = 100.0 * *trainable as f64 / (*parameters).max(1) as f64;
                self.line(&format!(
                    "{} training rows, {total} steps; {} of {} parameters are trained ({share:.2} %)",
                    grouped(*rows),
                    grouped(*trainable),
                    grouped(*parameters),
                ));
                self.start_bar(*done, *total);
            }
            Event::Step(report) => self.step(report),
            Event::Evaluating { split, done, total } => self.evaluating(split, *done, *total),
            Event::Evaluated {
                evaluation,
                is_best,
            } => self.line(&evaluated(evaluation, *is_best)),
            Event::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Note(text) => self.line(text),
            Event::Warning(text) => self.warning(text),
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

fn evaluated(evaluation: &EvaluationRecord, is_best: bool) -> String {
    let scores: Vec<String> = evaluation
        .scores
        .iter()
        .map(|(metric, value)| format!("{metric} {}", number(Some(value))))
        .collect();
    format!(
        "epoch {:.2}  {}: loss {}  {}{}",
        evaluation.epoch,
        evaluation.split,
        number(evaluation.loss),
        scores.join("  "),
        if is_best { "  (best so far)" } else { "" }
    )
}

/// A line on standard error; nobody listening is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

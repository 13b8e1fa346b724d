//! One run in a process of its own.
//!
//! A process a run makes its peak memory the run's own, lets `--jobs` give each run its threads, and keeps a crash of
//! one run from the others. The parent writes one [`Job`] to the child's standard input; the child writes one
//! [`Message`] a line to its standard output. When the parent is gone, writing fails and the child stops; its state on
//! disk lets the next call go on.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use lowburn_trainer::{Event, Observer, RunConfig, StepReport, digest};
use serde::{Deserialize, Serialize};

use super::runs::{Run, look};
use crate::workspace;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    config: RunConfig,
    output: PathBuf,
}

/// What a child tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Message {
    /// The loop starts.
    Started {
        /// Steps done by earlier processes.
        done: u64,
        /// Steps of the whole run.
        total: u64,
    },
    /// One optimiser step.
    Step(StepReport),
    /// A split was evaluated.
    Evaluated {
        /// Epochs done.
        epoch: f64,
        /// The split.
        split: String,
        /// The deciding metric, as a fraction.
        value: Option<f64>,
        /// Whether it is the best so far.
        best: bool,
    },
    /// All done.
    Finished {
        /// The best value of the deciding metric, as a fraction.
        value: Option<f64>,
        /// Seconds of the whole run.
        seconds: f64,
    },
    /// Something worth a line.
    Note {
        /// The line.
        text: String,
    },
    /// The run failed.
    Failed {
        /// Why.
        text: String,
    },
}

/// Trains a run in a child process, telling `hear` what happens.
///
/// # Errors
/// When the child cannot be started, or its run fails: the message is the run's own.
pub(crate) fn train(run: &Run, threads: usize, mut hear: impl FnMut(Message)) -> Result<()> {
    let mut child = Command::new(workspace::this_program()?)
        .arg("work")
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a process for the run")?;
    let job = Job {
        config: run.config.clone(),
        output: run.folder.clone(),
    };
    let input = child
        .stdin
        .take()
        .context("the run's process has no standard input")?;
    let sent = serde_json::to_writer(input, &job);
    let output = child
        .stdout
        .take()
        .context("the run's process has no standard output")?;
    let mut failure = None;
    for line in BufReader::new(output).lines() {
        match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(Message::Failed { text })) => failure = Some(text),
            Ok(Ok(message)) => hear(message),
            Ok(Err(_)) => {} // a library that prints to standard output does no harm
            Err(error) => {
                failure = failure.or(Some(format!("its messages cannot be read: {error}")))
            }
        }
    }
    let status = child.wait().context("cannot wait for the run's process")?;
    match failure {
        Some(text) => bail!("{text}"),
        None if !status.success() => bail!("its process ended with {status}"),
        None => sent.context("the run's process did not take its job"),
    }
}

/// The child's side: takes a job from standard input and does it.
///
/// # Errors
/// Those of the run, after they were told to the parent.
pub(crate) fn work() -> Result<()> {
    let job: Job =
        serde_json::from_reader(std::io::stdin().lock()).context("standard input holds no job")?;
    lowburn::set_threads(job.config.threads)?;
    let done = lowburn::in_pool(|| train_here(job));
    if let Err(error) = &done {
        tell(&Message::Failed {
            text: lowburn::one_line(error),
        });
    }
    done
}

fn train_here(job: Job) -> Result<()> {
    let _lock = lock(&job.output)?;
    let plan = job.config.check()?;
    // Looked at under the lock: whoever held it may have changed or finished the run.
    let start = look(&job.output, &digest(&plan)?).start();
    let record = lowburn_trainer::train(&plan, &job.output, start, &mut Teller)?;
    let value = record.best.as_ref().and_then(|best| best.value);
    tell(&Message::Finished {
        value,
        seconds: record.timing.total_seconds,
    });
    Ok(())
}

/// Keeps two processes from one run; the system releases it however this process ends.
fn lock(output: &Path) -> Result<File> {
    let folder = output.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = output.with_extension("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tell(&Message::Note {
                text: "another process is at this run; waiting for it".to_owned(),
            });
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    Ok(file)
}

/// Tells the parent; a parent that is gone ends this process, whose saved state is on disk.
fn tell(message: &Message) {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    if output
        .write_all(&line)
        .and_then(|()| output.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

struct Teller;

impl Observer for Teller {
    fn event(&mut self, event: &Event<'_>) {
        let message = match event {
            Event::Started { done, total, .. } => Message::Started {
                done: *done,
                total: *total,
            },
            Event::Step(report) => Message::Step(*report),
            Event::Evaluated {
                evaluation,
                is_best,
            } => Message::Evaluated {
                epoch: evaluation.epoch,
                split: evaluation.split.clone(),
                value: evaluation.scores.primary().map(|(_, value)| value),
                best: *is_best,
            },
            Event::Note(text) => Message::Note {
                text: (*text).to_owned(),
            },
            _ => return,
        };
        tell(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_pipe() {
        let messages = [
            Message::Started { done: 3, total: 10 },
            Message::Step(StepReport {
                step: 4,
                total: 10,
                epoch: 0.4,
                loss: 0.7,
                lr: 1e-3,
                grad_norm: 1.5,
                examples_per_second: 31.5,
                eta_seconds: 12.0,
            }),
            Message::Evaluated {
                epoch: 1.0,
                split: "validation".to_owned(),
                value: None,
                best: false,
            },
            Message::Failed {
                text: "the loss is NaN".to_owned(),
            },
        ];
        for message in messages {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}

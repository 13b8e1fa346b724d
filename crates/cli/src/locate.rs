//! From what was typed to folders, with the downloads on the way shown on standard error.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lowburn_glue::Task;
use lowburn_hub as hub;
use lowburn_hub::{Event, Located, Split};

use crate::progress::{Verbosity, say};
use crate::show::bytes;

/// Seconds between two plain lines of a file.
const LINE_SECONDS: u64 = 10;

/// A model: a folder, `mini`, or a name on the hub.
///
/// # Errors
/// When there is none, or it cannot be fetched.
pub fn model(argument: &str, quiet: bool) -> anyhow::Result<Located> {
    let mut downloads = Downloads::new(Verbosity::of(quiet));
    Ok(hub::model(argument, &mut |event| downloads.hear(event))?)
}

/// Some splits of a task's data: in a folder, in `mini`, or of a data set on the hub. `validation` means all that an
/// evaluation covers, of MNLI both.
///
/// # Errors
/// When there are none, or they cannot be fetched.
pub fn data(argument: &str, task: Task, split: &str, quiet: bool) -> anyhow::Result<Located> {
    let names = match split {
        "validation" => task.evaluation_splits(),
        _ => &[split],
    };
    fetch(argument, &splits(task, names), quiet)
}

/// All that training on these tasks needs: their training rows and what their evaluations cover.
///
/// # Errors
/// When it is not there, or cannot be fetched.
pub fn training_data(argument: &str, tasks: &[Task], quiet: bool) -> anyhow::Result<Located> {
    let mut needed = Vec::new();
    for task in tasks {
        needed.extend(splits(*task, &["train"]));
        needed.extend(splits(*task, task.evaluation_splits()));
    }
    fetch(argument, &needed, quiet)
}

fn splits<'a>(task: Task, names: &[&'a str]) -> Vec<Split<'a>> {
    let split = |name: &&'a str| Split {
        task: task.name(),
        name,
    };
    names.iter().map(split).collect()
}

fn fetch(argument: &str, splits: &[Split<'_>], quiet: bool) -> anyhow::Result<Located> {
    let mut downloads = Downloads::new(Verbosity::of(quiet));
    Ok(hub::data(argument, splits, &mut |event| {
        downloads.hear(event)
    })?)
}

/// A bar for each file on a terminal, a line now and then elsewhere.
struct Downloads {
    verbosity: Verbosity,
    bar: Option<ProgressBar>,
    file: String,
    last_line: Instant,
}

impl Downloads {
    fn new(verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            bar: None,
            file: String::new(),
            last_line: Instant::now(),
        }
    }

    fn hear(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                repo,
                file,
                done,
                size,
            } => {
                self.file = format!("{repo}: {file}");
                self.start(*done, *size);
            }
            Event::Progress { done, size } => self.progress(*done, *size),
            Event::Finished { .. } => self.end(),
            Event::Waiting { file } => {
                self.line(&format!("{file}: another process fetches it; waiting"));
            }
            Event::Retry { reason, pause } => self.line(&format!(
                "{reason}; trying again in {:.1} s",
                pause.as_secs_f64()
            )),
            Event::Note(text) => self.line(text),
            _ => {}
        }
    }

    fn start(&mut self, done: u64, size: Option<u64>) {
        self.end();
        self.last_line = Instant::now();
        match self.verbosity {
            Verbosity::Quiet => {}
            Verbosity::Lines => {
                let all = size.map_or(String::new(), |size| format!(", {}", bytes(size)));
                let on = if done > 0 {
                    format!(", going on after {}", bytes(done))
                } else {
                    String::new()
                };
                say(&format!("fetching {}{all}{on}", self.file));
            }
            Verbosity::Bar => {
                let target = ProgressDrawTarget::stderr();
                let bar = ProgressBar::with_draw_target(size, target);
                let layout = "{bar:30.cyan/blue} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}";
                if let Ok(style) = ProgressStyle::with_template(layout) {
                    bar.set_style(style.progress_chars("━╸─"));
                }
                bar.set_position(done);
                bar.reset_eta();
                bar.set_message(self.file.clone());
                self.bar = Some(bar);
            }
        }
    }

    fn progress(&mut self, done: u64, size: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.verbosity == Verbosity::Lines
            && self.last_line.elapsed() >= Duration::from_secs(LINE_SECONDS)
        {
            self.last_line = Instant::now();
            let all = size.map_or(String::new(), |size| format!(" of {}", bytes(size)));
            say(&format!("{}: {}{all}", self.file, bytes(done)));
        }
    }

    fn line(&self, text: &str) {
        match (&self.bar, self.verbosity) {
            (_, Verbosity::Quiet) => {}
            (Some(bar), _) => bar.suspend(|| say(text)),
            (None, _) => say(text),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.end();
    }
}

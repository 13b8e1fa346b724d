//! Progress of a grid: bars on a terminal, plain lines elsewhere. All of it goes to standard error.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lowburn::{duration, pace};
use lowburn_trainer::StepReport;

use super::worker::Message;

/// Seconds between two plain lines of a run.
const LINE_SECONDS: u64 = 15;

/// Progress over all runs.
pub(crate) struct Board {
    bars: Option<(MultiProgress, ProgressBar)>,
    all: usize,
    done: Mutex<usize>,
    started: Instant,
    noted: Mutex<BTreeSet<String>>,
}

impl Board {
    /// A board for `all` runs, `done` of which are finished already.
    pub(crate) fn new(all: usize, done: usize) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let whole = bars.add(ProgressBar::new(all as u64));
            whole.set_style(style(
                "{bar:30.green/blue} {pos}/{len} runs  {elapsed} {msg}",
            ));
            whole.set_position(done as u64);
            whole.enable_steady_tick(Duration::from_secs(1));
            (bars, whole)
        });
        Self {
            bars,
            all,
            done: Mutex::new(done),
            started: Instant::now(),
            noted: Mutex::default(),
        }
    }

    /// A place for one run.
    pub(crate) fn lane<'a>(&'a self, name: &'a str) -> Lane<'a> {
        let bar = self.bars.as_ref().map(|(bars, whole)| {
            let bar = bars.insert_before(whole, ProgressBar::new(1));
            bar.set_style(style("{prefix:24} {bar:30.cyan/blue} {pos}/{len}  {msg}"));
            bar.set_prefix(name.to_owned());
            bar.set_message("loading");
            bar
        });
        Lane {
            board: self,
            name,
            bar,
            said: None,
            best: None,
        }
    }

    /// One line, above the bars where there are any.
    pub(crate) fn say(&self, text: &str) {
        let print = || {
            let _ = writeln!(std::io::stderr(), "{text}");
        };
        match &self.bars {
            Some((bars, _)) => bars.suspend(print),
            None => print(),
        }
    }

    /// A note of a run. What differs from an earlier note of any run in numbers only is not said again.
    fn note(&self, name: &str, text: &str) {
        let kind: String = text
            .chars()
            .filter(|letter| !letter.is_ascii_digit())
            .collect();
        if self
            .noted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind)
        {
            self.say(&format!("{name}: {text}"));
        }
    }

    /// Counts a run that ended well, and tells the count.
    fn count(&self) -> usize {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        if let Some((_, whole)) = &self.bars {
            whole.set_position(*done as u64);
        }
        *done
    }

    /// Takes the bars away.
    pub(crate) fn close(&self) {
        if let Some((_, whole)) = &self.bars {
            whole.finish_and_clear();
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> String {
        duration(self.started.elapsed().as_secs_f64())
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

/// Progress of one run.
pub(crate) struct Lane<'a> {
    board: &'a Board,
    name: &'a str,
    bar: Option<ProgressBar>,
    said: Option<Instant>,
    best: Option<f64>,
}

impl Lane<'_> {
    /// Shows a message.
    pub(crate) fn hear(&mut self, message: &Message) {
        match message {
            Message::Started { done, total } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(*total);
                    bar.set_position(*done);
                }
                self.said = Some(Instant::now());
            }
            Message::Step(report) => self.step(report),
            Message::Evaluated { value, best, .. } => {
                if *best {
                    self.best = value.map(|value| value * 100.0);
                }
            }
            Message::Note { text } => self.board.note(self.name, text),
            Message::Finished { value, seconds } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let done = self.board.count();
                let value = value.map_or("nan".to_owned(), |value| format!("{:.2}", value * 100.0));
                self.board.say(&format!(
                    "[{done}/{}] {}: best {value}, {}",
                    self.board.all,
                    self.name,
                    duration(*seconds)
                ));
            }
            Message::Failed { .. } => {}
        }
    }

    fn step(&mut self, report: &StepReport) {
        let StepReport { step, total, .. } = *report;
        let best = self.best.map(|best| format!("  best {best:.1}"));
        let text = pace(report) + &best.unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(text);
            return;
        }
        let due = self
            .said
            .is_none_or(|said| said.elapsed().as_secs() >= LINE_SECONDS);
        if due {
            self.said = Some(Instant::now());
            self.board
                .say(&format!("{} step {step}/{total}  {text}", self.name));
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

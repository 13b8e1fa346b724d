//! A process that answers a line of JSON for every request.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::page::Side;
use crate::report::Summary;

/// One side of a benchmark.
pub(crate) struct Served {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said of itself.
    pub(crate) about: Value,
    /// Seconds from its start to that.
    pub(crate) to_ready: f64,
    seconds: Vec<f64>,
}

impl Served {
    /// Starts it, and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or ends.
    pub(crate) fn start(mut command: Command, name: &'static str) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name} with {program}"))?;
        let input = child
            .stdin
            .take()
            .with_context(|| format!("{name} has no standard input"))?;
        let output = child
            .stdout
            .take()
            .with_context(|| format!("{name} has no standard output"))?;
        let mut served = Self {
            name,
            child,
            input,
            output: BufReader::new(output),
            about: Value::Null,
            to_ready: 0.0,
            seconds: Vec::new(),
        };
        served.about = served.answer()?;
        served.to_ready = began.elapsed().as_secs_f64();
        Ok(served)
    }

    /// The next line that is a JSON object.
    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self
                .output
                .read_line(&mut line)
                .with_context(|| format!("{} cannot be read", self.name))?
                == 0
            {
                let status = self.child.wait()?;
                bail!(
                    "{} ended with {status} before it answered; its messages are above",
                    self.name
                );
            }
            if let Ok(value @ Value::Object(_)) = serde_json::from_str(&line) {
                if let Some(error) = value.get("error") {
                    bail!("{} says {error}", self.name);
                }
                return Ok(value);
            }
        }
    }

    pub(crate) fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.input, "{request}")
            .and_then(|()| self.input.flush())
            .with_context(|| format!("{} takes no requests any more", self.name))?;
        self.answer()
    }

    /// The seconds of a request, which [`Served::keep`] adds to those of the side.
    pub(crate) fn timed(&mut self, request: &str) -> Result<f64> {
        // Thread pools of the side that has just answered spin for a moment; let them fall asleep.
        std::thread::sleep(Duration::from_millis(300));
        self.ask(request)?["seconds"]
            .as_f64()
            .with_context(|| format!("{} tells no seconds", self.name))
    }

    /// Adds the seconds of a pair.
    pub(crate) fn keep(&mut self, seconds: f64) {
        self.seconds.push(seconds);
    }

    /// Ends it, and says what it did.
    ///
    /// # Errors
    /// When it does not answer any more.
    pub(crate) fn finish(mut self) -> Result<Side> {
        let peak_bytes = self.ask("memory")?["peak_bytes"].as_u64();
        // The process may end before it reads this.
        let _ = writeln!(self.input, "quit");
        drop(self.input);
        self.child
            .wait()
            .with_context(|| format!("cannot wait for {}", self.name))?;
        let median = Summary::of(&self.seconds).map_or(f64::NAN, |summary| summary.median);
        let about = &self.about;
        let versions = about
            .get("versions")
            .or_else(|| about.get("version"))
            .cloned()
            .unwrap_or(Value::Null);
        Ok(Side {
            versions,
            trainable: about["trainable"].as_u64(),
            seconds: self.seconds,
            median,
            peak_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_side_that_dies_is_named() {
        let error = Served::start(Command::new("false"), "the other side")
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("the other side ended"), "{error}");
        let error = Served::start(Command::new("no-such-program"), "x")
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("no-such-program"), "{error}");
    }
}

//! `cargo xtask bench`: one training step of ours beside the same step of PyTorch + PEFT.
//!
//! The two live in processes of their own and take turns, step by step, so that whatever else the machine does falls on
//! both. What counts is the median over the pairs' ratios. A record goes to `results/bench`, and the table in
//! `docs/performance.md` is rendered from the records.

mod material;
mod ours;
mod page;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::report::Summary;
use crate::workspace;
use material::Shape;

pub(crate) use ours::{OursArgs, serve};
pub(crate) use page::{Record, Side, check, write};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to time; may be given again
    #[arg(long, value_enum, default_values_t = [Work::LoraStep])]
    work: Vec<Work>,
    /// Python that has what scripts/requirements.txt lists; only our side is timed without it
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Pairs of steps
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: usize,
    /// Rows of a step
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Tokens of a row
    #[arg(long, value_name = "N", default_value_t = 128)]
    length: usize,
    /// Rank of the adapters
    #[arg(long, value_name = "R", default_value_t = 8)]
    rank: usize,
    /// Threads of each side [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print only; leave results/bench and docs/performance.md as they are
    #[arg(long)]
    dry_run: bool,
    /// Time nothing; render docs/performance.md from the records that are there
    #[arg(long)]
    render: bool,
}

/// What can be timed, all in f32, and in roberta-base's shape unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// A LoRA step with dropouts .1
    LoraStep,
    /// A LoRA step without dropout
    LoraStepNoDropout,
    /// A step of full fine-tuning with dropouts .1
    FullStep,
    /// A LoRA step of DeBERTa-v2 (12 layers of 768, with the convolution) with dropouts .1
    DebertaStep,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::LoraStep => "lora-step",
            Work::LoraStepNoDropout => "lora-step-no-dropout",
            Work::FullStep => "full-step",
            Work::DebertaStep => "deberta-step",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Work::LoraStep | Work::LoraStepNoDropout | Work::DebertaStep => "lora",
            Work::FullStep => "full",
        }
    }

    fn dropout(self) -> f64 {
        match self {
            Work::LoraStep | Work::FullStep | Work::DebertaStep => 0.1,
            Work::LoraStepNoDropout => 0.0,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Work::DebertaStep => Shape::DebertaV2,
            _ => Shape::RobertaBase,
        }
    }

    fn title(self, batch: usize, length: usize) -> String {
        let what = match self {
            Work::LoraStep => "LoRA step, dropouts .1",
            Work::LoraStepNoDropout => "LoRA step, no dropout",
            Work::FullStep => "full fine-tuning step, dropouts .1",
            Work::DebertaStep => "LoRA step of DeBERTa-v2 (12 layers), dropouts .1",
        };
        format!("{what}, {batch} x {length} tokens")
    }
}

/// Runs the command.
///
/// # Errors
/// When a side cannot be started or stops answering.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if args.render {
        return write();
    }
    ensure!(args.steps > 0, "--steps is 0: give at least 1");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or(cores);
    if args.python.is_none() {
        eprintln!("no --python given: only our side is timed, there is no ratio");
    }
    for &work in &args.work {
        let record = one(work, args, threads)?;
        println!("{}", page::table(std::slice::from_ref(&record)).markdown());
        if !args.dry_run {
            let path = workspace::results("bench").join(format!("{}.json", work.name()));
            workspace::write(&path, &(serde_json::to_string_pretty(&record)? + "\n"))?;
            write()?;
        }
    }
    Ok(())
}

fn one(work: Work, args: &BenchArgs, threads: usize) -> Result<Record> {
    // Every word is at least one token, so that many words fill a row.
    let material = material::prepare(
        work.shape(),
        work.dropout(),
        args.batch * (args.steps + 3),
        args.length,
    )?;
    let scratch =
        tempfile::tempdir_in(workspace::target()).context("cannot make a temporary folder")?;
    let shape = |command: &mut Command| {
        command
            .arg("--model")
            .arg(&material.model)
            .args(["--method", work.method()]);
        command.args([
            "--rank",
            &args.rank.to_string(),
            "--batch",
            &args.batch.to_string(),
        ]);
        command.args([
            "--length",
            &args.length.to_string(),
            "--threads",
            &threads.to_string(),
        ]);
    };
    let mut command = Command::new(workspace::this_program()?);
    command
        .arg("bench-ours")
        .env("RAYON_NUM_THREADS", threads.to_string());
    command
        .arg("--data")
        .arg(&material.data)
        .arg("--output")
        .arg(scratch.path().join("run"));
    shape(&mut command);
    eprintln!("{}: starting our side", work.name());
    let mut ours = Served::start(command, "our side")?;
    let mut peer = match &args.python {
        None => None,
        Some(python) => {
            let mut command = Command::new(python);
            command.arg(
                workspace::root()
                    .join("scripts")
                    .join("peer")
                    .join("bench_peft.py"),
            );
            shape(&mut command);
            eprintln!("{}: starting PyTorch + PEFT", work.name());
            Some(Served::start(command, "PyTorch + PEFT")?)
        }
    };
    for pair in 1..=args.steps {
        let mine = ours.step()?;
        let theirs = peer.as_mut().map(Served::step).transpose()?;
        let beside = theirs
            .map(|theirs| format!("  PyTorch + PEFT {theirs:.2} s  ratio {:.2}", mine / theirs));
        eprintln!(
            "pair {pair}/{}: lowburn {mine:.2} s{}",
            args.steps,
            beside.unwrap_or_default()
        );
    }
    let cpu = ours.about["cpu"].as_str().unwrap_or("unknown").to_owned();
    let ours = ours.finish()?;
    let peer = peer.map(Served::finish).transpose()?;
    let ratio = peer
        .as_ref()
        .and_then(|peer| median_ratio(&ours.seconds, &peer.seconds));
    Ok(Record {
        work: work.name().to_owned(),
        title: work.title(args.batch, args.length),
        method: work.method().to_owned(),
        rank: (work.method() == "lora").then_some(args.rank),
        dropout: work.dropout(),
        batch: args.batch,
        length: args.length,
        cpu,
        threads,
        ours,
        peer,
        ratio,
    })
}

fn median_ratio(ours: &[f64], peer: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(peer)
        .map(|(ours, peer)| ours / peer)
        .collect();
    Summary::of(&ratios).map(|summary| summary.median)
}

/// A process that does a step for every line.
struct Served {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    about: Value,
    seconds: Vec<f64>,
}

impl Served {
    fn start(mut command: Command, name: &'static str) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name} with {program}"))?;
        let input = child
            .stdin
            .take()
            .with_context(|| format!("{name} has no standard input"))?;
        let output = BufReader::new(
            child
                .stdout
                .take()
                .with_context(|| format!("{name} has no standard output"))?,
        );
        let mut served = Self {
            name,
            child,
            input,
            output,
            about: Value::Null,
            seconds: Vec::new(),
        };
        served.about = served.answer()?;
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

    fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.input, "{request}")
            .and_then(|()| self.input.flush())
            .with_context(|| format!("{} takes no requests any more", self.name))?;
        self.answer()
    }

    fn step(&mut self) -> Result<f64> {
        // Thread pools of the side that has just answered spin for a moment; let them fall asleep.
        std::thread::sleep(Duration::from_millis(300));
        let seconds = self.ask("step")?["seconds"]
            .as_f64()
            .with_context(|| format!("{} tells no seconds", self.name))?;
        self.seconds.push(seconds);
        Ok(seconds)
    }

    fn finish(mut self) -> Result<Side> {
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
    fn the_ratio_is_taken_pair_by_pair() {
        // A slow moment that falls on both sides leaves the ratio alone.
        assert_eq!(
            median_ratio(&[1.0, 10.0, 1.0], &[2.0, 20.0, 2.0]),
            Some(0.5)
        );
        assert_eq!(median_ratio(&[], &[]), None);
    }

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

//! `cargo xtask bench`: ours beside PyTorch + PEFT, or beside another way to do the same here.
//!
//! The two live in processes of their own and take turns, request by request, so that whatever else the machine does falls
//! on both. What counts is the median over the pairs' ratios. A record goes to `results/bench`, and the table in
//! `docs/performance.md` is rendered from the records.

mod estimate;
mod growth;
mod material;
mod ours;
mod page;
mod passes;
mod served;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::report::Summary;
use crate::workspace;
use served::Served;
use work::{Against, Pair, Work};

pub(crate) use estimate::command;
pub(crate) use ours::{OursArgs, serve};
pub(crate) use page::{Record, Side, check, write};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to time; may be given again [default: everything]
    #[arg(long, value_enum)]
    work: Vec<Work>,
    /// Python that has what scripts/requirements.txt lists; only our side is timed without it
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// Folder that holds minilm-l6-roberta, for what works on real rows
    #[arg(long, value_name = "DIR", requires = "data")]
    models: Option<PathBuf>,
    /// Folder that holds mrpc, for what works on real rows
    #[arg(long, value_name = "DIR", requires = "models")]
    data: Option<PathBuf>,
    /// Pairs
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
    /// Layers of the random checkpoint
    #[arg(long, value_name = "N", default_value_t = material::LAYERS)]
    layers: usize,
    /// Threads of each side [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Also time LoRA steps of many sizes: how time and memory grow with length, batch, rank and layers
    #[arg(long)]
    growth: bool,
    /// Train checkpoints of many shapes, and lay the predicted peak memory beside the measured one
    #[arg(long)]
    estimate: bool,
    /// Print only; leave results/bench and docs/performance.md as they are
    #[arg(long)]
    dry_run: bool,
    /// Time nothing; render docs/performance.md from the records that are there
    #[arg(long)]
    render: bool,
}

impl BenchArgs {
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(cores)
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
    ensure!(args.layers > 0, "--layers is 0: give at least 1");
    if args.python.is_none() && !args.estimate {
        eprintln!("no --python given: only our side is timed, there is no ratio to PyTorch + PEFT");
    }
    for &work in &wanted(args)? {
        let record = one(work, args)?;
        println!("{}", page::table(std::slice::from_ref(&record)).markdown());
        if !args.dry_run {
            let path = workspace::results("bench").join(format!("{}.json", work.name()));
            workspace::write(&path, &(serde_json::to_string_pretty(&record)? + "\n"))?;
            write()?;
        }
    }
    if args.growth {
        growth::run(args)?;
    }
    if args.estimate {
        estimate::run(args)?;
    }
    Ok(())
}

/// What is to be timed: what was asked for, or everything that can be.
fn wanted(args: &BenchArgs) -> Result<Vec<Work>> {
    let has_data = args.data.is_some();
    if let Some(work) = args.work.iter().find(|work| work.needs_data() && !has_data) {
        anyhow::bail!(
            "--work {} is about real rows: give --models and --data",
            work.name()
        );
    }
    if !args.work.is_empty() {
        return Ok(args.work.clone());
    }
    if args.growth || args.estimate {
        return Ok(Vec::new());
    }
    let (without, all): (Vec<_>, Vec<_>) = Work::ALL
        .into_iter()
        .partition(|work| work.needs_data() && !has_data);
    if !without.is_empty() {
        let names: Vec<_> = without.iter().map(|work| work.name()).collect();
        eprintln!("left out without --models and --data: {}", names.join(", "));
    }
    Ok(all)
}

/// Times one work.
fn one(work: Work, args: &BenchArgs) -> Result<Record> {
    let material = work.material(args)?;
    let scratch =
        tempfile::tempdir_in(workspace::target()).context("cannot make a temporary folder")?;
    let sides = Sides {
        work,
        args,
        material,
        scratch: scratch.path(),
    };
    let (ours, other) = match work.pair() {
        Pair::Requests(request, times) => sides.requests(request, times)?,
        Pair::Starts => sides.starts()?,
    };
    let cpu = ours.about["cpu"].as_str().unwrap_or("unknown").to_owned();
    let mut ours = ours;
    let products = ours.ask("products")?["share"].as_f64();
    let ours = ours.finish()?;
    let other = other.map(Served::finish).transpose()?;
    let ratio = other
        .as_ref()
        .and_then(|other| median_ratio(&ours.seconds, &other.seconds));
    let against = match work.against() {
        Against::Peer => None,
        Against::Ours(name) => Some(name.to_owned()),
    };
    Ok(Record {
        work: work.name().to_owned(),
        title: work.title(args.batch, args.length, args.rank),
        against,
        method: work.method().to_owned(),
        rank: (work.method() == "lora").then_some(args.rank),
        dropout: work.dropout(),
        batch: args.batch,
        length: args.length,
        cpu,
        threads: args.threads(),
        ours,
        peer: other,
        ratio,
        products,
    })
}

/// How the two sides of a work are started.
struct Sides<'a> {
    work: Work,
    args: &'a BenchArgs,
    material: material::Material,
    scratch: &'a Path,
}

impl Sides<'_> {
    /// Both sides answer the same request in turn.
    fn requests(&self, request: &str, times: usize) -> Result<(Served, Option<Served>)> {
        let (work, args) = (self.work, self.args);
        eprintln!("{}: starting our side", work.name());
        let mut ours = self.start_ours()?;
        let mut other = self.start_other()?;
        for pair in 1..=args.steps {
            let (mut mine, mut theirs) = (0.0, 0.0);
            for _ in 0..times {
                mine += ours.timed(request)?;
                if let Some(other) = &mut other {
                    theirs += other.timed(request)?;
                }
            }
            ours.keep(mine);
            if let Some(other) = &mut other {
                other.keep(theirs);
            }
            tell(pair, args.steps, mine, other.is_some().then_some(theirs));
        }
        Ok((ours, other))
    }

    /// Both sides are started again and again.
    fn starts(&self) -> Result<(Served, Option<Served>)> {
        let steps = self.args.steps;
        let mut seconds: [Vec<f64>; 2] = Default::default();
        let mut pair = 0;
        loop {
            pair += 1;
            let mut ours = self.start_ours()?;
            seconds[0].push(ours.to_ready);
            let mut other = self.start_other()?;
            let theirs = other.as_ref().map(|other| other.to_ready);
            seconds[1].extend(theirs);
            tell(pair, steps, ours.to_ready, theirs);
            if pair == steps {
                seconds[0].iter().for_each(|seconds| ours.keep(*seconds));
                if let Some(other) = &mut other {
                    seconds[1].iter().for_each(|seconds| other.keep(*seconds));
                }
                return Ok((ours, other));
            }
            ours.finish()?;
            other.map(Served::finish).transpose()?;
        }
    }

    fn start_ours(&self) -> Result<Served> {
        Served::start(
            self.ours("run", &self.work.ours(), self.args.rank)?,
            "our side",
        )
    }

    fn start_other(&self) -> Result<Option<Served>> {
        let name = match self.work.against() {
            Against::Ours(name) => {
                let command = self.ours("other", &self.work.other(), self.args.rank)?;
                return Served::start(command, name).map(Some);
            }
            Against::Peer => "PyTorch + PEFT",
        };
        let Some(python) = &self.args.python else {
            return Ok(None);
        };
        let mut command = Command::new(python);
        let scripts = workspace::root().join("scripts").join("peer");
        command.arg(scripts.join("bench_peft.py"));
        self.sizes(&mut command, self.args.rank);
        command.args(self.work.peer(&self.material.data));
        Served::start(command, name).map(Some)
    }

    fn ours(&self, folder: &str, extra: &[&str], rank: usize) -> Result<Command> {
        let mut command = Command::new(workspace::this_program()?);
        command
            .arg("bench-ours")
            .env("RAYON_NUM_THREADS", self.args.threads().to_string());
        command.arg("--data").arg(&self.material.data);
        command.arg("--output").arg(self.scratch.join(folder));
        self.sizes(&mut command, rank);
        command.args(extra);
        Ok(command)
    }

    fn sizes(&self, command: &mut Command, rank: usize) {
        let args = self.args;
        command.arg("--model").arg(&self.material.model);
        command.args(["--method", self.work.method()]);
        for (name, value) in [
            ("--rank", rank),
            ("--batch", args.batch),
            ("--length", args.length),
            ("--threads", args.threads()),
        ] {
            command.args([name, &value.to_string()]);
        }
    }
}

fn tell(pair: usize, pairs: usize, mine: f64, theirs: Option<f64>) {
    let beside = theirs
        .map(|theirs| format!("  the other side {theirs:.2} s  ratio {:.2}", mine / theirs))
        .unwrap_or_default();
    eprintln!("pair {pair}/{pairs}: lowburn {mine:.2} s{beside}");
}

fn median_ratio(ours: &[f64], peer: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(peer)
        .map(|(ours, peer)| ours / peer)
        .collect();
    Summary::of(&ratios).map(|summary| summary.median)
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
}

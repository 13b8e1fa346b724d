//! Our side of a benchmark: the trainer itself, one step at a time, on request; and what else there is to time.
//!
//! The trainer is `lowburn_trainer::train` on a real configuration, held after every step by its observer until the next
//! line arrives. The seconds are those that it writes to `timing.jsonl`: batch, forward, backward, clip and update.
//! The protocol is that of `scripts/peer/bench_peft.py`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lowburn_glue::{Dataset, Order, Task, Tokenizer, collate};
use lowburn_lora::{LoraConfig, Targets};
use lowburn_trainer::{
    DeviceName, Dtype, EvalConfig, EvalEvery, Event, Method, Observer, RunConfig, Source, Start,
    Warmup, cpu_name, peak_memory_bytes,
};
use serde_json::{Value, json};

use super::passes;

/// Arguments of the hidden command `bench-ours`.
#[derive(Debug, clap::Args)]
pub(crate) struct OursArgs {
    /// What answers
    #[arg(long, value_enum, default_value_t = Part::Trainer)]
    serve: Part,
    /// Checkpoint folder
    #[arg(long)]
    pub(super) model: PathBuf,
    /// Data folder
    #[arg(long)]
    data: PathBuf,
    /// Task of the rows
    #[arg(long, default_value = "sst2")]
    task: Task,
    /// Folder for the run's files
    #[arg(long)]
    output: PathBuf,
    /// lora, full or head
    #[arg(long)]
    method: Method,
    /// Layers with an adapter
    #[arg(long, default_value = "query,value")]
    target: Targets,
    /// Rank of the adapters
    #[arg(long)]
    rank: usize,
    /// Rank of the adapters, where it is not that of the other side
    #[arg(long)]
    factor_rank: Option<usize>,
    /// Keep each layer's input only
    #[arg(long)]
    checkpoint_activations: bool,
    /// How the frozen base is stored
    #[arg(long, default_value_t)]
    dtype: Dtype,
    /// Rows of a step
    #[arg(long)]
    pub(super) batch: usize,
    /// Tokens of a row
    #[arg(long)]
    pub(super) length: usize,
    /// Threads
    #[arg(long)]
    pub(super) threads: usize,
}

/// What answers the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The trainer: `step`, `epoch`
    Trainer,
    /// The evaluation of a checkpoint: `evaluate`
    Evaluation,
    /// Tokeniser and batches: `tokenise`
    Tokeniser,
    /// Forward and backward on random ids: `step`
    Passes,
    /// The same with Burn's own LoRA
    BurnPasses,
}

impl OursArgs {
    /// The adapter.
    pub(super) fn lora(&self) -> LoraConfig {
        let rank = self.factor_rank.unwrap_or(self.rank);
        LoraConfig::new(rank, 2.0 * rank as f64, self.target.clone())
    }
}

/// Serves requests until the input ends.
///
/// # Errors
/// Those of what serves.
pub(crate) fn serve(args: &OursArgs) -> Result<()> {
    lowburn::set_threads(Some(args.threads))?;
    let work = || match args.serve {
        Part::Trainer => train(args),
        Part::Evaluation => evaluate(args),
        Part::Tokeniser => tokenise(args),
        Part::Passes => passes::serve(args, false),
        Part::BurnPasses => passes::serve(args, true),
    };
    lowburn::in_pool(work)
}

fn train(args: &OursArgs) -> Result<()> {
    let plan = config(args).check()?;
    let mut server = Trainer {
        timing: args.output.join("timing.jsonl"),
        meter: Meter::new(args.threads),
        batch: args.batch,
        epoch: 0,
        trainable: 0,
        wanted: Wanted::default(),
    };
    lowburn_trainer::train(&plan, &args.output, Start::Overwrite, &mut server)?;
    bail!("all rows are used up; ask for fewer steps")
}

fn config(args: &OursArgs) -> RunConfig {
    // The rows of the random data set are enough for one pass; real ones come again.
    let real = args.task != Task::Sst2;
    RunConfig {
        model: args.model.clone(),
        model_name: args
            .model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        task: args.task,
        data_dir: args.data.clone(),
        method: args.method,
        lora: (args.method == Method::Lora).then(|| args.lora()),
        position_branch: None,
        head_dropout: None,
        init_adapter: None,
        epochs: if real { 1000 } else { 1 },
        batch_size: args.batch,
        accumulate: 1,
        lr: 1e-5,
        weight_decay: 0.1,
        warmup: Warmup::Steps(0),
        max_length: args.length,
        seed: 0,
        shuffle: true,
        group_by_length: false,
        train_rows: None,
        max_steps: None,
        eval_every: EvalEvery::Steps(u64::MAX),
        device: DeviceName::FLEX,
        threads: Some(args.threads),
        checkpoint_activations: args.checkpoint_activations,
        dtype: args.dtype,
    }
}

/// How much of the time was spent in products of matrices since the process was ready.
pub(super) struct Meter {
    threads: usize,
    products: f64,
    seconds: f64,
}

impl Meter {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            products: 0.0,
            seconds: 0.0,
        }
    }

    /// Adds a request that took so long, and during which so many seconds went into products.
    pub(super) fn add(&mut self, seconds: f64, products: f64) {
        self.seconds += seconds;
        self.products += products;
    }

    fn share(&self) -> Option<f64> {
        let all = self.seconds * self.threads as f64;
        (all > 0.0 && self.products > 0.0).then(|| self.products / all)
    }
}

/// What this process is, for its first answer.
pub(super) fn ready(threads: usize, trainable: usize) -> Value {
    json!({
        "ready": true, "framework": "lowburn", "version": env!("CARGO_PKG_VERSION"),
        "threads": threads, "cpu": cpu_name(), "trainable": trainable,
    })
}

/// Steps that were asked for and are not done.
#[derive(Default)]
struct Wanted {
    left: usize,
    seconds: f64,
    products: f64,
}

struct Trainer {
    timing: PathBuf,
    meter: Meter,
    batch: usize,
    /// Steps of an epoch.
    epoch: usize,
    trainable: usize,
    wanted: Wanted,
}

impl Trainer {
    fn next(&mut self) {
        self.wanted = Wanted {
            left: match wait(&["step", "epoch"], &self.meter) {
                0 => 1,
                _ => self.epoch,
            },
            seconds: 0.0,
            products: lowburn_kernels::product_seconds(),
        };
    }
}

impl Observer for Trainer {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                trainable, rows, ..
            } => {
                self.trainable = *trainable;
                self.epoch = rows.div_ceil(self.batch);
            }
            Event::Step(report) if report.step == 1 => {
                answer(&ready(self.meter.threads, self.trainable));
                self.next();
            }
            Event::Step(report) => {
                match last_seconds(&self.timing) {
                    Ok(seconds) => self.wanted.seconds += seconds,
                    Err(error) => answer(&json!({"error": lowburn::one_line(&error)})),
                }
                self.wanted.left -= 1;
                if self.wanted.left == 0 {
                    let seconds = self.wanted.seconds;
                    let products = lowburn_kernels::product_seconds() - self.wanted.products;
                    self.meter.add(seconds, products);
                    answer(&json!({"seconds": seconds, "loss": report.loss}));
                    self.next();
                }
            }
            _ => {}
        }
    }
}

/// Evaluates the checkpoint again and again. The seconds are those from the first batch to the last.
fn evaluate(args: &OursArgs) -> Result<()> {
    let config = EvalConfig {
        source: Source {
            model: args.model.clone(),
            adapter: None,
            any_base: false,
            position_branch: None,
            dtype: Dtype::F32,
        },
        task: args.task,
        data_dir: args.data.clone(),
        split: "validation".to_owned(),
        batch_size: args.batch,
        max_length: Some(args.length),
        device: DeviceName::FLEX,
    };
    let mut meter = Meter::new(args.threads);
    let mut first = true;
    loop {
        if !first {
            wait(&["evaluate"], &meter);
        }
        let mut clock = Clock::default();
        let evaluations = lowburn_trainer::evaluate(&config, &mut clock)?;
        let seconds = clock.seconds.context("nothing was evaluated")?;
        if first {
            answer(&ready(args.threads, 0));
        } else {
            meter.add(seconds, lowburn_kernels::product_seconds() - clock.products);
            let loss = evaluations.first().and_then(|evaluation| evaluation.loss);
            answer(&json!({"seconds": seconds, "loss": loss}));
        }
        first = false;
    }
}

/// Seconds from the first batch to the last.
#[derive(Default)]
struct Clock {
    began: Option<Instant>,
    products: f64,
    seconds: Option<f64>,
}

impl Observer for Clock {
    fn event(&mut self, event: &Event<'_>) {
        let Event::Evaluating { done, total, .. } = event else {
            return;
        };
        if *done == 0 {
            self.began = Some(Instant::now());
            self.products = lowburn_kernels::product_seconds();
        } else if done == total {
            self.seconds = self.began.map(|began| began.elapsed().as_secs_f64());
        }
    }
}

/// Tokenises the training rows and makes an epoch's batches of them, again and again.
fn tokenise(args: &OursArgs) -> Result<()> {
    let dataset = Dataset::load(&args.data, args.task, "train")?;
    let tokenizer = Tokenizer::from_dir(&args.model)?;
    let meter = Meter::new(args.threads);
    answer(&ready(args.threads, 0));
    let mut epoch = 0;
    loop {
        wait(&["tokenise"], &meter);
        let began = Instant::now();
        let encodings = tokenizer.encode_dataset(&dataset, args.length)?;
        let lengths: Vec<usize> = encodings.iter().map(lowburn_glue::Encoding::len).collect();
        let order = Order {
            shuffle: true,
            group_by_length: false,
            seed: 0,
            batch_size: args.batch,
        };
        let mut tokens = 0;
        for rows in order.epoch(epoch, &lengths) {
            tokens += collate(&encodings, &dataset.examples, &rows, tokenizer.pad_id()).tokens();
        }
        let seconds = began.elapsed().as_secs_f64();
        answer(&json!({"seconds": seconds, "rows": dataset.len(), "tokens": tokens}));
        epoch += 1;
    }
}

/// Answers requests until one is among the words, and gives its place there; the end of the input ends the process.
pub(super) fn wait(words: &[&str], meter: &Meter) -> usize {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request = line.trim();
        if let Some(place) = words.iter().position(|word| *word == request) {
            return place;
        }
        match request {
            "memory" => answer(&json!({"peak_bytes": peak_memory_bytes()})),
            "products" => answer(&json!({"share": meter.share()})),
            "" => {}
            "quit" => break,
            other => answer(&json!({
                "error": format!("unknown request {other}: {}, memory, products or quit", words.join(", "))
            })),
        }
    }
    std::process::exit(0);
}

pub(super) fn answer(content: &Value) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{content}")
        .and_then(|()| output.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

/// Seconds of the step that `timing.jsonl` tells last.
fn last_seconds(path: &Path) -> Result<f64> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().last().context("timing.jsonl is empty")?;
    let value: Value =
        serde_json::from_str(line).context("timing.jsonl does not end with an object")?;
    value["seconds"]
        .as_f64()
        .context("the last line of timing.jsonl tells no seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_timing_log_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("timing.jsonl");
        std::fs::write(
            &path,
            "{\"step\":1,\"seconds\":2.5}\n{\"step\":2,\"seconds\":1.5}\n",
        )
        .unwrap();
        assert_eq!(last_seconds(&path).unwrap(), 1.5);
        std::fs::write(&path, "{\"step\":1,\"evaluate\":2.5}\n").unwrap();
        assert!(last_seconds(&path).is_err());
    }
}

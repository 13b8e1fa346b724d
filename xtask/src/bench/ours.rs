//! Our side of a benchmark: the trainer itself, one step at a time, on request.
//!
//! It is `lowburn_trainer::train` on a real configuration, held after every step by its observer until the next line
//! arrives. The seconds are those that the trainer writes to `timing.jsonl`: batch, forward, backward, clip and update.
//! The protocol is that of `scripts/peer/bench_peft.py`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lowburn_glue::Task;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_trainer::{
    DeviceName, EvalEvery, Event, Method, Observer, RunConfig, Start, Warmup, cpu_name,
    peak_memory_bytes,
};
use serde_json::{Value, json};

/// Arguments of the hidden command `bench-ours`.
#[derive(Debug, clap::Args)]
pub(crate) struct OursArgs {
    /// Checkpoint folder
    #[arg(long)]
    model: PathBuf,
    /// Data folder
    #[arg(long)]
    data: PathBuf,
    /// Folder for the run's files
    #[arg(long)]
    output: PathBuf,
    /// lora, full or head
    #[arg(long)]
    method: Method,
    /// Rank of the adapters
    #[arg(long)]
    rank: usize,
    /// Rows of a step
    #[arg(long)]
    batch: usize,
    /// Tokens of a row
    #[arg(long)]
    length: usize,
    /// Threads
    #[arg(long)]
    threads: usize,
}

/// Serves steps until the input ends.
///
/// # Errors
/// Those of the trainer.
pub(crate) fn serve(args: &OursArgs) -> Result<()> {
    lowburn::set_threads(Some(args.threads))?;
    let plan = config(args).check()?;
    let timing = args.output.join("timing.jsonl");
    let mut server = Server {
        timing,
        threads: args.threads,
        trainable: 0,
    };
    let run = || lowburn_trainer::train(&plan, &args.output, Start::Overwrite, &mut server);
    lowburn::in_pool(run)?;
    bail!("all rows are used up; ask for fewer steps")
}

fn config(args: &OursArgs) -> RunConfig {
    let lora = LoraConfig::new(
        args.rank,
        2.0 * args.rank as f64,
        Targets::names(["query", "value"]),
    );
    RunConfig {
        model: args.model.clone(),
        model_name: args
            .model
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        task: Task::Sst2,
        data_dir: args.data.clone(),
        method: args.method,
        lora: (args.method == Method::Lora).then_some(lora),
        position_branch: None,
        head_dropout: None,
        init_adapter: None,
        epochs: 1,
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
        device: DeviceName::Flex,
        threads: Some(args.threads),
        checkpoint_activations: false,
    }
}

struct Server {
    timing: PathBuf,
    threads: usize,
    trainable: usize,
}

impl Observer for Server {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { trainable, .. } => self.trainable = *trainable,
            Event::Step(report) if report.step == 1 => {
                answer(&json!({
                    "ready": true, "framework": "lowburn", "version": env!("CARGO_PKG_VERSION"),
                    "threads": self.threads, "cpu": cpu_name(), "trainable": self.trainable,
                }));
                wait();
            }
            Event::Step(report) => {
                match last_seconds(&self.timing) {
                    Ok(seconds) => answer(&json!({"seconds": seconds, "loss": report.loss})),
                    Err(error) => answer(&json!({"error": lowburn::one_line(&error)})),
                }
                wait();
            }
            _ => {}
        }
    }
}

/// Answers requests until one asks for a step; the end of the input ends the process.
fn wait() {
    for line in std::io::stdin().lock().lines() {
        match line.as_deref().map(str::trim) {
            Ok("step") => return,
            Ok("memory") => answer(&json!({"peak_bytes": peak_memory_bytes()})),
            Ok("") => {}
            Ok("quit") | Err(_) => break,
            Ok(other) => {
                answer(&json!({"error": format!("unknown request {other}: step, memory or quit")}))
            }
        }
    }
    std::process::exit(0);
}

fn answer(content: &Value) {
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

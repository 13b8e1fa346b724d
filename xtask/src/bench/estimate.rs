//! How well the peak memory of a run is predicted: `lowburn inspect --estimate` beside runs that were measured.
//!
//! Each run is a whole one (load, train, evaluate, save) in a process of its own, on a checkpoint of random weights and
//! rows that fill their length. The prediction is made before, from the configuration alone. Nothing fails here: the
//! record says how far off each prediction is, whatever it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_models::ModelConfig;
use lowburn_trainer::{
    Dtype, Method, RunRecord, TrainingShape, cpu_name, forecast, tokenizer_bytes,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{BenchArgs, material};
use crate::report::{Align, Table, bytes};
use crate::workspace;

/// Name of the record, and of its part of the document.
pub(crate) const NAME: &str = "estimate";

/// How far off a prediction may be to count as good.
const GOOD: f64 = 0.15;

/// Optimiser steps of a run.
const STEPS: usize = 4;

/// A run to predict and to measure.
struct Case {
    deberta: bool,
    /// Layers, width and words.
    size: [usize; 3],
    /// Position projections of their own, absolute positions and no convolution; of DeBERTa-v2 only.
    apart: bool,
    method: Method,
    /// Targets and rank.
    lora: (&'static str, usize),
    /// Rows and tokens.
    batch: [usize; 2],
    dtype: Dtype,
    again: bool,
}

/// A LoRA run of RoBERTa, to be changed.
const BASE: Case = Case {
    deberta: false,
    size: [12, 768, 2000],
    apart: false,
    method: Method::Lora,
    lora: ("query,value", 8),
    batch: [16, 128],
    dtype: Dtype::F32,
    again: false,
};

/// The same of DeBERTa-v2.
const DEBERTA: Case = Case {
    deberta: true,
    size: [6, 512, 2000],
    batch: [8, 256],
    ..BASE
};

/// Both architectures, all methods and dtypes, with and without layers that are computed again, wide and narrow, deep
/// and shallow, long and short.
const CASES: [Case; 18] = [
    BASE,
    Case {
        dtype: Dtype::Bf16,
        ..BASE
    },
    Case {
        again: true,
        ..BASE
    },
    Case {
        size: [24, 128, 1000],
        batch: [64, 32],
        ..BASE
    },
    Case {
        size: [4, 1024, 2000],
        lora: ("all-linear", 64),
        batch: [8, 128],
        ..BASE
    },
    Case {
        size: [8, 512, 2000],
        batch: [4, 512],
        ..BASE
    },
    Case {
        method: Method::Head,
        dtype: Dtype::F16,
        ..BASE
    },
    Case {
        size: [6, 768, 2000],
        method: Method::Bitfit,
        batch: [8, 128],
        dtype: Dtype::F16,
        ..BASE
    },
    Case {
        size: [6, 384, 8000],
        method: Method::Full,
        batch: [32, 64],
        ..BASE
    },
    Case {
        size: [3, 1024, 30000],
        method: Method::Full,
        batch: [4, 64],
        again: true,
        ..BASE
    },
    DEBERTA,
    Case {
        dtype: Dtype::F16,
        again: true,
        ..DEBERTA
    },
    Case {
        size: [4, 768, 128100],
        batch: [8, 128],
        dtype: Dtype::Bf16,
        ..DEBERTA
    },
    Case {
        apart: true,
        lora: ("all-linear", 16),
        batch: [8, 128],
        ..DEBERTA
    },
    Case {
        method: Method::Full,
        ..DEBERTA
    },
    Case {
        size: [4, 512, 2000],
        method: Method::Full,
        batch: [16, 64],
        again: true,
        ..DEBERTA
    },
    Case {
        size: [12, 256, 2000],
        method: Method::Bitfit,
        batch: [16, 128],
        ..DEBERTA
    },
    Case {
        size: [3, 1024, 2000],
        method: Method::Head,
        batch: [4, 512],
        ..DEBERTA
    },
];

/// A run that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    model: String,
    layers: usize,
    hidden: usize,
    words: usize,
    method: Method,
    target: Option<String>,
    rank: Option<usize>,
    batch: usize,
    length: usize,
    dtype: Dtype,
    checkpoint_activations: bool,
    /// Predicted peak in bytes.
    predicted: u64,
    /// Measured peak in bytes.
    measured: u64,
}

/// All runs, and where they were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimates {
    version: String,
    cpu: String,
    threads: usize,
    points: Vec<Point>,
}

/// Predicts and measures every run, and keeps the record.
///
/// # Errors
/// When a run fails, or a file cannot be written.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let mut estimates = Estimates {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu: cpu_name(),
        threads: args.threads(),
        points: Vec::new(),
    };
    for case in &CASES {
        let point = case.measure(args.threads())?;
        eprintln!("{}: {}", point.title(), point.off());
        estimates.points.push(point);
    }
    println!("{}", estimates.markdown());
    if args.dry_run {
        return Ok(());
    }
    let path = workspace::results("bench").join(format!("{NAME}.json"));
    workspace::write(&path, &(serde_json::to_string_pretty(&estimates)? + "\n"))?;
    super::write()
}

/// One command line of the binary, in this process.
///
/// # Errors
/// Those of the command.
pub(crate) fn command(line: &[String]) -> Result<()> {
    let line = std::iter::once("lowburn").chain(line.iter().map(String::as_str));
    let command = lowburn::Cli::try_parse_from(line)?.command;
    lowburn::set_threads(command.threads())?;
    lowburn::in_pool(|| lowburn::execute(&command))
}

impl Case {
    fn config(&self) -> Value {
        let [layers, hidden, words] = self.size;
        let mut config = json!({
            "vocab_size": words, "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": hidden / 64, "intermediate_size": 4 * hidden, "pad_token_id": 1,
        });
        let own = if self.deberta {
            json!({
                "model_type": "deberta-v2", "max_position_embeddings": 512, "type_vocab_size": 0,
                "relative_attention": true, "max_relative_positions": -1, "position_buckets": 256,
                "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p", "conv_act": "gelu",
                "share_att_key": !self.apart, "position_biased_input": self.apart,
                "conv_kernel_size": if self.apart { 0 } else { 3 },
            })
        } else {
            json!({"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1})
        };
        if let (Some(config), Some(own)) = (config.as_object_mut(), own.as_object()) {
            config.extend(own.clone());
        }
        config
    }

    /// Name of the checkpoint.
    fn folder(&self) -> String {
        let [layers, hidden, words] = self.size;
        let kind = match (self.deberta, self.apart) {
            (false, _) => "roberta",
            (true, false) => "deberta",
            (true, true) => "deberta-apart",
        };
        format!("{NAME}-{kind}-{layers}x{hidden}-{words}")
    }

    fn lora(&self) -> Result<Option<LoraConfig>> {
        if self.method != Method::Lora {
            return Ok(None);
        }
        let (targets, rank) = self.lora;
        let targets: Targets = targets.parse()?;
        Ok(Some(LoraConfig::new(rank, 16.0, targets)))
    }

    fn shape(&self, threads: usize, tokenizer: Option<u64>) -> TrainingShape {
        let [batch_size, max_length] = self.batch;
        TrainingShape {
            batch_size,
            max_length,
            accumulate: 1,
            dtype: self.dtype,
            checkpoint_activations: self.again,
            threads,
            evaluation_rows: None,
            tokenizer_bytes: tokenizer,
        }
    }

    /// The prediction first, then the run.
    fn measure(&self, threads: usize) -> Result<Point> {
        let model = material::made(&self.folder(), &self.config())?;
        let parsed = ModelConfig::from_dir(&model)?;
        let lora = self.lora()?;
        let shape = self.shape(threads, tokenizer_bytes(&model));
        let forecast = forecast(&parsed, self.method, lora.as_ref(), 2, &shape)?;
        let [batch, length] = self.batch;
        let [layers, hidden, words] = self.size;
        let (target, rank) = self.lora;
        let adapted = lora.is_some();
        Ok(Point {
            model: if self.deberta {
                "DeBERTa-v2"
            } else {
                "RoBERTa"
            }
            .to_owned(),
            layers,
            hidden,
            words,
            method: self.method,
            target: adapted.then(|| target.to_owned()),
            rank: adapted.then_some(rank),
            batch,
            length,
            dtype: self.dtype,
            checkpoint_activations: self.again,
            predicted: forecast.memory.total,
            measured: self.peak(&model, threads)?,
        })
    }

    /// The peak of a run in a process of its own.
    fn peak(&self, model: &Path, threads: usize) -> Result<u64> {
        let [batch, length] = self.batch;
        // A word is a token or more.
        let data = material::rows(&format!("{NAME}-data"), STEPS * batch, length)?;
        let scratch =
            tempfile::tempdir_in(workspace::target()).context("cannot make a temporary folder")?;
        let output = scratch.path().join("run");
        let mut command = Command::new(workspace::this_program()?);
        command.stdout(Stdio::null()).args(["bench-command", "--"]);
        command.args(self.line(batch, length, threads));
        for (name, path) in [
            ("--model", model),
            ("--data-dir", data.as_path()),
            ("--output", output.as_path()),
        ] {
            command.arg(name).arg(path);
        }
        let status = command.status().context("cannot start this program")?;
        ensure!(
            status.success(),
            "a run of `bench --estimate` failed: {status}"
        );
        let record = RunRecord::read(&output.join(RunRecord::FILE))?;
        Ok(record.peak_memory_bytes)
    }

    /// The command without its folders.
    fn line(&self, batch: usize, length: usize, threads: usize) -> Vec<String> {
        let mut line = format!(
            "train --task sst2 --method {} --epochs 1 --max-steps {STEPS} --batch-size {batch} --lr 1e-4 \
             --weight-decay 0.1 --warmup-steps 0 --max-length {length} --seed 0 --device flex --threads {threads} \
             --dtype {} --quiet",
            self.method, self.dtype
        );
        if self.method == Method::Lora {
            let (target, rank) = self.lora;
            line += &format!(" --target {target} --rank {rank}");
        }
        if self.again {
            line += " --checkpoint-activations";
        }
        line.split_whitespace().map(str::to_owned).collect()
    }
}

impl Point {
    fn title(&self) -> String {
        format!(
            "{} {} x {}, {} words",
            self.model, self.layers, self.hidden, self.words
        )
    }

    fn training(&self) -> String {
        let mut text = self.method.to_string();
        if let (Some(target), Some(rank)) = (&self.target, self.rank) {
            text += &format!(" r {rank} on {target}");
        }
        if self.dtype.is_half() {
            text += &format!(", {}", self.dtype);
        }
        if self.checkpoint_activations {
            text += ", layers again";
        }
        text
    }

    /// The prediction by the measurement, less 1.
    fn difference(&self) -> f64 {
        self.predicted as f64 / self.measured as f64 - 1.0
    }

    fn off(&self) -> String {
        format!("{:+.1} %", 100.0 * self.difference())
    }
}

impl Estimates {
    /// What the document says of it.
    pub(crate) fn markdown(&self) -> String {
        let mut table = Table::new([
            ("Model", Align::Left),
            ("Training", Align::Left),
            ("Rows x tokens", Align::Right),
            ("Predicted", Align::Right),
            ("Measured", Align::Right),
            ("Difference", Align::Right),
        ]);
        for point in &self.points {
            table.row([
                point.title(),
                point.training(),
                format!("{} x {}", point.batch, point.length),
                bytes(point.predicted),
                bytes(point.measured),
                point.off(),
            ]);
        }
        let differences = self.points.iter().map(|point| point.difference().abs());
        let good = differences.clone().filter(|off| *off <= GOOD).count();
        format!(
            "{}\n{good} of {} are within {:.0} %, the largest difference is {:.1} %. {} threads of {}.",
            table.markdown(),
            self.points.len(),
            100.0 * GOOD,
            100.0 * differences.fold(0.0, f64::max),
            self.threads,
            self.cpu
        )
    }
}

/// The record that is there.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read() -> Result<Option<Estimates>> {
    let path: PathBuf = workspace::results("bench").join(format!("{NAME}.json"));
    if !path.exists() {
        return Ok(None);
    }
    super::page::parsed(&path).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_cases_are_runs_of_every_kind() {
        let mut kinds = BTreeSet::new();
        for case in &CASES {
            let text = case.config().to_string();
            let model = ModelConfig::parse(text.as_bytes(), Path::new("config.json")).unwrap();
            let lora = case.lora().unwrap();
            let shape = case.shape(2, None);
            let forecast = forecast(&model, case.method, lora.as_ref(), 2, &shape).unwrap();
            // Several of them fit a machine at once, none is all program.
            let total = forecast.memory.total;
            assert!((100_000_000..4_000_000_000).contains(&total), "{total}");
            let [batch, length] = case.batch;
            let line = case.line(batch, length, 2);
            let folders = ["--model", "m", "--data-dir", "d", "--output", "o"].map(str::to_owned);
            let line = [vec!["lowburn".to_owned()], line, folders.to_vec()].concat();
            lowburn::Cli::try_parse_from(line).unwrap();
            kinds.extend([
                case.method.to_string(),
                case.dtype.to_string(),
                format!("deberta {}, again {}", case.deberta, case.again),
            ]);
        }
        assert_eq!(kinds.len(), Method::ALL.len() + Dtype::ALL.len() + 4);
    }

    #[test]
    fn a_record_says_how_many_are_good() {
        let point = |predicted| Point {
            model: "RoBERTa".to_owned(),
            layers: 2,
            hidden: 128,
            words: 1000,
            method: Method::Lora,
            target: Some("query,value".to_owned()),
            rank: Some(8),
            batch: 4,
            length: 16,
            dtype: Dtype::Bf16,
            checkpoint_activations: true,
            predicted,
            measured: 100_000_000,
        };
        let estimates = Estimates {
            version: "1".to_owned(),
            cpu: "a processor".to_owned(),
            threads: 2,
            points: [115_000_000, 84_000_000, 99_000_000].map(point).to_vec(),
        };
        let text = estimates.markdown();
        for expected in [
            "| RoBERTa 2 x 128, 1000 words | lora r 8 on query,value, bf16, layers again |",
            "|     +15.0 % |",
            "|     -16.0 % |",
            "2 of 3 are within 15 %, the largest difference is 16.0 %",
        ] {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(&expected), "{expected:?} is not in: {text}");
        }
        let again: Estimates =
            serde_json::from_str(&serde_json::to_string(&estimates).unwrap()).unwrap();
        assert_eq!(again, estimates);
    }
}

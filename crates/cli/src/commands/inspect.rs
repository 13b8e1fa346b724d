//! `lowburn inspect`.

use lowburn_models::{Method, ModelConfig};
use lowburn_trainer::{InspectConfig, Inspection, inspect};

use super::print;
use super::train::{check_lora, lora_config};
use crate::args::InspectArgs;
use crate::locate;
use crate::show::{bytes, columns, grouped};

pub(super) fn execute(args: &InspectArgs) -> anyhow::Result<()> {
    check_lora(&args.lora, args.method)?;
    let model = locate::model(&args.model, args.common.quiet)?.path;
    let max_length = match args.max_length {
        Some(length) => length,
        None => ModelConfig::from_dir(&model)?.trained_length().min(128),
    };
    let config = InspectConfig {
        model,
        method: args.method,
        lora: (args.method == Method::Lora).then(|| lora_config(&args.lora)),
        labels: args.labels,
        batch_size: args.batch_size,
        max_length,
        device: args.common.device,
    };
    let inspection = inspect(&config)?;
    if args.json {
        return print(&(serde_json::to_string(&inspection)? + "\n"));
    }
    print(&table(&inspection, args.batch_size, max_length))
}

fn table(inspection: &Inspection, batch_size: usize, max_length: usize) -> String {
    let mut rows = vec![
        [
            "parameter",
            "trained",
            "copies",
            "shape",
            "parameters",
            "bytes",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in &inspection.table {
        let shape: Vec<String> = row.shape.iter().map(usize::to_string).collect();
        rows.push(vec![
            row.name.clone(),
            if row.trainable { "yes" } else { "" }.to_owned(),
            row.copies.to_string(),
            shape.join(" x "),
            grouped(row.parameters),
            bytes(4 * row.parameters as u64),
        ]);
    }
    let counts = &inspection.parameters;
    let share = 100.0 * counts.trainable as f64 / counts.total.max(1) as f64;
    let memory = &inspection.memory;
    let mut text = columns(&rows, 2);
    text.push_str(&format!(
        "\ntotal      {}  ({})\ntrainable  {}  ({}, {share:.2} %): adapter {}, head {}\n",
        grouped(counts.total),
        bytes(4 * counts.total as u64),
        grouped(counts.trainable),
        bytes(4 * counts.trainable as u64),
        grouped(counts.adapter),
        grouped(counts.head),
    ));
    text.push_str(&format!(
        "\nmemory of a training step, about {} for {} rows of {} tokens:\n  weights {}, gradients {}, optimiser {}, activations {}\n",
        bytes(memory.total),
        batch_size,
        max_length,
        bytes(memory.weights),
        bytes(memory.gradients),
        bytes(memory.optimizer),
        bytes(memory.activations),
    ));
    text
}

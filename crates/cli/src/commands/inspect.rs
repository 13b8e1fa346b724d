//! `lowburn inspect`.

use lowburn_models::{Dtype, Method, ModelConfig};
use lowburn_trainer::{
    Forecast, InspectConfig, Inspection, MemoryEstimate, ParameterRow, estimate, inspect,
};

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
        accumulate: args.accumulate,
        dtype: args.memory.dtype,
        checkpoint_activations: args.memory.checkpoint_activations,
        evaluation_rows: args.evaluation_rows,
        device: args.common.device,
    };
    if args.estimate {
        let forecast = estimate(&config)?;
        return print(&match args.json {
            true => serde_json::to_string(&forecast)? + "\n",
            false => estimated(&forecast, &config),
        });
    }
    let inspection = inspect(&config)?;
    if args.json {
        return print(&(serde_json::to_string(&inspection)? + "\n"));
    }
    print(&table(&inspection, &config))
}

/// The prediction alone.
fn estimated(forecast: &Forecast, config: &InspectConfig) -> String {
    let counts = &forecast.parameters;
    format!(
        "parameters {}, trained {}\n{}",
        grouped(counts.total),
        grouped(counts.trainable),
        memory(&forecast.memory, config)
    )
}

fn table(inspection: &Inspection, config: &InspectConfig) -> String {
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
    let mut total = 0;
    for row in &inspection.table {
        let shape: Vec<String> = row.shape.iter().map(usize::to_string).collect();
        let stored = stored(row, config.dtype);
        total += stored;
        rows.push(vec![
            row.name.clone(),
            if row.trainable { "yes" } else { "" }.to_owned(),
            row.copies.to_string(),
            shape.join(" x "),
            grouped(row.parameters),
            bytes(stored),
        ]);
    }
    let counts = &inspection.parameters;
    let share = 100.0 * counts.trainable as f64 / counts.total.max(1) as f64;
    let mut text = columns(&rows, 2);
    text.push_str(&format!(
        "\ntotal      {}  ({})\ntrainable  {}  ({}, {share:.2} %): adapter {}, head {}\n\n",
        grouped(counts.total),
        bytes(total),
        grouped(counts.trainable),
        bytes(4 * counts.trainable as u64),
        grouped(counts.adapter),
        grouped(counts.head),
    ));
    text + &memory(&inspection.memory, config)
}

/// Bytes of equal parameters: frozen matrices of the encoder are in `dtype`, all else in f32.
fn stored(row: &ParameterRow, dtype: Dtype) -> u64 {
    let of = match row.trainable {
        true => Dtype::F32,
        false => dtype.of(&row.name, row.shape.len()),
    };
    of.bytes() as u64 * row.parameters as u64
}

/// The peak of a run and its parts.
fn memory(memory: &MemoryEstimate, config: &InspectConfig) -> String {
    let again = match config.checkpoint_activations {
        true => ", layers computed again",
        false => "",
    };
    let parts = [
        ("weights", memory.weights, ""),
        ("gradients", memory.gradients, ""),
        ("optimiser", memory.optimizer, ""),
        ("activations", memory.activations, ""),
        (
            "buffers",
            memory.buffers,
            "work memory, and blocks kept for the next of their size",
        ),
        ("program", memory.program, "code, threads, tokenizer"),
    ];
    let mut rows: Vec<Vec<String>> = parts
        .iter()
        .map(|(name, size, what)| vec![(*name).to_owned(), (*what).to_owned(), bytes(*size)])
        .collect();
    let most = format!("most is in use {}", memory.phase);
    rows.push(vec!["peak".to_owned(), most, bytes(memory.total)]);
    format!(
        "memory of a training run on flex, predicted for {} rows of {} tokens{again}:\n{}",
        config.batch_size,
        config.max_length,
        columns(&rows, 2)
    )
}

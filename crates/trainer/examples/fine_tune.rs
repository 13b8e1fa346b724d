//! Fine-tunes the repository's small checkpoint with LoRA on its small sentiment task.
//!
//!     cargo run -p lowburn-trainer --example fine_tune
//!
//! The run is written to a folder below the system's temporary one. Started again it goes on
//! where it was stopped, or says that it is done.

use std::path::Path;

use lowburn_glue::Task;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_trainer::{
    DeviceName, Dtype, EvalEvery, Event, Method, Observer, RunConfig, Start, Warmup, train,
};

/// Prints what it is told about.
struct Print;

impl Observer for Print {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Step(report) if report.step % 25 == 0 => {
                println!(
                    "step {} of {}: loss {:.4}",
                    report.step, report.total, report.loss
                );
            }
            Event::Evaluated { evaluation, .. } => {
                println!("epoch {}: {:?}", evaluation.epoch, evaluation.scores);
            }
            Event::Note(text) => println!("{text}"),
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini");
    let config = RunConfig {
        model: mini.join("model"),
        model_name: "mini".into(),
        task: Task::Sst2,
        data_dir: mini.join("glue"),
        method: Method::Lora,
        lora: Some(LoraConfig::new(8, 16.0, Targets::names(["query", "value"]))),
        position_branch: None,
        head_dropout: None,
        init_adapter: None,
        epochs: 1,
        batch_size: 16,
        accumulate: 1,
        lr: 2e-3,
        weight_decay: 0.1,
        warmup: Warmup::Ratio(0.06),
        max_length: 64,
        seed: 0,
        shuffle: true,
        group_by_length: true,
        train_rows: None,
        max_steps: None,
        eval_every: EvalEvery::Epoch,
        device: DeviceName::FLEX,
        threads: None,
        checkpoint_activations: false,
        dtype: Dtype::F32,
    };
    let output = std::env::temp_dir().join("lowburn-example");
    let record = train(&config.check()?, &output, Start::Resume, &mut Print)?;
    println!("{} steps, written to {}", record.steps, output.display());
    Ok(())
}

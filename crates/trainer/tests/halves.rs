//! Runs upon a base in 16 bit learn as the run in f32 does.
//!
//! Of the base's numbers bf16 keeps 8 bits and f16 11, a relative change of 2^-9 and 2^-12 at most that is independent from number to
//! number, and everything else is f32: the losses of a run drift apart by much less than they differ between two seeds. The bound
//! is 2 % of the mean loss, of the whole run and of its last fifth.

use std::fs;
use std::path::{Path, PathBuf};

use lowburn_glue::Task;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_trainer::{
    DeviceName, Dtype, EvalEvery, Method, RunConfig, RunRecord, Silent, Start, Warmup, train,
};
use serde_json::Value;

const STEPS: usize = 50;
const HALVES: [Dtype; 2] = [Dtype::Bf16, Dtype::F16];

fn data(place: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    root.join(place)
}

fn config(model: &str, method: Method, dtype: Dtype) -> RunConfig {
    let deberta = model.contains("deberta");
    let lora = LoraConfig::new(8, 16.0, Targets::names(["query", "value"]));
    RunConfig {
        model: data(model),
        model_name: "small".into(),
        task: Task::Sst2,
        data_dir: data(if deberta { "parity/glue" } else { "mini/glue" }),
        method,
        lora: (method == Method::Lora).then_some(lora),
        position_branch: None,
        init_adapter: None,
        epochs: 50,
        batch_size: 16,
        accumulate: 1,
        lr: 2e-3,
        weight_decay: 0.1,
        warmup: Warmup::Steps(3),
        max_length: 40,
        seed: 1,
        head_dropout: None,
        shuffle: true,
        group_by_length: false,
        train_rows: None,
        max_steps: Some(STEPS as u64),
        eval_every: EvalEvery::Steps(STEPS as u64),
        device: DeviceName::FLEX,
        threads: None,
        checkpoint_activations: false,
        dtype,
    }
}

/// A run's record and the lines of its log.
fn run(config: &RunConfig) -> (RunRecord, Vec<Value>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let plan = config.clone().check().expect("a plan");
    let output = dir.path().join("run");
    let record = train(&plan, &output, Start::Fresh, &mut Silent).expect("a run");
    let log = fs::read_to_string(output.join("log.jsonl")).expect("a log");
    let lines = log.lines();
    let lines = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    (record, lines.collect())
}

fn mean_loss(log: &[Value]) -> f64 {
    let losses = log
        .iter()
        .map(|line| line["loss"].as_f64().expect("a loss"));
    losses.sum::<f64>() / log.len() as f64
}

#[test]
fn fifty_steps_upon_halves_have_the_losses_of_f32() {
    for model in ["mini/model", "parity/deberta/models/deb_conv"] {
        let (full, expected) = run(&config(model, Method::Lora, Dtype::F32));
        assert_eq!(expected.len(), STEPS);
        for dtype in HALVES {
            let (record, log) = run(&config(model, Method::Lora, dtype));
            for part in [0..STEPS, STEPS - 10..STEPS] {
                let [ours, theirs] = [&log, &expected].map(|log| mean_loss(&log[part.clone()]));
                let change = (ours / theirs - 1.0).abs();
                assert!(
                    change < 0.02,
                    "{model} in {dtype}, {part:?}: {ours} for {theirs}"
                );
            }
            assert_eq!(record.config.dtype, dtype);
            assert_ne!(record.digest, full.digest, "another run");
            assert_eq!(record.parameters, full.parameters);
            let scale = (dtype == Dtype::F16).then_some(65_536.0);
            for line in &log {
                assert_eq!(line.get("loss_scale").and_then(Value::as_f64), scale);
                let skipped = line.get("skipped").map(|skipped| skipped == true);
                assert_eq!(skipped, scale.map(|_| false));
            }
            assert_eq!(record.skipped_steps, 0);
        }
    }
}

#[test]
fn every_method_with_a_frozen_base_may_have_it_in_halves() {
    for method in [Method::Head, Method::Bitfit] {
        let mut config = config("mini/model", method, Dtype::Bf16);
        config.max_steps = Some(4);
        let (record, log) = run(&config);
        assert_eq!((log.len(), record.steps), (4, 4), "{method}");
    }
    let error = config("mini/model", Method::Full, Dtype::Bf16).check();
    let message = error.expect_err("nothing is frozen").to_string();
    for part in ["dtype", "bf16", "full", "f32"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_record_says_the_dtype_only_where_it_is_a_half() {
    let f32 = config("mini/model", Method::Lora, Dtype::F32);
    let value = serde_json::to_value(&f32).expect("JSON");
    assert_eq!(value.get("dtype"), None);
    let read: RunConfig = serde_json::from_value(value).expect("a configuration");
    assert_eq!(read, f32);
    let half = config("mini/model", Method::Lora, Dtype::F16);
    let value = serde_json::to_value(&half).expect("JSON");
    assert_eq!(value["dtype"], "f16");
    let read: RunConfig = serde_json::from_value(value).expect("a configuration");
    assert_eq!(read, half);
}

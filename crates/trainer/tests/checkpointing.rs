//! A run whose activations are computed again is the run that keeps them: the same losses, gradient
//! norms and results, bit for bit, and the same digest.
//!
//! No tolerance, because nothing is added in another order; `lowburn-models` compares the gradients
//! themselves. Here five steps with dropout, two micro-batches each (one in the last, uneven step).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowburn_glue::Task;
use lowburn_lora::{LoraConfig, Targets};
use lowburn_trainer::{
    DeviceName, Dtype, EvalEvery, Method, RunConfig, RunRecord, Silent, Start, Warmup, kept_folder,
    train,
};
use serde_json::{Value, json};

const STEPS: usize = 5;

fn data(place: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    root.join(place)
}

/// A checkpoint and the task to train it on.
struct Case {
    model: PathBuf,
    data: PathBuf,
    task: Task,
}

/// The checkpoint of a folder, copied to where it has dropout.
fn with_dropout(folder: &Path, copy: &Path) -> PathBuf {
    fs::create_dir_all(copy).expect("a folder");
    for entry in fs::read_dir(folder).expect("a checkpoint") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("copied");
    }
    let path = copy.join("config.json");
    let text = fs::read_to_string(&path).expect("a configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    for field in [
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "pooler_dropout",
    ] {
        config[field] = json!(0.1);
    }
    fs::write(&path, config.to_string()).expect("written");
    copy.to_path_buf()
}

fn config(case: &Case, method: Method) -> RunConfig {
    let mut lora = LoraConfig::new(4, 6.0, Targets::names(["query", "key", "value"]));
    lora.dropout = 0.1;
    RunConfig {
        model: case.model.clone(),
        model_name: "small".into(),
        task: case.task,
        data_dir: case.data.clone(),
        method,
        lora: (method == Method::Lora).then_some(lora),
        position_branch: None,
        init_adapter: None,
        epochs: 1,
        batch_size: 4,
        accumulate: 2,
        lr: 2e-3,
        weight_decay: 0.1,
        warmup: Warmup::Steps(0),
        max_length: 40,
        seed: 3,
        head_dropout: None,
        shuffle: true,
        group_by_length: false,
        train_rows: Some(35),
        max_steps: None,
        eval_every: EvalEvery::Epoch,
        device: DeviceName::FLEX,
        threads: None,
        checkpoint_activations: false,
        dtype: Dtype::F32,
    }
}

/// What a run leaves that must be the same: its log and what it kept, by name.
fn run(config: &RunConfig, output: &Path) -> (RunRecord, BTreeMap<String, Vec<u8>>) {
    let plan = config.clone().check().expect("a plan");
    let record = train(&plan, output, Start::Fresh, &mut Silent).expect("a run");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(output.join(kept_folder(config.method))).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        files.insert(name.into_owned(), fs::read(&path).expect("a file"));
    }
    let log = fs::read(output.join("log.jsonl")).expect("a log");
    files.insert("log.jsonl".into(), log);
    (record, files)
}

/// The log has every step, each with a loss and a gradient.
fn check_log(what: &str, log: &[u8]) {
    let text = std::str::from_utf8(log).expect("UTF-8");
    assert_eq!(text.lines().count(), STEPS, "{what}");
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        for field in ["loss", "grad_norm"] {
            assert!(line[field].as_f64() > Some(0.0), "{what}: {line}");
        }
    }
}

fn same_runs(name: &str, case: &Case) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for method in Method::ALL {
        let what = format!("{name}, {method}");
        let place = |kind: &str| dir.path().join(format!("{method}-{kind}"));
        let mut config = config(case, method);
        let (kept, expected) = run(&config, &place("kept"));
        config.checkpoint_activations = true;
        let (again, found) = run(&config, &place("again"));
        check_log(&what, &expected["log.jsonl"]);
        assert!(expected.keys().eq(found.keys()), "{what}: which files");
        for (file, bytes) in &expected {
            assert!(found[file] == *bytes, "{what}: {file}");
        }
        assert_eq!(again.evaluations, kept.evaluations, "{what}");
        assert_eq!(again.digest, kept.digest, "{what}");
        assert!(again.config.checkpoint_activations && !kept.config.checkpoint_activations);
    }
}

#[test]
fn roberta_is_trained_to_the_same_bits() {
    let case = Case {
        model: data("mini/model"),
        data: data("mini/glue"),
        task: Task::Rte,
    };
    same_runs("roberta", &case);
}

/// A convolution, projections that positions share, a LayerNorm over the distances.
#[test]
fn deberta_is_trained_to_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = data("parity/deberta/models/deb_conv");
    let case = Case {
        model: with_dropout(&folder, dir.path()),
        data: data("parity/glue"),
        task: Task::Sst2,
    };
    same_runs("deberta", &case);
    let case = Case {
        model: folder,
        ..case
    };
    same_runs("deberta without dropout", &case);
}

/// A grouped convolution, position keys of their own, token types.
#[test]
fn deberta_with_position_keys_alone_is_trained_to_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = data("parity/deberta/models/deb_c2p");
    let case = Case {
        model: with_dropout(&folder, dir.path()),
        data: data("parity/glue"),
        task: Task::Mrpc,
    };
    same_runs("deberta with position keys", &case);
}

#[test]
fn a_record_says_it_only_where_it_is_on() {
    let case = Case {
        model: data("mini/model"),
        data: data("mini/glue"),
        task: Task::Rte,
    };
    let mut config = config(&case, Method::Full);
    let field = "checkpoint_activations";
    let off = serde_json::to_value(&config).expect("JSON");
    assert_eq!(off.get(field), None);
    let read: RunConfig = serde_json::from_value(off).expect("a configuration");
    assert_eq!(read, config);
    config.checkpoint_activations = true;
    let on = serde_json::to_value(&config).expect("JSON");
    assert_eq!(on[field], true);
    let read: RunConfig = serde_json::from_value(on).expect("a configuration");
    assert_eq!(read, config);
}

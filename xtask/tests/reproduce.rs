//! `cargo xtask reproduce` as a user runs it, on a grid of one short run over the embedded model and data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

const GRID: &str = r#"
title = "t"
about = "a"
model = "mini"
data = "mini"
seeds = [0]
[common]
epochs = 1
batch_size = 64
weight_decay = 0.1
warmup_ratio = 0.06
max_length = 16
group_by_length = false
eval_every = "epoch"
[[cell]]
task = "rte"
method = "head"
lr = 1e-3
"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("small.toml"), GRID).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Standard output and standard error of a `reproduce` that must succeed.
    fn reproduce(&self, work: &str, more: &[&str]) -> (String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("reproduce")
            .arg(self.path("small.toml"))
            .arg("--output")
            .arg(self.path("results"))
            .arg("--work")
            .arg(self.path(work))
            .args(more)
            .output()
            .expect("xtask starts");
        let Output { status, .. } = output;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert!(status.success(), "{out}\n{err}");
        (out, err)
    }

    fn state(&self, work: &str, more: &[&str]) -> String {
        let (plan, _) = self.reproduce(work, &[&["--dry-run"], more].concat());
        let row = plan.lines().last().expect("a row").trim_end_matches('|');
        row.rsplit('|').next().expect("a state").trim().to_owned()
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).expect("it is there")
}

#[test]
fn a_recorded_run_is_skipped_only_when_asked_and_only_with_the_same_digest() {
    let place = Place::new();
    place.reproduce("first", &[]);
    let record = place.path("results/records/rte-head-seed0/run.json");
    let before = bytes(&record);

    // Another machine: nothing in the work folder.
    assert_eq!(place.state("second", &[]), "to do");
    assert_eq!(place.state("second", &["--skip-recorded"]), "recorded");
    let (_, said) = place.reproduce("second", &["--skip-recorded"]);
    assert!(said.contains("1 of 1 runs are recorded already"), "{said}");
    assert!(!place.path("second/rte-head-seed0").exists());
    assert_eq!(bytes(&record), before);
    // The work folder goes first: a run that is finished there is done.
    assert_eq!(place.state("first", &["--skip-recorded"]), "done");

    // An unfinished record, one of another digest, and one without its log do not count.
    let text = String::from_utf8(before.clone()).expect("UTF-8");
    let digest = serde_json::from_str::<Value>(&text).expect("JSON")["digest"].clone();
    let other = format!("\"{}\"", "0".repeat(64));
    for changed in [
        text.replace("\"finished\"", "\"running\""),
        text.replace(&digest.to_string(), &other),
        "{".to_owned(),
    ] {
        assert_ne!(changed, text);
        fs::write(&record, changed).expect("written");
        assert_eq!(place.state("second", &["--skip-recorded"]), "to do");
    }
    fs::write(&record, &before).expect("written");
    let log = record.with_file_name("log.jsonl");
    fs::rename(&log, place.path("log.jsonl")).expect("moved");
    assert_eq!(place.state("second", &["--skip-recorded"]), "to do");
    fs::rename(place.path("log.jsonl"), &log).expect("moved");

    // Another recipe is another run.
    let recipe = GRID.replace("lr = 1e-3", "lr = 2e-3");
    fs::write(place.path("small.toml"), recipe).expect("written");
    assert_eq!(place.state("second", &["--skip-recorded"]), "to do");
}

/// Two tasks of which one starts from the other, with LoRA and with full fine-tuning.
const STARTS: &str = r#"
title = "t"
about = "a"
model = "mini"
data = "DATA"
seeds = [0]
[common]
epochs = 1
batch_size = 8
weight_decay = 0.1
warmup_steps = 1
max_length = 24
group_by_length = false
eval_every = "epoch"
[shared.lora]
method = "lora"
rank = 2
alpha = 4.0
targets = "query,value"
lora_dropout = 0.0
lr = 1e-2
[shared.full]
method = "full"
lr = 1e-3
[[cell]]
shared = "lora"
task = "rte"
start = "mnli"
published = { value = 50.0, spread = 50.0 }
[[cell]]
shared = "lora"
task = "mnli"
[[cell]]
shared = "full"
task = "rte"
start = "mnli"
[[cell]]
shared = "full"
task = "mnli"
"#;

/// Rows in the form of a task on pairs.
fn write_pairs(data: &Path, task: &str, split: &str, columns: [&str; 2], labels: i64) {
    let folder = data.join(task);
    fs::create_dir_all(&folder).expect("a folder");
    let words = [
        "a fine film",
        "it was slow",
        "two old friends",
        "nobody came",
    ];
    let texts = |step: usize| -> ArrayRef {
        let text = |row: usize| words[(row * step) % words.len()];
        Arc::new(StringArray::from_iter_values((0..32).map(text)))
    };
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values(
        (0..32).map(|row| row % labels),
    ));
    let idx: ArrayRef = Arc::new(Int32Array::from_iter_values(0..32));
    let columns = [
        (columns[0], texts(1)),
        (columns[1], texts(3)),
        ("label", label),
        ("idx", idx),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a batch");
    let file =
        fs::File::create(folder.join(format!("{split}-00000-of-00001.parquet"))).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

#[test]
fn runs_start_from_what_mnli_left() {
    let place = Place::new();
    let data = place.path("data");
    for split in ["train", "validation"] {
        write_pairs(&data, "rte", split, ["sentence1", "sentence2"], 2);
    }
    for split in ["train", "validation_matched", "validation_mismatched"] {
        write_pairs(&data, "mnli", split, ["premise", "hypothesis"], 3);
    }
    let grid = STARTS.replace("DATA", data.to_str().expect("UTF-8"));
    fs::write(place.path("small.toml"), grid).expect("written");
    let state = |more: &[&str]| place.state("work", more);
    assert_eq!(state(&["--filter", "rte-full"]), "to do"); // its start is the last row
    let (plan, _) = place.reproduce("work", &["--dry-run", "--filter", "rte-lora"]);
    let rows: Vec<&str> = plan.lines().skip(2).collect();
    assert_eq!(rows.len(), 2, "{plan}");
    assert!(
        rows[0].contains("rte-lora-r2-seed0") && rows[0].contains("after its start"),
        "{plan}"
    );

    let (table, said) = place.reproduce("work", &["--jobs", "2", "--micro-batch", "5"]);
    assert!(said.contains("4 runs in"), "{said}");
    assert!(table.contains("RTE"), "{table}");
    let record = |run: &str| -> Value {
        let path = place.path(&format!("results/records/{run}/run.json"));
        serde_json::from_slice(&bytes(&path)).expect("JSON")
    };
    // 8 rows are 4 x 2 when 5 is the most.
    let lora = record("rte-lora-r2-seed0");
    assert_eq!(
        (&lora["config"]["batch_size"], &lora["config"]["accumulate"]),
        (&4.into(), &2.into())
    );
    let started = lora["digests"]["init_adapter"]
        .as_object()
        .expect("digests");
    assert!(started.contains_key("adapter_model.safetensors"), "{lora}");
    // Full fine-tuning starts from the checkpoint that mnli left, whose weights are other ones.
    let weights = |run: &str| record(run)["digests"]["model"]["model.safetensors"].clone();
    assert_ne!(weights("rte-full-seed0"), weights("mnli-full-seed0"));
    assert_eq!(weights("rte-lora-r2-seed0"), weights("mnli-full-seed0"));

    let (_, said) = place.reproduce("work", &["--micro-batch", "5"]);
    assert!(said.contains("4 of 4 runs are done already"), "{said}");
    let page = String::from_utf8(bytes(&place.path("results/README.md"))).expect("UTF-8");
    assert!(page.contains("within"), "{page}");

    // Another mnli is another start.
    fs::remove_dir_all(place.path("work/mnli-lora-r2-seed0")).expect("removed");
    let (plan, _) = place.reproduce("work", &["--dry-run", "--micro-batch", "5"]);
    let states: Vec<&str> = plan
        .lines()
        .skip(2)
        .map(|row| {
            row.trim_end_matches('|')
                .rsplit('|')
                .next()
                .expect("a state")
                .trim()
        })
        .collect();
    assert_eq!(states, ["after its start", "to do", "done", "done"]);
    // A record cannot stand for a run that something has to start from.
    let (plan, _) = place.reproduce(
        "work",
        &["--dry-run", "--micro-batch", "5", "--skip-recorded"],
    );
    assert!(
        plan.lines().nth(3).expect("mnli").contains("to do"),
        "{plan}"
    );
    let (_, said) = place.reproduce("work", &["--micro-batch", "5"]);
    assert!(
        said.contains("2 of 2 runs that had a record gave the same log"),
        "{said}"
    );
}

#[test]
fn a_changed_key_makes_another_grid() {
    let place = Place::new();
    let (plan, _) = place.reproduce(
        "work",
        &["--dry-run", "--set", "epochs=3", "--seeds", "4,5"],
    );
    let rows: Vec<&str> = plan.lines().skip(2).collect();
    assert_eq!(rows.len(), 2, "{plan}");
    assert!(
        rows[0].contains("rte-head-seed4") && rows[1].contains("rte-head-seed5"),
        "{plan}"
    );
    assert!(rows[0].contains("|      3 |"), "{plan}");
}

//! `cargo xtask reproduce` as a user runs it, on a grid of one short run over the embedded model and data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GRID: &str = r#"
title = "t"
about = "a"
model = "mini"
data = "mini"
seeds = [0]
[common]
epochs = 1
batch_size = 64
accumulate = 1
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
    let digest = serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["digest"].clone();
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

//! Killed at any moment, a run goes on and ends with the bits of one that was left alone.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{lowburn, mini, start, train, tree};

/// Dropout, shuffling, accumulation, an uneven last batch, evaluations in mid-epoch.
const OPTIONS: [(&str, &str); 6] = [
    ("--epochs", "2"),
    ("--train-rows", "150"),
    ("--accumulate", "2"),
    ("--eval-every", "4"),
    ("--lora-dropout", "0.1"),
    ("--target", "query,value,dense"),
];

/// What must be the same, byte for byte.
fn bits(output: &Path, kept: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = tree(&output.join(kept));
    let log = fs::read(output.join("log.jsonl")).expect("a log");
    files.push(("log.jsonl".to_owned(), log));
    files
}

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&b| b == b'\n').count())
}

/// Starts the run and kills it once its log has that many lines.
fn kill_after(line: &[String], output: &Path, steps: usize) {
    let mut child = start(line);
    let begin = Instant::now();
    while lines(&output.join("log.jsonl")) < steps {
        assert!(begin.elapsed() < Duration::from_secs(60), "no progress");
        if child.try_wait().expect("a child").is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("gone");
}

fn survives(options: &[(&str, &str)], kept: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    lowburn(train(&whole, options)).ok();
    let mut resume = options.to_vec();
    resume.push(("--resume", ""));
    let line = train(&killed, &resume);
    for steps in [1, 6, 13] {
        kill_after(&line, &killed, steps);
    }
    assert!(killed.join("state").is_dir());
    lowburn(&line).ok();
    assert!(bits(&whole, kept) == bits(&killed, kept));
    assert!(!killed.join("state").exists());
    assert_eq!(lines(&killed.join("log.jsonl")), 20);
    // Once more does nothing.
    let before = tree(&killed);
    lowburn(&line).ok();
    assert!(before == tree(&killed));
}

#[test]
fn lora_survives_being_killed() {
    survives(&OPTIONS, "adapter");
}

#[test]
fn full_fine_tuning_survives_being_killed() {
    let mut options = OPTIONS[..4].to_vec();
    options.extend([("--method", "full"), ("--lr", "1e-4")]);
    survives(&options, "model");
}

#[test]
fn a_base_in_halves_survives_being_killed() {
    let mut options = OPTIONS.to_vec();
    options.push(("--dtype", "f16"));
    survives(&options, "adapter");
}

#[test]
fn activations_may_be_computed_again_before_and_kept_after() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    lowburn(train(&whole, &OPTIONS)).ok();
    let mut options = OPTIONS.to_vec();
    options.push(("--resume", ""));
    let kept = train(&killed, &options);
    options.push(("--checkpoint-activations", ""));
    let again = train(&killed, &options);
    let recorded = || {
        let text = fs::read_to_string(killed.join("run.json")).expect("a record");
        common::json(&text)["config"]["checkpoint_activations"].clone()
    };
    kill_after(&again, &killed, 6);
    assert_eq!(recorded(), true);
    lowburn(&kept).ok();
    assert!(recorded().is_null());
    assert!(bits(&whole, "adapter") == bits(&killed, "adapter"));
}

#[test]
fn threads_do_not_change_the_bits() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = |threads: &str| {
        let output = dir.path().join(threads);
        let mut options = OPTIONS.to_vec();
        options.extend([("--threads", threads), ("--max-steps", "6")]);
        lowburn(train(&output, &options)).ok();
        bits(&output, "adapter")
    };
    assert!(run("1") == run("2"));
}

#[test]
fn a_changed_configuration_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let line = train(&output, &[]);
    lowburn(&line).ok();
    let before = tree(&output);
    let changed = [("--resume", ""), ("--lr", "1e-3"), ("--rank", "4")];
    lowburn(train(&output, &changed))
        .fails_with(&["lr was 0.002, is 0.001", "lora.rank was 8, is 4"]);
    // Another place for the same files is no change; another content is.
    let model = dir.path().join("model");
    common::copy_folder(&mini().join("model"), &model);
    let moved = common::text(&model);
    lowburn(train(&output, &[("--resume", ""), ("--model", &moved)])).ok();
    let config = fs::read_to_string(model.join("config.json")).expect("the file");
    let config = config.replace(
        "\"hidden_dropout_prob\": 0.1",
        "\"hidden_dropout_prob\": 0.2",
    );
    fs::write(model.join("config.json"), config).expect("written");
    let said = lowburn(train(&output, &[("--resume", ""), ("--model", &moved)]));
    said.fails_with(&["model file config.json has another content"]);
    assert!(before == tree(&output));
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let options = [
        ("--method", "full"),
        ("--lr", "1e30"),
        ("--warmup-ratio", "0"),
    ];
    let said = lowburn(train(&output, &options));
    said.fails_with(&[
        "at step ",
        "last good state is kept",
        "--overwrite and a smaller --lr",
    ]);
    assert!(output.join("run.json").exists());
    assert!(!output.join("model").exists());
}

#[test]
fn a_folder_belongs_to_one_process() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let line = |option| train(&output, &[("--epochs", "100"), (option, "")]);
    let mut first = start(&line("--resume"));
    let begin = Instant::now();
    while lines(&output.join("log.jsonl")) < 1 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no progress");
        std::thread::sleep(Duration::from_millis(1));
    }
    for option in ["--resume", "--overwrite"] {
        lowburn(line(option)).fails_with(&["in use by another process", "--output"]);
    }
    let running = first.try_wait().expect("a child").is_none();
    first.kill().expect("killed");
    first.wait().expect("gone");
    assert!(running && output.join(".lock").exists());
    // The lock went with its process, its file goes with the next run.
    lowburn(train(&output, &[("--overwrite", "")])).ok();
    assert!(!output.join(".lock").exists());
}

#[test]
fn overwrite_starts_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    lowburn(train(&output, &[("--max-steps", "2")])).ok();
    fs::write(output.join("notes.txt"), "mine").expect("written");
    let options = [
        ("--method", "head"),
        ("--max-steps", "3"),
        ("--overwrite", ""),
    ];
    lowburn(train(&output, &options)).ok();
    assert_eq!(lines(&output.join("log.jsonl")), 3);
    assert!(!output.join("adapter").exists());
    assert!(output.join("head").is_dir() && output.join("notes.txt").exists());
}

/// The events of TensorBoard's files in a run: of each its bytes, from records of length, sum, bytes, sum.
fn events(output: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(output.join("tensorboard"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut events = Vec::new();
    for file in files {
        let bytes = fs::read(file).expect("a file");
        let mut rest = bytes.as_slice();
        while let Some((length, more)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            events.push(more[4..4 + length].to_vec());
            rest = &more[4 + length + 4..];
        }
        assert!(rest.is_empty());
    }
    events
}

#[test]
fn tensorboard_gets_every_step_and_evaluation() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let holds = |event: &[u8], text: &str| {
        event
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let log = ("--log", "tensorboard");
    lowburn(train(&output, &[log])).ok();
    let found = events(&output);
    // The version of the format, eight steps, one evaluation.
    assert_eq!(found.len(), 10);
    assert!(holds(&found[0], "brain.Event:2"));
    for tag in ["train/loss", "train/lr", "train/grad_norm"] {
        assert!(holds(&found[1], tag), "{tag}");
    }
    assert!(holds(&found[9], "validation/accuracy"));
    // The run in the folder is replaced with its curves; the log does not depend on them.
    let before = fs::read(output.join("log.jsonl")).expect("a log");
    lowburn(train(&output, &[("--overwrite", "")])).ok();
    assert!(!output.join("tensorboard").exists());
    assert_eq!(fs::read(output.join("log.jsonl")).expect("a log"), before);
}

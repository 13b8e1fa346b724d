//! From a run's folder to its record in `results`.
//!
//! The record is the run's own `run.json` and `log.jsonl`, with one change: places on the machine become names, so
//! that a record means the same to everybody. Adapters and checkpoints stay in the work folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::runs::Run;
use crate::results::record_folder;
use crate::workspace;

/// How a new record compares with the one that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// There was none, or of another run.
    New,
    /// The same run with the same log, byte for byte.
    Same,
    /// The same run with another log.
    Different,
}

/// Whether the times in a record may be compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    /// The machine had nothing else to do.
    Alone,
    /// The machine did other work meanwhile.
    Shared,
    /// As the record of the same run says that is there already; alone if there is none.
    AsBefore,
}

/// Copies the record of a finished run to `results/records/<run>`.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn collect(run: &Run, data: &str, results: &Path, timing: Timing) -> Result<Agreement> {
    let target = record_folder(results, &run.name);
    let digest = run.digest.as_deref().unwrap_or_default();
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut record: Value = serde_json::from_str(&read(&run.folder.join("run.json"))?)
        .with_context(|| format!("{} is no record", run.folder.join("run.json").display()))?;
    without_places(&mut record, data);
    let shared = match timing {
        Timing::Alone => false,
        Timing::Shared => true,
        Timing::AsBefore => was_shared(&target, digest),
    };
    if let Some(fields) = record.as_object_mut().filter(|_| shared) {
        fields.insert("timing_valid".to_owned(), Value::Bool(false));
    }
    let log = read(&run.folder.join("log.jsonl"))?;
    let agreement = compare(&target, digest, &log);
    workspace::write(&target.join("log.jsonl"), &log)?;
    workspace::write(
        &target.join("run.json"),
        &(serde_json::to_string_pretty(&record)? + "\n"),
    )?;
    Ok(agreement)
}

/// The record that is there already, if it is of the same run.
fn earlier(target: &Path, digest: &str) -> Option<Value> {
    let text = fs::read_to_string(target.join("run.json")).ok()?;
    let record: Value = serde_json::from_str(&text).ok()?;
    (record["digest"] == digest).then_some(record)
}

fn was_shared(target: &Path, digest: &str) -> bool {
    earlier(target, digest).is_some_and(|record| record["timing_valid"] == false)
}

fn compare(target: &Path, digest: &str, log: &str) -> Agreement {
    if earlier(target, digest).is_none() {
        return Agreement::New;
    }
    match fs::read_to_string(target.join("log.jsonl")) {
        Ok(old) if old == log => Agreement::Same,
        _ => Agreement::Different,
    }
}

/// Folders become names; any other absolute path becomes its last part.
fn without_places(record: &mut Value, data: &str) {
    if let Some(config) = record.get_mut("config").and_then(Value::as_object_mut) {
        if let Some(name) = config.get("model_name").cloned() {
            config.insert("model".to_owned(), name);
        }
        config.insert("data_dir".to_owned(), Value::String(data.to_owned()));
    }
    shorten(record);
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if Path::new(text.as_str()).is_absolute() => {
            let last = Path::new(text.as_str())
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            *text = last.unwrap_or_default();
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_keeps_names_and_loses_places() {
        let mut record = json!({
            "config": {"model": "/a/b/mini-0123/model", "model_name": "mini", "data_dir": "/a/glue", "lr": 1e-3},
            "digests": {"model": {"config.json": "00"}, "other": ["/x/y"]}
        });
        without_places(&mut record, "mini");
        assert_eq!(record["config"]["model"], "mini");
        assert_eq!(record["config"]["data_dir"], "mini");
        assert_eq!(record["digests"]["other"][0], "y");
        assert_eq!(record["config"]["lr"], 1e-3);
    }

    #[test]
    fn the_same_run_is_told_from_another_by_digest_and_log() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path();
        assert_eq!(compare(folder, "d", "log"), Agreement::New);
        fs::write(folder.join("run.json"), json!({"digest": "d"}).to_string()).unwrap();
        fs::write(folder.join("log.jsonl"), "log").unwrap();
        assert_eq!(compare(folder, "d", "log"), Agreement::Same);
        assert_eq!(compare(folder, "d", "other"), Agreement::Different);
        assert_eq!(compare(folder, "e", "log"), Agreement::New);
    }
}

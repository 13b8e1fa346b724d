//! May this run have that output folder? Answered before anything is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lowburn_models::Method;
use serde_json::Value;

use crate::digest::{Identity, LOCAL_FIELDS, fields_of};
use crate::error::TrainError;
use crate::keep::kept_folder;
use crate::lock::Lock;
use crate::output::remove_folder;
use crate::plan::RunPlan;
use crate::record::{Digests, RunRecord, Status};

/// What to do with an output folder that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Refuse it.
    Fresh,
    /// Remove the run in it and start again.
    Overwrite,
    /// Go on with the run in it; start it when there is none yet.
    Resume,
}

/// What the folder means for the run.
#[derive(Debug)]
pub(crate) enum Claim {
    /// There is nothing: start.
    New,
    /// A run to be removed first, once everything else is found good.
    Replace,
    /// The same run, not done.
    Continue(Box<RunRecord>),
    /// The same run, done.
    Done(Box<RunRecord>),
}

/// The folder below the output that is for TensorBoard's files, where an observer writes them.
pub const TENSORBOARD: &str = "tensorboard";

/// All that a run leaves in its folder.
fn entries() -> impl Iterator<Item = &'static str> {
    let fixed = [
        RunRecord::FILE,
        "log.jsonl",
        "timing.jsonl",
        TENSORBOARD,
        "state",
    ];
    fixed.into_iter().chain(Method::ALL.map(kept_folder))
}

/// Looks at the folder; writes nothing.
pub(crate) fn claim(
    output: &Path,
    start: Start,
    plan: &RunPlan,
    identity: &Identity,
) -> Result<Claim, TrainError> {
    let refuse = |state: &str, way_out: &str| {
        Err(TrainError::Output {
            path: output.to_path_buf(),
            state: state.to_owned(),
            way_out: way_out.to_owned(),
        })
    };
    if !output.exists() {
        return Ok(Claim::New);
    }
    if !output.is_dir() {
        return refuse("is a file", "give another --output");
    }
    if start == Start::Fresh {
        return refuse(
            "exists",
            "go on with --resume, replace the run in it with --overwrite, or give another --output",
        );
    }
    let record = output.join(RunRecord::FILE);
    if !record.exists() {
        if only_leftovers(output)? {
            return Ok(Claim::Replace);
        }
        return refuse(
            "holds files but no run.json",
            "it is not a run of lowburn; give another --output",
        );
    }
    if start == Start::Overwrite {
        return Ok(Claim::Replace);
    }
    let record = Box::new(RunRecord::read(&record)?);
    same_run(output, &record, plan, identity)?;
    Ok(match record.status {
        Status::Running => Claim::Continue(record),
        Status::Finished => Claim::Done(record),
    })
}

/// Takes a folder that was not there, making it; fails when another run was faster.
pub(crate) fn make_and_take(output: &Path) -> Result<Lock, TrainError> {
    fs::create_dir_all(output).map_err(TrainError::io("create", output))?;
    let lock = Lock::take(output)?;
    if names(output)?.iter().all(|name| name == Lock::FILE) {
        return Ok(lock);
    }
    Err(TrainError::Output {
        path: output.to_path_buf(),
        state: "has come into being while this run was being prepared".to_owned(),
        way_out: "look what it holds, or give another --output".to_owned(),
    })
}

/// Removes the run in a folder, and nothing else that may be there.
pub(crate) fn clear(output: &Path) -> Result<(), TrainError> {
    for name in entries() {
        let path = output.join(name);
        if path.is_dir() {
            remove_folder(&path)?;
        } else if path.exists() {
            fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
        }
    }
    clear_leftovers(output)
}

/// Removes what a process killed while it wrote leaves beside the real files.
pub(crate) fn clear_leftovers(output: &Path) -> Result<(), TrainError> {
    for name in entries() {
        for suffix in [".tmp", ".old"] {
            let path = output.join(format!(".{name}{suffix}"));
            if path.is_dir() {
                remove_folder(&path)?;
            } else if path.exists() {
                fs::remove_file(&path).map_err(TrainError::io("remove", &path))?;
            }
        }
    }
    // The adapter's writer builds its folder under a name of its own.
    for name in names(output)? {
        if name.starts_with(".lowburn-") && name.ends_with(".part") {
            remove_folder(&output.join(name))?;
        }
    }
    Ok(())
}

/// Whether a folder without a record holds only what a start killed at once leaves.
fn only_leftovers(output: &Path) -> Result<bool, TrainError> {
    let early = [Lock::FILE, ".run.json.tmp", "log.jsonl", "timing.jsonl"];
    Ok(names(output)?
        .iter()
        .all(|name| early.contains(&name.as_str())))
}

/// The names in a folder.
fn names(folder: &Path) -> Result<Vec<String>, TrainError> {
    let failed = || TrainError::io("read", folder);
    let entries = fs::read_dir(folder).map_err(failed())?;
    entries
        .map(|entry| {
            let name = entry.map_err(failed())?.file_name();
            Ok(name.to_string_lossy().into_owned())
        })
        .collect()
}

/// The error that names every field that differs.
fn same_run(
    output: &Path,
    record: &RunRecord,
    plan: &RunPlan,
    identity: &Identity,
) -> Result<(), TrainError> {
    if record.digest == identity.digest {
        return Ok(());
    }
    let mut differences = config_differences(
        &fields_of(&record.config).unwrap_or_default(),
        &fields_of(plan.config()).unwrap_or_default(),
    );
    differences.extend(file_differences(&record.digests, &identity.digests));
    if differences.is_empty() {
        differences.push(format!(
            "it was started by lowburn {}, which computed runs in another way",
            record.version
        ));
    }
    Err(TrainError::Changed {
        path: output.to_path_buf(),
        differences: differences.join("; "),
    })
}

fn config_differences(old: &Value, new: &Value) -> Vec<String> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("", old, &mut before);
    flatten("", new, &mut after);
    for name in LOCAL_FIELDS {
        before.remove(name);
        after.remove(name);
    }
    let absent = || "absent".to_owned();
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let was = before.get(name).cloned().unwrap_or_else(absent);
            let is = after.get(name).cloned().unwrap_or_else(absent);
            format!("{name} was {was}, is {is}")
        })
        .collect()
}

/// Leaves of nested objects by dotted name.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&path, value, into);
            }
        }
        leaf => {
            into.insert(prefix.to_owned(), leaf.to_string());
        }
    }
}

fn file_differences(old: &Digests, new: &Digests) -> Vec<String> {
    let groups = [
        ("model", &old.model, &new.model),
        ("data", &old.data, &new.data),
        ("init-adapter", &old.init_adapter, &new.init_adapter),
    ];
    let mut differences = Vec::new();
    for (group, old, new) in groups {
        let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for name in names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name))
        {
            let what = match (old.get(name), new.get(name)) {
                (Some(_), None) => "is gone",
                (None, Some(_)) => "is new",
                _ => "has another content",
            };
            differences.push(format!("{group} file {name} {what}"));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_the_nested_field_and_both_values() {
        let old = json!({"lr": 1e-3, "lora": {"rank": 8, "alpha": 16.0}, "model": "a"});
        let new = json!({"lr": 1e-3, "lora": {"rank": 4, "alpha": 16.0}, "model": "b"});
        assert_eq!(config_differences(&old, &new), ["lora.rank was 8, is 4"]);
        let full = json!({"lr": 1e-3, "lora": null, "model": "a"});
        let text = config_differences(&old, &full).join("; ");
        assert!(text.contains("lora.rank was 8, is absent"), "{text}");
    }

    #[test]
    fn clearing_spares_what_is_not_ours() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["run.json", ".run.json.tmp", "log.jsonl", "notes.txt"] {
            fs::write(dir.path().join(name), "x").expect("written");
        }
        fs::create_dir_all(dir.path().join("adapter/deep")).expect("made");
        fs::create_dir(dir.path().join(".adapter.old")).expect("made");
        fs::create_dir(dir.path().join(".lowburn-x1.part")).expect("made");
        clear(dir.path()).expect("cleared");
        let left: Vec<_> = fs::read_dir(dir.path()).expect("there").collect();
        assert_eq!(left.len(), 1);
        assert!(dir.path().join("notes.txt").exists());
    }
}

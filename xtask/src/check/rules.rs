//! Rules of this project that no compiler knows, each as a function from the checkout to a verdict.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The crate without code that settles the features of outside crates; all may use it, and it may use all of those.
const FEATURES: &str = "workspace-hack";

/// Which crates of the workspace a crate may use. Arrows go downwards only: an adapter knows no model, a model knows no
/// task, the data knows neither, and nothing below the command line knows the command line.
const MAY_USE: [(&str, &[&str]); 9] = [
    (FEATURES, &[]),
    ("lowburn-kernels", &[]),
    ("lowburn-lora", &["lowburn-kernels"]),
    ("lowburn-models", &["lowburn-kernels", "lowburn-lora"]),
    ("lowburn-glue", &[]),
    ("lowburn-hub", &[]),
    (
        "lowburn-trainer",
        &[
            "lowburn-kernels",
            "lowburn-lora",
            "lowburn-models",
            "lowburn-glue",
        ],
    ),
    (
        "lowburn",
        &[
            "lowburn-lora",
            "lowburn-models",
            "lowburn-glue",
            "lowburn-trainer",
            "lowburn-hub",
        ],
    ),
    (
        "xtask",
        &[
            "lowburn",
            "lowburn-kernels",
            "lowburn-lora",
            "lowburn-models",
            "lowburn-glue",
            "lowburn-trainer",
            "lowburn-hub",
        ],
    ),
];

/// Outside crates that only some may use, and who.
const ONLY_IN: [(&str, &[&str]); 5] = [
    (
        "burn",
        &[
            "lowburn-kernels",
            "lowburn-lora",
            "lowburn-models",
            "lowburn-trainer",
            "lowburn",
            "xtask", // Burn's own LoRA, to be timed beside ours
        ],
    ),
    ("clap", &["lowburn", "xtask"]),
    ("anyhow", &["lowburn", "xtask"]),
    ("indicatif", &["lowburn", "xtask"]),
    ("ureq", &["lowburn-hub"]),
];

/// Signs of unfinished work and of tests that do not run, in two halves each so that this file passes.
const UNFINISHED: [(&str, &str); 5] = [
    ("to", "do!("),
    ("unimple", "mented!("),
    ("db", "g!("),
    ("#[igno", "re"),
    ("FIX", "ME"),
];

/// Lines of a file without its tests, beyond which it is mentioned.
const LONG: usize = 400;

/// The crates use only what stands below them.
pub(crate) fn dependencies(root: &Path) -> Result<()> {
    for manifest in manifests(root)? {
        let text = read(&manifest)?;
        let table: toml::Table = text
            .parse()
            .with_context(|| format!("{} is no TOML", manifest.display()))?;
        let name = table["package"]["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            bail!(
                "{}: the crate {name} is new; say in xtask/src/check/rules.rs what it may use",
                manifest.display()
            );
        };
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(used) = table.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for used in used.keys() {
                let inside = used != FEATURES && MAY_USE.iter().any(|(known, _)| known == used);
                if inside && !allowed.contains(&used.as_str()) {
                    bail!("{name} must not use {used} (in {kind})");
                }
                if let Some((_, users)) = ONLY_IN.iter().find(|(known, _)| known == used)
                    && !users.contains(&name)
                    && name != FEATURES
                {
                    bail!(
                        "{name} must not use {used} (in {kind}); only {} may",
                        users.join(", ")
                    );
                }
            }
        }
    }
    Ok(())
}

/// Every source file begins with a `//!` header.
pub(crate) fn headers(root: &Path) -> Result<()> {
    for path in sources(root)? {
        if !read(&path)?.starts_with("//!") {
            bail!(
                "{} does not begin with a //! header that says what it is for",
                shown(root, &path)
            );
        }
    }
    Ok(())
}

/// No `pub use module::*` at a crate's root: what a crate offers can be read there.
pub(crate) fn re_exports(root: &Path) -> Result<()> {
    for path in sources(root)?
        .iter()
        .filter(|path| path.ends_with("src/lib.rs"))
    {
        for line in read(path)?.lines() {
            if line.trim_start().starts_with("pub use ") && line.contains("::*") {
                bail!(
                    "{}: `{}` hides what the crate offers; name it",
                    shown(root, path),
                    line.trim()
                );
            }
        }
    }
    Ok(())
}

/// No signs of unfinished work, no test that is switched off.
pub(crate) fn unfinished(root: &Path) -> Result<()> {
    for path in sources(root)? {
        for (number, line) in read(&path)?.lines().enumerate() {
            if let Some((a, b)) = UNFINISHED
                .iter()
                .find(|(a, b)| line.contains(&format!("{a}{b}")))
            {
                bail!(
                    "{}:{}: `{a}{b}` is left over",
                    shown(root, &path),
                    number + 1
                );
            }
        }
    }
    Ok(())
}

/// No record under `results` holds an absolute path.
pub(crate) fn records(root: &Path) -> Result<()> {
    for path in files(&root.join("results"), "json")? {
        let value: Value = serde_json::from_str(&read(&path)?)
            .with_context(|| format!("{} is no JSON", shown(root, &path)))?;
        if let Some(place) = absolute(&value) {
            bail!("{} names a place on a machine: {place}", shown(root, &path));
        }
    }
    Ok(())
}

fn absolute(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => {
            let drive = text
                .get(1..3)
                .is_some_and(|part| part == ":\\" || part == ":/");
            (text.starts_with('/') || drive).then_some(text)
        }
        Value::Array(items) => items.iter().find_map(absolute),
        Value::Object(fields) => fields.values().find_map(absolute),
        _ => None,
    }
}

/// Files that may be worth splitting.
pub(crate) fn long_files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in sources(root)? {
        let text = read(&path)?;
        let lines = text
            .lines()
            .position(|line| line == "#[cfg(test)]")
            .unwrap_or(text.lines().count());
        if lines > LONG {
            found.push(format!(
                "{} has {lines} lines without its tests",
                shown(root, &path)
            ));
        }
    }
    Ok(found)
}

fn manifests(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![root.join("xtask").join("Cargo.toml")];
    for entry in fs::read_dir(root.join("crates")).context("cannot read the folder crates")? {
        found.push(entry?.path().join("Cargo.toml"));
    }
    found.sort();
    Ok(found)
}

/// All Rust files of the workspace's own crates.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files(&root.join("crates"), "rs")?;
    found.extend(files(&root.join("xtask"), "rs")?);
    Ok(found)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn this_checkout_keeps_the_rules() {
        let root = workspace::root();
        dependencies(&root).unwrap();
        headers(&root).unwrap();
        re_exports(&root).unwrap();
        unfinished(&root).unwrap();
        records(&root).unwrap();
    }

    /// A checkout with one crate.
    fn checkout(name: &str, dependencies: &str, source: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["crates/one/src", "xtask/src", "results/g"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let manifest = format!("[package]\nname = \"{name}\"\n[dependencies]\n{dependencies}\n");
        fs::write(root.path().join("crates/one/Cargo.toml"), manifest).unwrap();
        fs::write(
            root.path().join("xtask/Cargo.toml"),
            "[package]\nname = \"xtask\"\n",
        )
        .unwrap();
        fs::write(root.path().join("crates/one/src/lib.rs"), source).unwrap();
        root
    }

    #[test]
    fn an_arrow_that_points_upwards_is_found() {
        let wrong = [
            (
                "lowburn-lora",
                "lowburn-models.workspace = true",
                "must not use lowburn-models",
            ),
            ("lowburn-glue", "burn = \"1\"", "must not use burn"),
            ("lowburn-trainer", "clap = \"4\"", "must not use clap"),
            ("lowburn-new", "", "is new"),
        ];
        for (name, uses, expected) in wrong {
            let root = checkout(name, uses, "");
            let message = dependencies(root.path()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        dependencies(checkout("lowburn-models", "lowburn-lora = \"1\"", "").path()).unwrap();
    }

    #[test]
    fn sources_that_break_a_rule_are_found() {
        let root = checkout("lowburn", "", "pub use a::*;\n");
        assert!(headers(root.path()).is_err());
        assert!(re_exports(root.path()).is_err());
        for (a, b) in UNFINISHED {
            let root = checkout("lowburn", "", &format!("//! x\n// {a}{b}\n"));
            let message = unfinished(root.path()).unwrap_err().to_string();
            assert!(message.contains("lib.rs:2"), "{message}");
        }
    }

    #[test]
    fn a_record_with_a_place_is_found() {
        for (place, bad) in [
            ("/srv/models", true),
            ("C:\\models", true),
            ("mini", false),
            ("a/b", false),
        ] {
            let root = checkout("lowburn", "", "");
            let record = serde_json::json!({"config": {"model": [place]}});
            fs::write(root.path().join("results/g/run.json"), record.to_string()).unwrap();
            assert_eq!(records(root.path()).is_err(), bad, "{place}");
        }
    }
}

//! Running the binary and looking at what it says and leaves.

#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Asserts success and gives standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Asserts exit code 1 and one `error:` line that holds all of `parts`.
    #[track_caller]
    pub fn fails_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        let errors: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        assert_eq!(self.stderr.lines().last(), Some(errors[0]), "{self:#?}");
        assert!(!errors[0].contains("internal failure"), "{self:#?}");
        for part in parts {
            assert!(errors[0].contains(part), "no {part:?} in {self:#?}");
        }
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowburn"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a command line to its end.
pub fn lowburn<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Said {
    let mut command = binary();
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let output = command.output().expect("the binary starts");
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// Starts a command line and lets it run.
pub fn start(arguments: &[String]) -> Child {
    binary()
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

/// The small assets of the repository.
pub fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini")
}

pub fn mini_model() -> String {
    text(&mini().join("model"))
}

pub fn mini_data() -> String {
    text(&mini().join("glue"))
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A short training command line on the mini assets; `changes` replace or add options, an
/// option with the value `-` is left out.
pub fn train(output: &Path, changes: &[(&str, &str)]) -> Vec<String> {
    let (model, data, output) = (mini_model(), mini_data(), text(output));
    let mut options = vec![
        ("--model", model.as_str()),
        ("--task", "rte"),
        ("--data-dir", data.as_str()),
        ("--method", "lora"),
        ("--epochs", "1"),
        ("--batch-size", "8"),
        ("--lr", "2e-3"),
        ("--weight-decay", "0.1"),
        ("--warmup-ratio", "0.1"),
        ("--max-length", "64"),
        ("--seed", "3"),
        ("--train-rows", "64"),
        ("--threads", "1"),
        ("--output", output.as_str()),
    ];
    for change in changes {
        match options.iter_mut().find(|option| option.0 == change.0) {
            Some(option) => option.1 = change.1,
            None => options.push(*change),
        }
    }
    let mut line = vec!["train".to_owned()];
    for (name, value) in options {
        if value == "-" {
            continue;
        }
        line.push(name.to_owned());
        if !value.is_empty() {
            line.push(value.to_owned());
        }
    }
    line
}

/// Every file below a folder with its bytes, sorted.
pub fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = text(path.strip_prefix(folder).expect("below"));
                files.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    files.sort();
    files
}

/// Copies the files of a folder, not those below.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

//! The files that make up a tokenizer, and which of them it is built from.
//!
//! All of them are read at once and kept as bytes: they are written back as they came, and their digests tell
//! one tokenizer from another. `tokenizer.json` says everything and wins; the older files come after it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::GlueError;
use crate::spm::{Beside, check_length, from_spm};
use crate::vocabulary::{BROKEN, built, from_vocab};

/// Files that make up a tokenizer, where present.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A model's folder and the tokenizer files in it.
pub(crate) struct Folder {
    dir: PathBuf,
    /// Name and content of each file.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
}

impl Folder {
    /// Reads what there is.
    pub(crate) fn read(dir: &Path) -> Result<Self, GlueError> {
        let mut files = Vec::new();
        for name in FILES {
            let path = dir.join(name);
            if name == "spm.model"
                && let Ok(metadata) = path.metadata()
                && let Err(problem) = check_length(metadata.len())
            {
                return Err(GlueError::Tokenizer {
                    path,
                    problem,
                    way_out: BROKEN,
                });
            }
            match fs::read(&path) {
                Ok(bytes) => files.push((name, bytes)),
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(GlueError::Io { path, source }),
            }
        }
        let dir = dir.to_owned();
        Ok(Self { dir, files })
    }

    /// A folder of one file that is nowhere on disk.
    pub(crate) fn with(name: &'static str, bytes: &[u8]) -> Self {
        Self {
            dir: PathBuf::new(),
            files: vec![(name, bytes.to_owned())],
        }
    }

    fn file(&self, name: &str) -> Option<&[u8]> {
        let found = self.files.iter().find(|(n, _)| *n == name);
        found.map(|(_, bytes)| bytes.as_slice())
    }

    /// An optional JSON file; `Null` where it is not there.
    pub(crate) fn json(&self, name: &str) -> Result<Value, GlueError> {
        let Some(bytes) = self.file(name) else {
            return Ok(Value::Null);
        };
        serde_json::from_slice(bytes).map_err(|e| GlueError::Tokenizer {
            path: self.dir.join(name),
            problem: format!("not JSON: {e}"),
            way_out: BROKEN,
        })
    }

    /// The tokenizer and the file that it comes from. `config` is `tokenizer_config.json`, `names`
    /// `special_tokens_map.json`.
    pub(crate) fn build(
        &self,
        config: &Value,
        names: &Value,
    ) -> Result<(PathBuf, tokenizers::Tokenizer), GlueError> {
        let dir = self.dir.as_path();
        if let Some(bytes) = self.file("tokenizer.json") {
            let path = dir.join("tokenizer.json");
            let inner = built(&path, || tokenizers::Tokenizer::from_bytes(bytes))?;
            return Ok((path, inner));
        }
        let (vocab, merges) = (self.file("vocab.json"), self.file("merges.txt"));
        if let (Some(vocab), Some(merges)) = (vocab, merges) {
            let prefix_space = config["add_prefix_space"].as_bool().unwrap_or(false);
            let inner = from_vocab(dir, vocab, merges, prefix_space)?;
            return Ok((dir.join("vocab.json"), inner));
        }
        if let Some(bytes) = self.file("spm.model") {
            let beside = Beside {
                config,
                names,
                added: &self.json("added_tokens.json")?,
            };
            return Ok((dir.join("spm.model"), from_spm(dir, bytes, &beside)?));
        }
        Err(GlueError::NoTokenizer {
            dir: dir.to_owned(),
            hint: hint(dir, vocab, merges),
        })
    }
}

fn hint(dir: &Path, vocab: Option<&[u8]>, merges: Option<&[u8]>) -> String {
    match (vocab, merges) {
        (Some(_), _) => "; merges.txt is missing".to_owned(),
        (_, Some(_)) => "; vocab.json is missing".to_owned(),
        _ if !dir.is_dir() => "; there is no such folder".to_owned(),
        _ => String::new(),
    }
}

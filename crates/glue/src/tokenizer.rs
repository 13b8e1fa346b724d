//! Token ids equal to those of Python's `transformers`.
//!
//! A model's folder holds its tokenizer either as `tokenizer.json`, which says everything, or in older files that
//! leave the recipe to the reader: `vocab.json` and `merges.txt` are RoBERTa's byte-level BPE, `spm.model` is
//! DeBERTa-v2's SentencePiece unigram model. Special tokens are never assumed by number: they are the file's.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{
    PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use crate::digest::sha256_of;
use crate::guard::guard;
use crate::tokenizer_files::Folder;
use crate::vocabulary::{BROKEN, built};
use crate::{Dataset, Encoding, GlueError};

/// A tokenizer with its files. The file's own truncation and padding are switched off.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    source: PathBuf,
    pad_id: u32,
    max_id: u32,
    /// Which end of a text is cut.
    truncation: TruncationDirection,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, or else `vocab.json` and `merges.txt` (RoBERTa's recipe, honouring
    /// `add_prefix_space` of `tokenizer_config.json`), or else `spm.model` (DeBERTa-v2's, honouring
    /// `do_lower_case`, `split_by_punct`, special and added tokens of the JSON files beside it).
    ///
    /// # Errors
    /// When the folder has none of these, or a file cannot be read or understood, or asks for something else
    /// than these recipes.
    pub fn from_dir(dir: &Path) -> Result<Self, GlueError> {
        Self::of(Folder::read(dir)?)
    }

    /// The tokenizer of a folder that holds nothing but an `spm.model` with this content; for fuzzing.
    #[doc(hidden)]
    pub fn from_spm(bytes: &[u8]) -> Result<Self, GlueError> {
        Self::of(Folder::with("spm.model", bytes))
    }

    fn of(folder: Folder) -> Result<Self, GlueError> {
        let config = folder.json("tokenizer_config.json")?;
        let names = folder.json("special_tokens_map.json")?;
        let (source, inner) = folder.build(&config, &names)?;
        Self::new(source, inner, [&config, &names], folder.files)
    }

    fn new(
        source: PathBuf,
        mut inner: tokenizers::Tokenizer,
        configs: [&Value; 2],
        files: Vec<(&'static str, Vec<u8>)>,
    ) -> Result<Self, GlueError> {
        let own_pad = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None);
        built(&source, || inner.with_truncation(None).map(|_| ()))?;
        if built(&source, || inner.encode_fast("", true))?.is_empty() {
            return Err(GlueError::Tokenizer {
                path: source,
                problem: "it adds no special tokens, so that an empty text has no tokens at all"
                    .to_owned(),
                way_out: "give it the post_processor of the model (<s> and </s> for RoBERTa), or save \
                          it anew with `save_pretrained` of transformers",
            });
        }
        let named = configs.into_iter().filter_map(|config| {
            let token = &config["pad_token"];
            token.as_str().or_else(|| token["content"].as_str())
        });
        let pad_id = named
            .chain(["<pad>", "[PAD]"])
            .find_map(|token| inner.token_to_id(token))
            .or(own_pad)
            .unwrap_or(0);
        let truncation = truncation(configs[0], &source)?;
        let max_id = inner.get_vocab(true).into_values().max();
        let problem = match max_id {
            None => "its vocabulary is empty".to_owned(),
            Some(id) if id > i32::MAX as u32 => format!("token id {id} is not below 2^31"),
            Some(max_id) => {
                return Ok(Self {
                    inner,
                    source,
                    pad_id,
                    max_id,
                    truncation,
                    files,
                });
            }
        };
        Err(GlueError::Tokenizer {
            path: source,
            problem,
            way_out: BROKEN,
        })
    }

    /// The id of the padding token: the one named in `tokenizer_config.json` or `special_tokens_map.json`,
    /// else `<pad>` or `[PAD]`, else the one of the file's own padding, else 0. Padding is masked, so the
    /// id matters only where a model derives positions from it; take the model's own where it has one.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The highest token id, added tokens included. The model's embedding must be longer.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// The file that the tokenizer was read from (`vocab.json` for the pair).
    pub fn path(&self) -> &Path {
        &self.source
    }

    /// Name and sha256 of every tokenizer file of the folder.
    pub fn digests(&self) -> Vec<(&'static str, String)> {
        self.files
            .iter()
            .map(|(name, bytes)| (*name, sha256_of([bytes.as_slice()])))
            .collect()
    }

    /// Writes the tokenizer's files into a folder that exists, byte for byte as they were read.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), GlueError> {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(|source| GlueError::Io { path, source })?;
        }
        Ok(())
    }

    /// The ids of a text or pair with special tokens, cut to `max_length` tokens: from the end, and of
    /// a pair the longer text first (`truncation="longest_first"`). An empty second text is a text, as in
    /// the batches of transformers.
    ///
    /// # Errors
    /// When `max_length` leaves no room for text, or the tokenizer has no token for a part of the text.
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
    ) -> Result<Encoding, GlueError> {
        self.check_max_length(pair.is_some(), max_length)?;
        self.encode_checked(text, pair, max_length)
    }

    /// The ids of all rows in their order, computed on all threads of the current rayon pool.
    ///
    /// # Errors
    /// As for [`Tokenizer::encode`]; of several bad rows the first is named.
    pub fn encode_dataset(
        &self,
        dataset: &Dataset,
        max_length: usize,
    ) -> Result<Vec<Encoding>, GlueError> {
        self.check_max_length(dataset.task.columns().1.is_some(), max_length)?;
        let outcomes: Vec<Result<Encoding, GlueError>> = dataset
            .examples
            .par_iter()
            .enumerate()
            .map(|(number, example)| {
                let mut outcome =
                    self.encode_checked(&example.text, example.text_pair.as_deref(), max_length);
                if let Err(GlueError::Encode { row, .. }) = &mut outcome {
                    *row = format!(
                        " (row {number}, counted from 0, of {})",
                        dataset.path.display()
                    );
                }
                outcome
            })
            .collect();
        outcomes.into_iter().collect()
    }

    fn check_max_length(&self, pair: bool, max_length: usize) -> Result<(), GlueError> {
        let special = self.special_tokens(pair);
        if max_length <= special {
            Err(GlueError::MaxLength {
                max_length,
                special,
            })
        } else {
            Ok(())
        }
    }

    fn special_tokens(&self, pair: bool) -> usize {
        self.inner
            .get_post_processor()
            .map_or(0, |processor| processor.added_tokens(pair))
    }

    fn encode_checked(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
    ) -> Result<Encoding, GlueError> {
        let failed = |problem: String| GlueError::Encode {
            tokenizer: self.source.clone(),
            text: text.chars().take(60).collect(),
            row: String::new(),
            problem,
        };
        let encoding = guard(|| self.encode_inner(text, pair, max_length))
            .map_err(&failed)?
            .map_err(|e| failed(e.to_string()))?;
        if encoding.len() > max_length {
            // A post-processor that repeats a text; no truncation that this crate knows of helps.
            return Err(failed(format!(
                "{} tokens after truncation to {max_length}",
                encoding.len()
            )));
        }
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
        })
    }

    /// The library truncates only by settings of the tokenizer itself, one length for all callers. So a
    /// row that fits is done at once, and one that does not goes through the same three steps by hand.
    fn encode_inner(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
    ) -> tokenizers::Result<tokenizers::Encoding> {
        let whole = match pair {
            Some(pair) => self.inner.encode_fast((text, pair), true)?,
            None => self.inner.encode_fast(text, true)?,
        };
        if whole.len() <= max_length {
            return Ok(whole);
        }
        let first = self.inner.encode_fast(text, false)?;
        let second = match pair {
            Some(pair) => {
                let mut second = self.inner.encode_fast(pair, false)?;
                second.set_type_ids(vec![1; second.len()]);
                Some(second)
            }
            None => None,
        };
        let params = TruncationParams {
            direction: self.truncation,
            max_length: max_length - self.special_tokens(pair.is_some()),
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (first, second) = truncate_encodings(first, second, &params)?;
        self.inner.post_process(first, second, true)
    }
}
/// `truncation_side` of `tokenizer_config.json`: which end of a row that is too long is cut.
fn truncation(config: &Value, source: &Path) -> Result<TruncationDirection, GlueError> {
    match &config["truncation_side"] {
        Value::Null => Ok(TruncationDirection::Right),
        Value::String(side) if side == "right" => Ok(TruncationDirection::Right),
        Value::String(side) if side == "left" => Ok(TruncationDirection::Left),
        other => Err(GlueError::Tokenizer {
            path: source.with_file_name("tokenizer_config.json"),
            problem: format!("truncation_side is {other}"),
            way_out: "give right or left",
        }),
    }
}

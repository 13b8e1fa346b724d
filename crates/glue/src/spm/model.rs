//! What an `spm.model` says: SentencePiece's `ModelProto`, read and checked.
//!
//! Field numbers and defaults are those of `sentencepiece_model.proto`. Fields that decide no id (how the
//! model was trained, its own test data, the map for decoding) are passed over; those that would change ids
//! in a way that DeBERTa-v2's tokenizer does not have are refused by name.

use std::collections::HashSet;

use super::charsmap;
use super::wire::{Value, fields};

/// Longest piece in bytes. SentencePiece trains up to 16 characters by default; a trie node per byte, freed
/// recursively, is what makes a limit necessary.
const LONGEST_PIECE: usize = 1024;

/// Most bytes in the texts of all pieces. The library's trie takes some 350 for each of them. DeBERTa-v2's 128,000
/// pieces have about 1 MB.
const MOST_TEXT: usize = 4 << 20;

/// Largest file. DeBERTa-v2's has 2.45 MB, and the largest vocabularies in use stay below 8 MB.
const LARGEST: u64 = 16 << 20;

/// Refuses a file by its length, so that it need not be read.
pub(crate) fn check_length(length: u64) -> Result<(), String> {
    if length > LARGEST {
        Err(format!(
            "{length} bytes, where a SentencePiece model has at most {LARGEST}"
        ))
    } else {
        Ok(())
    }
}

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Part of a text.
    Normal,
    /// Stands for what no piece covers; exactly one.
    Unknown,
    /// Never part of a text: `[CLS]`.
    Control,
    /// Taken whole wherever it stands in a text.
    UserDefined,
    /// Kept for its id. transformers treats it as part of a text, SentencePiece does not.
    Unused,
    /// A byte, `<0x41>`.
    Byte,
}

/// A piece; its id is its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// The text, with `▁` for a space.
    pub(super) text: String,
    /// The logarithm of its probability.
    pub(super) score: f32,
    /// What it is for.
    pub(super) kind: Kind,
}

/// A unigram model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpmModel {
    /// The pieces in the order of their ids.
    pub(super) pieces: Vec<Piece>,
    /// Place of the unknown piece.
    pub(super) unk_id: usize,
    /// The compiled character map, checked; empty where the model has none.
    pub(super) charsmap: Vec<u8>,
    /// Whether a space comes before the first word.
    pub(super) add_dummy_prefix: bool,
}

/// The scalars of `trainer_spec` and `normalizer_spec`, at their defaults until the file says otherwise.
struct Specs<'a> {
    model_type: u64,
    whitespace_as_suffix: bool,
    unk_id: u64,
    charsmap: &'a [u8],
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
}

impl SpmModel {
    /// Reads the bytes of an `spm.model`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        check_length(bytes.len() as u64)?;
        let mut pieces = Vec::new();
        let mut text = 0;
        let mut specs = Specs {
            model_type: 1,
            whitespace_as_suffix: false,
            unk_id: 0,
            charsmap: &[],
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        for field in fields(bytes) {
            match field.map_err(|e| format!("not a SentencePiece model: {e}"))? {
                (1, value) => {
                    let number = pieces.len();
                    let piece = message(value)
                        .and_then(Piece::parse)
                        .map_err(|e| format!("piece {number}: {e}"))?;
                    text += piece.text.len();
                    if text > MOST_TEXT {
                        return Err(format!(
                            "piece {number}: with it the pieces have {text} bytes, more than {MOST_TEXT}"
                        ));
                    }
                    pieces.push(piece);
                }
                (2, value) => message(value)
                    .and_then(|message| specs.read_trainer(message))
                    .map_err(|e| format!("trainer_spec: {e}"))?,
                (3, value) => message(value)
                    .and_then(|message| specs.read_normalizer(message))
                    .map_err(|e| format!("normalizer_spec: {e}"))?,
                _ => {}
            }
        }
        specs.refuse_what_changes_ids()?;
        let unk_id = check_pieces(&pieces, specs.unk_id)?;
        charsmap::check(specs.charsmap)
            .map_err(|e| format!("normalizer_spec.precompiled_charsmap: {e}"))?;
        Ok(Self {
            pieces,
            unk_id,
            charsmap: specs.charsmap.to_vec(),
            add_dummy_prefix: specs.add_dummy_prefix,
        })
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self {
            text: String::new(),
            score: 0.0,
            kind: Kind::Normal,
        };
        for field in fields(bytes) {
            match field? {
                (1, value) => {
                    let text = std::str::from_utf8(message(value)?)
                        .map_err(|e| format!("its text is not UTF-8: {e}"))?;
                    text.clone_into(&mut piece.text);
                }
                (2, Value::Fixed32(bytes)) => piece.score = f32::from_le_bytes(bytes),
                (2, _) => return Err("its score is not a float".to_owned()),
                (3, value) => {
                    piece.kind = match integer(value)? {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        kind => return Err(format!("type {kind} does not exist")),
                    };
                }
                _ => {}
            }
        }
        match piece.text.len() {
            0 => Err("its text is empty".to_owned()),
            length if length > LONGEST_PIECE => Err(format!(
                "its text has {length} bytes, more than {LONGEST_PIECE}"
            )),
            _ if !piece.score.is_finite() => {
                Err(format!("{:?} has the score {}", piece.text, piece.score))
            }
            _ => Ok(piece),
        }
    }
}

impl<'a> Specs<'a> {
    fn read_trainer(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        for field in fields(bytes) {
            let (number, value) = field?;
            match number {
                3 => self.model_type = integer(value)?,
                24 => self.whitespace_as_suffix = integer(value)? != 0,
                40 => self.unk_id = integer(value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        for field in fields(bytes) {
            let (number, value) = field?;
            match number {
                2 => self.charsmap = message(value)?,
                3 => self.add_dummy_prefix = integer(value)? != 0,
                4 => self.remove_extra_whitespaces = integer(value)? != 0,
                5 => self.escape_whitespaces = integer(value)? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn refuse_what_changes_ids(&self) -> Result<(), String> {
        let kind = match self.model_type {
            1 => None,
            2 => Some("BPE".to_owned()),
            3 => Some("WORD".to_owned()),
            4 => Some("CHAR".to_owned()),
            other => Some(other.to_string()),
        };
        if let Some(kind) = kind {
            return Err(format!(
                "trainer_spec.model_type is {kind}, and only UNIGRAM is read"
            ));
        }
        for (field, value, known) in [
            (
                "trainer_spec.treat_whitespace_as_suffix",
                self.whitespace_as_suffix,
                false,
            ),
            (
                "normalizer_spec.remove_extra_whitespaces",
                self.remove_extra_whitespaces,
                true,
            ),
            (
                "normalizer_spec.escape_whitespaces",
                self.escape_whitespaces,
                true,
            ),
        ] {
            if value != known {
                return Err(format!("{field} is {value}, and only {known} is read"));
            }
        }
        Ok(())
    }
}

/// Every piece once, and one unknown piece where `trainer_spec` says it is. Gives its place.
fn check_pieces(pieces: &[Piece], unk_id: u64) -> Result<usize, String> {
    if pieces.is_empty() {
        return Err("not a SentencePiece model: it has no pieces".to_owned());
    }
    let mut seen = HashSet::with_capacity(pieces.len());
    if let Some(twice) = pieces.iter().find(|piece| !seen.insert(&piece.text)) {
        return Err(format!("the piece {:?} is there twice", twice.text));
    }
    let unknown: Vec<usize> = (0..pieces.len())
        .filter(|&at| pieces[at].kind == Kind::Unknown)
        .collect();
    match unknown[..] {
        [at] if at as u64 == unk_id => Ok(at),
        [at] => Err(format!(
            "trainer_spec.unk_id is {unk_id}, but the unknown piece is {at}, {:?}",
            pieces[at].text
        )),
        _ => Err(format!(
            "{} pieces have the type UNKNOWN, where there must be one",
            unknown.len()
        )),
    }
}

fn message(value: Value<'_>) -> Result<&[u8], String> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        other => Err(format!("{other:?}, where text or a message belongs")),
    }
}

fn integer(value: Value<'_>) -> Result<u64, String> {
    match value {
        Value::Varint(value) => Ok(value),
        _ => Err("something else, where an integer belongs".to_owned()),
    }
}

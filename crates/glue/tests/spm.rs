//! `spm.model`: ids equal to those of transformers 4.57 (`scripts/reference/make_spm_fixtures.py`), what is refused, and what is saved.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lowburn_glue::{GlueError, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Deserialize)]
struct Reference {
    tokenizers: BTreeMap<String, Folder>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Folder {
    model: String,
    files: BTreeMap<String, String>,
    pad_id: u32,
    max_id: u32,
}

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    what: String,
    text: String,
    pair: Option<String>,
    max_length: usize,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// Ids of SentencePiece without special tokens, for single texts.
    sentencepiece: Option<Vec<u32>>,
    /// Why transformers differs from SentencePiece, where it does.
    differs: Option<String>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/spm")
        .join(name)
}

fn reference() -> Reference {
    serde_json::from_str(&fs::read_to_string(data("ids.json")).unwrap()).unwrap()
}

fn model(name: &str) -> Vec<u8> {
    fs::read(data(name).join("spm.model")).unwrap()
}

/// A folder with a model and files beside it.
fn folder<'a>(bytes: &[u8], files: impl IntoIterator<Item = (&'a str, &'a str)>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spm.model"), bytes).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn with_files<'a>(
    name: &str,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Tokenizer, GlueError> {
    Tokenizer::from_dir(folder(&model(name), files).path())
}

/// A piece as a model has it, of one of SentencePiece's types: 1 is normal, 4 user-defined, 5 unused.
fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let text = [&[0x0a][..], &varint(text.len()), text.as_bytes()].concat();
    let rest = [&[0x15][..], &score.to_le_bytes(), &[0x18, kind]].concat();
    let length = varint(text.len() + rest.len());
    [&[0x0a][..], &length, &text, &rest].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn refused(outcome: Result<Tokenizer, GlueError>) -> String {
    outcome
        .err()
        .expect("this tokenizer must be refused")
        .to_string()
}

#[test]
fn ids_equal_transformers_4_57() {
    let reference = reference();
    assert!(reference.cases.len() > 1000 && reference.tokenizers.len() == 8);
    for (name, expected) in &reference.tokenizers {
        let files = expected.files.iter();
        let files = files.map(|(name, text)| (name.as_str(), text.as_str()));
        let tokenizer = with_files(&expected.model, files).unwrap();
        assert_eq!(tokenizer.pad_id(), expected.pad_id, "{name}");
        assert_eq!(tokenizer.max_id(), expected.max_id, "{name}");
        for case in reference.cases.iter().filter(|c| c.tokenizer == *name) {
            let what = format!("{name}, {}: {:?} {:?}", case.what, case.text, case.pair);
            let ours = tokenizer
                .encode(&case.text, case.pair.as_deref(), case.max_length)
                .unwrap();
            assert_eq!(ours.ids, case.ids, "{what}");
            assert_eq!(ours.type_ids, case.type_ids, "{what}");
            if let Some(ids) = &case.sentencepiece {
                let same = ours.ids[1..ours.len() - 1] == ids[..];
                assert_eq!(same, case.differs.is_none(), "{what}: {:?}", case.differs);
            }
        }
    }
}

/// The list in `docs/formats.md` is complete: it has every reason that the reference script found, and no other.
#[test]
fn every_difference_from_sentencepiece_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, section) = docs
        .split_once("## Where transformers differs from SentencePiece")
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut documented: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|first| *first != "difference")
        .collect();
    documented.sort_unstable();
    let reference = reference();
    let mut found: Vec<&str> = reference
        .cases
        .iter()
        .filter_map(|case| case.differs.as_deref())
        .collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(documented, found);
}

#[test]
fn the_published_folder_has_mask_after_its_pieces() {
    let tokenizer = with_files("identity", []).unwrap();
    let pieces = tokenizer.max_id();
    let ids = tokenizer.encode("[MASK]", None, 8).unwrap().ids;
    assert_eq!(ids, [1, pieces, 2]);
    assert_eq!(tokenizer.encode("", Some(""), 8).unwrap().ids, [1, 2, 2]);
    assert!(tokenizer.path().ends_with("spm.model"));
}

#[test]
fn tokenizer_json_wins() {
    let other = data("../wordpiece/tokenizer.json");
    let other = fs::read_to_string(other).unwrap();
    let tokenizer = with_files("identity", [("tokenizer.json", other.as_str())]).unwrap();
    assert!(tokenizer.path().ends_with("tokenizer.json"));
    assert!(tokenizer.max_id() < 150);
}

#[test]
fn saved_files_are_the_same_bytes() {
    let config = "{\"do_lower_case\": false,\n \"vocab_type\": \"spm\"}";
    let tokenizer = with_files("byte_fallback", [("tokenizer_config.json", config)]).unwrap();
    let target = tempfile::tempdir().unwrap();
    tokenizer.save(target.path()).unwrap();
    let saved = |name: &str| fs::read(target.path().join(name)).unwrap();
    assert_eq!(saved("spm.model"), model("byte_fallback"));
    assert_eq!(saved("tokenizer_config.json"), config.as_bytes());
    let again = Tokenizer::from_dir(target.path()).unwrap();
    assert_eq!(again.digests(), tokenizer.digests());
}

#[test]
fn settings_of_other_tokenizers_are_refused_by_name() {
    let with = |file: &str, value: Value| {
        refused(with_files("identity", [(file, value.to_string().as_str())]))
    };
    let config = "tokenizer_config.json";
    for (value, message) in [
        (json!({"vocab_type": "gpt2"}), "vocab_type is \"gpt2\""),
        (
            json!({"tokenizer_class": "T5Tokenizer"}),
            "tokenizer_class is \"T5Tokenizer\"",
        ),
        (json!({"cls_token": "<s>"}), "cls_token is \"<s>\""),
        (json!({"sep_token": {"content": "</s>"}}), "sep_token is "),
        (json!({"sep_token": null}), "sep_token is null"),
        (json!({"do_lower_case": "yes"}), "do_lower_case is \"yes\""),
        (
            json!({"split_special_tokens": true}),
            "split_special_tokens is true",
        ),
        (json!({"pad_token": 3}), "pad_token: 3 is no token"),
        (
            json!({"mask_token": {"content": "[M]", "lstrip": 1}}),
            "mask_token: ",
        ),
        (
            json!({"additional_special_tokens": "x"}),
            "additional_special_tokens is \"x\"",
        ),
        (
            json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
            "\"x\" is no token id",
        ),
        (
            json!({"added_tokens_decoder": {"9": {"content": "[NEW]"}}}),
            "\"[NEW]\" has the id 9 there and 471",
        ),
        (json!({"added_tokens_decoder": []}), "[] is no JSON object"),
        (json!([1]), "[1] is no JSON object"),
    ] {
        let problem = with(config, value);
        assert!(
            problem.contains(config) && problem.contains(message),
            "{problem}"
        );
    }
    let problem = with("added_tokens.json", json!({"[MASK]": 7}));
    assert!(
        problem.contains("added_tokens.json") && problem.contains("\"[MASK]\" has the id 7 there"),
        "{problem}"
    );
    let problem = with("added_tokens.json", json!({"[MASK]": -1}));
    assert!(problem.contains("\"[MASK]\" has the id -1"), "{problem}");
}

/// Fields at the end of a file overrule those before them: a protocol buffer is written by appending.
#[test]
fn models_of_other_kinds_are_refused_by_name() {
    let with = |field: &[u8]| {
        let bytes = [model("identity").as_slice(), field].concat();
        Tokenizer::from_spm(&bytes)
    };
    assert!(with(&[]).is_ok());
    // trainer_spec is field 2 (0x12), normalizer_spec field 3 (0x1a); keys above 15 take two bytes.
    for (field, message) in [
        (&[0x12, 2, 0x18, 2][..], "trainer_spec.model_type is BPE"),
        (&[0x12, 2, 0x18, 3], "trainer_spec.model_type is WORD"),
        (&[0x12, 2, 0x18, 4], "trainer_spec.model_type is CHAR"),
        (&[0x12, 2, 0x18, 9], "trainer_spec.model_type is 9"),
        (
            &[0x12, 3, 0xc0, 0x01, 1],
            "trainer_spec.treat_whitespace_as_suffix is true",
        ),
        (
            &[0x12, 3, 0xc0, 0x02, 5],
            "trainer_spec.unk_id is 5, but the unknown piece is 3, \"[UNK]\"",
        ),
        (
            &[0x1a, 2, 0x20, 0],
            "normalizer_spec.remove_extra_whitespaces is false",
        ),
        (
            &[0x1a, 2, 0x28, 0],
            "normalizer_spec.escape_whitespaces is false",
        ),
        (
            &[0x1a, 3, 0x12, 1, 7],
            "normalizer_spec.precompiled_charsmap: it is cut off",
        ),
        (&[0x1a, 1, 0x12], "normalizer_spec: it ends within a number"),
        (&[0x0a, 3, 0x0a, 1, b'a'], "the piece \"a\" is there twice"),
        (&[0x0a, 0], "piece 471: its text is empty"),
        (
            &[0x0a, 3, 0x0a, 1, 0xff],
            "piece 471: its text is not UTF-8",
        ),
        (
            &[0x0a, 5, 0x0a, 1, 0x07, 0x18, 7],
            "piece 471: type 7 does not exist",
        ),
        (
            &[0x0a, 5, 0x0a, 1, 0x07, 0x18, 2],
            "2 pieces have the type UNKNOWN",
        ),
        (
            &[0x0a, 8, 0x0a, 1, 0x07, 0x15, 0, 0, 0xc0, 0x7f],
            "has the score NaN",
        ),
        (&[0x0a, 200], "ends within a number"),
    ] {
        let problem = refused(with(field));
        assert!(
            problem.contains("spm.model") && problem.contains(message),
            "{problem}"
        );
    }
    let long = [&[0x0a, 0x84, 0x08, 0x0a, 0x81, 0x08][..], &[b'x'; 1025]].concat();
    let problem = refused(with(&long));
    assert!(problem.contains("its text has 1025 bytes"), "{problem}");
    assert!(refused(Tokenizer::from_spm(&[])).contains("it has no pieces"));
    let bare = [&[0x0a, 9, 0x0a, 5][..], b"[UNK]", &[0x18, 2]].concat();
    let problem = refused(Tokenizer::from_spm(&bare));
    assert!(problem.contains("it has no piece [CLS]"), "{problem}");
}

#[test]
fn models_that_would_fill_the_memory_are_refused() {
    let mut bytes = model("identity");
    for number in 0..4097 {
        bytes.extend(piece(&format!("{number:01024}"), -1.0, 1));
    }
    let problem = refused(Tokenizer::from_spm(&bytes));
    let shown = "bytes, more than 4194304";
    assert!(
        problem.contains("spm.model") && problem.contains(shown),
        "{problem}"
    );
    // A length that no memory is asked for.
    let dir = folder(&[], []);
    let file = fs::File::create(dir.path().join("spm.model")).unwrap();
    file.set_len(1 << 30).unwrap();
    let problem = refused(Tokenizer::from_dir(dir.path()));
    let shown = "1073741824 bytes, where a SentencePiece model has at most 16777216";
    assert!(
        problem.contains("spm.model") && problem.contains(shown),
        "{problem}"
    );
}

/// As in transformers. The comments have the pieces of SentencePiece, which never uses an unused one, and goes on
/// behind a user-defined one without a further space.
#[test]
fn unused_and_user_defined_pieces() {
    let ids = |piece: Vec<u8>, text: &str| {
        let bytes = [model("identity"), piece].concat();
        let tokenizer = Tokenizer::from_spm(&bytes).unwrap();
        tokenizer.encode(text, None, 64).unwrap().ids
    };
    let unused = || piece("\u{2581}theharbour", -1.0, 5);
    // 5, 417, 31, 17
    assert_eq!(ids(unused(), "theharbour"), [1, 471, 2]);
    let user_defined = || piece("&&", 0.0, 4);
    // 5, 471, 417, 31, 17
    assert_eq!(
        ids(user_defined(), "the&&harbour"),
        [1, 5, 471, 106, 31, 17, 2]
    );
    // 5, 4, 471, 106, 31, 17
    assert_eq!(
        ids(user_defined(), "the && harbour"),
        [1, 5, 471, 106, 31, 17, 2]
    );
}

/// As in SentencePiece. In transformers there is a space all the same.
#[test]
fn without_the_dummy_prefix_the_first_word_has_no_space() {
    let bytes = [model("identity").as_slice(), &[0x1a, 2, 0x18, 0]].concat();
    let without = Tokenizer::from_spm(&bytes).unwrap();
    let with = with_files("identity", []).unwrap();
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, None, 64).unwrap().ids;
    let (bare, spaced) = (ids(&without, "the harbour"), ids(&with, "the harbour"));
    assert_eq!(bare, [1, 100, 18, 106, 31, 17, 2]);
    assert_eq!(spaced, [1, 5, 106, 31, 17, 2]);
    // From the second word on nothing changes.
    let harbour = ids(&with, "harbour");
    assert!(bare.ends_with(&harbour[1..]) && spaced.ends_with(&harbour[1..]));
}

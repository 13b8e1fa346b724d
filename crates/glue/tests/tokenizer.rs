//! Token ids against transformers (`tests/data/make_references.py`), and tokenizer files that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use lowburn_glue::{Dataset, GlueError, Task, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    text: String,
    pair: Option<String>,
    max_length: usize,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn error(outcome: Result<Tokenizer, GlueError>) -> String {
    outcome
        .err()
        .expect("this tokenizer must be refused")
        .to_string()
}

#[test]
fn ids_equal_transformers() {
    let cases: Vec<Case> =
        serde_json::from_str(&fs::read_to_string(data("tokens.json")).unwrap()).unwrap();
    assert!(cases.len() >= 180);
    for name in ["wordpiece", "bpe", "bpe_prefix"] {
        let tokenizer = Tokenizer::from_dir(&data(name)).unwrap();
        for case in cases.iter().filter(|case| case.tokenizer == name) {
            let ours = tokenizer
                .encode(&case.text, case.pair.as_deref(), case.max_length)
                .unwrap();
            let what = format!(
                "{name}: {:?} {:?} at {}",
                case.text, case.pair, case.max_length
            );
            assert_eq!(ours.ids, case.ids, "{what}");
            assert_eq!(ours.type_ids, case.type_ids, "{what}");
        }
    }
}

#[test]
fn special_ids_are_the_files_own() {
    let wordpiece = Tokenizer::from_dir(&data("wordpiece")).unwrap();
    assert_eq!(wordpiece.pad_id(), 0);
    assert!(wordpiece.max_id() >= 100 && wordpiece.max_id() < 150);
    let bpe = Tokenizer::from_dir(&data("bpe")).unwrap();
    assert_eq!((bpe.pad_id(), bpe.max_id()), (1, 400));
}

#[test]
fn pad_token_named_in_a_config_wins() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        data("wordpiece/tokenizer.json"),
        dir.path().join("tokenizer.json"),
    )
    .unwrap();
    fs::write(
        dir.path().join("special_tokens_map.json"),
        r#"{"pad_token": {"content": "[MASK]"}}"#,
    )
    .unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().pad_id(), 4);
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"pad_token": "[SEP]"}"#,
    )
    .unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().pad_id(), 3);
}

/// Ids by transformers 5.23 with `truncation_side="left"`.
#[test]
fn the_side_that_is_cut_is_the_files_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = "tokenizer.json";
    fs::copy(data("wordpiece").join(file), folder.path().join(file)).unwrap();
    let config = folder.path().join("tokenizer_config.json");
    fs::write(&config, r#"{"truncation_side": "left"}"#).unwrap();
    let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
    let (first, second) = ("the old lantern was found", "in the red house by her uncle");
    let one = tokenizer
        .encode(&format!("{first} {second}"), None, 8)
        .unwrap();
    assert_eq!(one.ids, [2, 101, 41, 27, 35, 48, 57, 3]);
    let two = tokenizer.encode(first, Some(second), 11).unwrap();
    assert_eq!(two.ids, [2, 13, 36, 47, 54, 3, 27, 35, 48, 57, 3]);
    fs::write(&config, r#"{"truncation_side": "middle"}"#).unwrap();
    let message = error(Tokenizer::from_dir(folder.path()));
    assert!(
        message.contains("truncation_side") && message.contains("middle"),
        "{message}"
    );
}

#[test]
fn data_sets_are_encoded_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.tsv");
    let lines: String = (0..300)
        .map(|i| format!("{}\tthe dog\n", "a cat ".repeat(i % 7)))
        .collect();
    fs::write(&path, format!("sentence1\tsentence2\n{lines}")).unwrap();
    let dataset = Dataset::from_file(&path, Task::Rte).unwrap();
    let tokenizer = Tokenizer::from_dir(&data("wordpiece")).unwrap();
    let encodings = tokenizer.encode_dataset(&dataset, 12).unwrap();
    assert_eq!(encodings.len(), 300);
    for (example, encoding) in dataset.examples.iter().zip(&encodings) {
        assert_eq!(
            *encoding,
            tokenizer
                .encode(&example.text, example.text_pair.as_deref(), 12)
                .unwrap()
        );
        assert!(encoding.len() <= 12);
    }
}

#[test]
fn no_room_for_text_is_an_error() {
    let tokenizer = Tokenizer::from_dir(&data("bpe")).unwrap();
    for length in 0..=4 {
        let message = tokenizer
            .encode("a", Some("b"), length)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(&format!("maximum length {length} "))
                && message.contains("at least 5"),
            "{message}"
        );
    }
    assert_eq!(tokenizer.encode("a", Some("b"), 5).unwrap().len(), 5);
    assert!(tokenizer.encode("a", None, 2).is_err() && tokenizer.encode("a", None, 3).is_ok());
}

#[test]
fn saved_files_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::from_dir(&data("bpe_prefix")).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let names: Vec<&str> = tokenizer.digests().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["vocab.json", "merges.txt", "tokenizer_config.json"]);
    for name in names {
        assert_eq!(
            fs::read(dir.path().join(name)).unwrap(),
            fs::read(data("bpe_prefix").join(name)).unwrap()
        );
    }
    let again = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(again.digests(), tokenizer.digests());
    let missing = dir.path().join("missing");
    assert!(
        tokenizer
            .save(&missing)
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
}

#[test]
fn wrong_files_are_errors_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    assert!(error(Tokenizer::from_dir(dir.path())).contains("no tokenizer here"));
    assert!(error(Tokenizer::from_dir(&dir.path().join("none"))).contains("no such folder"));

    put("vocab.json", r#"{"<s>": 0, "</s>": 1, "a": 2}"#);
    assert!(error(Tokenizer::from_dir(dir.path())).contains("merges.txt is missing"));
    put("merges.txt", "#version: 0.2\na b c\n");
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(
        message.contains("merges.txt") && message.contains("line 2 is \"a b c\""),
        "{message}"
    );
    put("merges.txt", "#version: 0.2\na b\n");
    let message = error(Tokenizer::from_dir(dir.path()));
    assert!(
        message.contains("vocab.json") && message.contains("`b`"),
        "{message}"
    );
    put("merges.txt", "");
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().max_id(), 2);
    put("vocab.json", r#"{"<s>": 0}"#);
    assert!(error(Tokenizer::from_dir(dir.path())).contains("no token \"</s>\""));
    put("vocab.json", r#"{"<s>": -1}"#);
    assert!(error(Tokenizer::from_dir(dir.path())).contains("vocab.json"));
    put("vocab.json", r#"{"<s>": 0, "</s>": 4294967295}"#);
    assert!(error(Tokenizer::from_dir(dir.path())).contains("4294967295 is not below 2^31"));
    put("tokenizer_config.json", "{");
    assert!(error(Tokenizer::from_dir(dir.path())).contains("tokenizer_config.json"));

    put("tokenizer_config.json", "{}");
    for text in [
        "",
        "{}",
        "[]",
        "{\"model\": {\"type\": \"WordPiece\"}}",
        "\u{0}",
    ] {
        put("tokenizer.json", text);
        let message = error(Tokenizer::from_dir(dir.path()));
        assert!(
            message.contains("tokenizer.json") && message.contains("not a usable tokenizer"),
            "{message}"
        );
    }
    let good = fs::read(data("wordpiece/tokenizer.json")).unwrap();
    for length in (0..good.len() - 1).step_by(97) {
        fs::write(dir.path().join("tokenizer.json"), &good[..length]).unwrap();
        assert!(Tokenizer::from_dir(dir.path()).is_err(), "cut at {length}");
    }
}

#[test]
fn a_text_without_tokens_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(data("wordpiece/tokenizer.json")).unwrap();
    // The unknown token is not in the vocabulary: unknown words have no id.
    let text = text.replace("\"unk_token\": \"[UNK]\"", "\"unk_token\": \"[NONE]\"");
    fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert!(tokenizer.encode("the dog", None, 16).is_ok());
    let message = tokenizer
        .encode("the \u{65e5}", None, 16)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("tokenizer.json") && message.contains('\u{65e5}'),
        "{message}"
    );
}

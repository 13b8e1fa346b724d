//! Arbitrary and damaged bytes: an error or rows, never a panic, whatever the file says.

mod support;

use std::fs;
use std::sync::OnceLock;

use lowburn_glue::{Dataset, GlueError, Task, Tokenizer};
use proptest::prelude::*;
use support::{load, of_task};

/// PROPTEST_CASES asks for more; each case reads a file.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400)
}

fn spm(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/spm");
    fs::read(format!("{folder}/{name}/spm.model")).unwrap()
}

/// Builds a tokenizer of damaged bytes. One that is accepted never fails afterwards: it has an unknown piece for
/// what it does not know, and its character map was followed to all its ends.
fn spm_survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(tokenizer) = Tokenizer::from_spm(bytes) {
        for text in [
            "the small cat",
            " ①\u{fb01}e\u{301}\u{1}\t日 [SEP]\u{ac00}\u{1112}\u{1161} ",
            "",
        ] {
            let encoding = tokenizer.encode(text, Some(text), 16);
            prop_assert!(encoding.is_ok_and(|it| it.len() <= 16), "{text:?}");
        }
    }
    Ok(())
}

fn good() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| of_task(Task::Mnli, 40))
}

/// Reads damaged bytes. The outcome may be rows (a changed letter is a text like any other), but
/// then they keep every promise of a data set.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(dataset) = load(Task::Mnli, bytes) {
        prop_assert!(!dataset.is_empty());
        prop_assert!(dataset.examples.iter().all(|row| row.text_pair.is_some()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), framed in any::<bool>()) {
        if framed {
            let length = (bytes.len() as u32).to_le_bytes();
            let framed = [b"PAR1", bytes.as_slice(), &length, b"PAR1"].concat();
            prop_assert!(load(Task::Mnli, &framed).is_err());
        } else {
            prop_assert!(load(Task::Mnli, &bytes).is_err());
        }
    }

    #[test]
    fn truncated_files(at in any::<prop::sample::Index>()) {
        prop_assert!(load(Task::Mnli, &good()[..at.index(good().len())]).is_err());
    }

    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = good().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes)?;
    }

    /// The last bytes hold the metadata, where most lies can be told.
    #[test]
    fn changed_metadata(changes in prop::collection::vec((0usize..2500, any::<u8>()), 1..4)) {
        let mut bytes = good().to_vec();
        let length = bytes.len();
        for (from_end, byte) in changes {
            bytes[length - 1 - from_end % length] = byte;
        }
        survives(&bytes)?;
    }

    #[test]
    fn removed_and_doubled_ranges(
        from in any::<prop::sample::Index>(), length in 1usize..64, doubled in any::<bool>()
    ) {
        let from = from.index(good().len());
        let to = (from + length).min(good().len());
        let bytes = if doubled {
            [&good()[..to], &good()[from..]].concat()
        } else {
            [&good()[..from], &good()[to..]].concat()
        };
        survives(&bytes)?;
    }

    #[test]
    fn text_formats(bytes in prop::collection::vec(any::<u8>(), 0..200), tab in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in.tsv", "in.jsonl"] {
            let path = dir.path().join(name);
            let start: &[u8] = if tab { b"premise\thypothesis\tlabel\n" } else { b"" };
            fs::write(&path, [start, bytes.as_slice()].concat()).unwrap();
            let _ = Dataset::from_file(&path, Task::Mnli);
        }
    }

    #[test]
    fn changed_tokenizers(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wordpiece/tokenizer.json");
        let mut bytes = fs::read(path).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
        let encoded =
            Tokenizer::from_dir(dir.path()).and_then(|it| it.encode("the small cat", Some("a dog"), 8));
        prop_assert!(encoded.is_err() || encoded.is_ok_and(|encoding| encoding.len() <= 8));
    }
    #[test]
    fn arbitrary_spm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Tokenizer::from_spm(&bytes).is_err());
    }

    #[test]
    fn truncated_spm(at in any::<prop::sample::Index>()) {
        let bytes = spm("byte_fallback");
        spm_survives(&bytes[..at.index(bytes.len())])?;
    }

    #[test]
    fn changed_spm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = spm("byte_fallback");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        spm_survives(&bytes)?;
    }

    /// Nearly all of this file is the character map: a trie whose units point to each other.
    #[test]
    fn changed_character_maps(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)
    ) {
        let mut bytes = spm("nmt_nfkc");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        spm_survives(&bytes)?;
    }

    #[test]
    fn removed_and_doubled_parts_of_spm(
        from in any::<prop::sample::Index>(), length in 1usize..64, doubled in any::<bool>()
    ) {
        let good = spm("byte_fallback");
        let from = from.index(good.len());
        let to = (from + length).min(good.len());
        let bytes = if doubled {
            [&good[..to], &good[from..]].concat()
        } else {
            [&good[..from], &good[to..]].concat()
        };
        spm_survives(&bytes)?;
    }

    #[test]
    fn changed_files_beside_spm(
        file in prop::sample::select(vec!["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]),
        key in prop::sample::select(vec![
            "cls_token", "unk_token", "mask_token", "added_tokens_decoder", "additional_special_tokens", "do_lower_case", "x",
        ]),
        value in prop::sample::select(vec![
            "null", "true", "-1", "471", "\"\"", "\"a\"", "\"[UNK]\"", "\"\\u0001\"", "[]", "[3]", "[\"\", \"a\", \"a\"]", "{}",
            "{\"content\": \"b\", \"normalized\": true}", "{\"content\": 1}", "{\"0\": \"a\"}", "{\"471\": {\"content\": \"[M]\"}}",
            "[{\"content\": \"\\u0001\", \"normalized\": true}]",
        ]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spm.model"), spm("identity")).unwrap();
        fs::write(dir.path().join(file), format!("{{\"{key}\": {value}}}")).unwrap();
        let encoded = Tokenizer::from_dir(dir.path()).and_then(|it| it.encode("a b\u{1}", Some("x"), 8));
        let fails_later = matches!(encoded, Err(GlueError::Encode { .. }));
        prop_assert!(!fails_later);
    }
}

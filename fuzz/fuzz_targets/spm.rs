//! Arbitrary bytes as an `spm.model`: refused, or a tokenizer that never fails afterwards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lowburn_glue::Tokenizer;

/// Ligature, accents to compose, control character, tab, unknown script, a special token, Hangul letters.
const TEXT: &str = " the ①\u{fb01}e\u{301}\u{1}\t日 [SEP]\u{ac00}\u{1112}\u{1161}\u{11ab} ";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tokenizer) = Tokenizer::from_spm(bytes) {
        for text in [TEXT, ""] {
            let encoding = tokenizer.encode(text, Some("a cat"), 16);
            assert!(encoding.is_ok_and(|encoding| encoding.len() <= 16));
        }
    }
});

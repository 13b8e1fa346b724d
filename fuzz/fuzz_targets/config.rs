//! Arbitrary bytes as a `config.json`: refused with a message that names the file, or a model's configuration.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lowburn_models::ModelConfig;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = ModelConfig::parse(bytes, Path::new("config.json")) {
        assert!(error.to_string().contains("config.json"));
    }
});

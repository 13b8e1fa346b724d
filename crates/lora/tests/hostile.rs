//! Arbitrary and arbitrarily damaged files give an adapter or an error, never a panic.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use lowburn_lora::{LoraConfig, Targets, read_loralib, read_peft};
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A folder with the files of a fixture, one of them replaced.
fn folder(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixture("list").join(file), dir.path().join(file)).unwrap();
    }
    if name.ends_with(".bin") {
        fs::remove_file(dir.path().join("adapter_model.safetensors")).unwrap();
    }
    fs::write(dir.path().join(name), bytes).unwrap();
    dir
}

fn damaged(
    mut bytes: Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
) -> Vec<u8> {
    for (place, value) in changes {
        let place = place.index(bytes.len());
        bytes[place] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    bytes
}

fn changes() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)>
{
    (
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6),
        any::<Option<prop::sample::Index>>(),
    )
}

/// JSON of any kind where `adapter_config.json` has its fields.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,12}".prop_map(Value::from),
        "[a-z.*()|\\\\\\[\\]^$?+{}]{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z.*()|^$]{0,8}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 16] = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "init_lora_weights",
    "peft_type",
    "bias",
    "task_type",
    "something_else",
];

/// A checkpoint of torch's layout with this pickle and this storage 0.
fn archive(path: &Path, pickle: &[u8], storage: &[u8]) {
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [
        ("data.pkl", pickle),
        ("data/0", storage),
        ("version", b"3\n"),
    ] {
        archive
            .start_file(format!("archive/{name}"), options)
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn a_pickle_is_not_executed() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("executed");
    let command = format!("touch {}", proof.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.bytes());
    pickle.extend(b"\x85R.");
    let path = dir.path().join("x.bin");
    archive(&path, &pickle, &[]);
    assert!(read_loralib(&path, 8.0).is_err());
    fs::write(&path, &pickle).unwrap();
    assert!(read_loralib(&path, 8.0).is_err());
    assert!(!proof.exists());
}

/// One number, seen through strides of 0 as a matrix of 4 GiB.
#[test]
fn a_view_far_larger_than_its_file_is_refused_unread() {
    let mut pickle = b"\x80\x02}(X\x08\0\0\0q.lora_A".to_vec();
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage");
    pickle.extend(b"ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0");
    pickle.extend(b"J\0\x80\0\0J\0\x80\0\0\x86K\0K\0\x86\x89}tRu.");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.bin");
    archive(&path, &pickle, &1f32.to_le_bytes());
    let message = read_loralib(&path, 8.0).unwrap_err().to_string();
    assert!(message.contains("claim far more bytes"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for file in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
            let dir = folder(file, &bytes);
            prop_assert!(read_peft(dir.path()).is_err());
        }
        let dir = folder("x.bin", &bytes);
        prop_assert!(read_loralib(&dir.path().join("x.bin"), 8.0).is_err());
    }

    #[test]
    fn damaged_weights((list, cut) in changes()) {
        let file = "adapter_model.safetensors";
        let good = fs::read(fixture("list").join(file)).unwrap();
        let dir = folder(file, &damaged(good, &list, cut));
        let _ = read_peft(dir.path());
    }

    #[test]
    fn damaged_configurations((list, cut) in changes()) {
        let file = "adapter_config.json";
        let good = fs::read(fixture("patterns").join(file)).unwrap();
        let dir = folder(file, &damaged(good, &list, cut));
        let _ = read_peft(dir.path());
    }

    #[test]
    fn any_values(field in prop::sample::select(&FIELDS[..]), value in value()) {
        let file = "adapter_config.json";
        let good = fs::read(fixture("list").join(file)).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&good).unwrap();
        config[field] = value;
        let dir = folder(file, config.to_string().as_bytes());
        let _ = read_peft(dir.path());
    }

    #[test]
    fn damaged_checkpoints((list, cut) in changes()) {
        let good = fs::read(fixture("loralib.bin")).unwrap();
        let dir = folder("x.bin", &damaged(good, &list, cut));
        let _ = read_loralib(&dir.path().join("x.bin"), 8.0);
    }

    #[test]
    fn damaged_pickles((list, _) in changes(), at in 0usize..3000) {
        // Near the front, where the pickle is.
        let mut bytes = fs::read(fixture("loralib.bin")).unwrap();
        for (offset, (_, value)) in list.iter().enumerate() {
            bytes[at + 7 * offset] = *value;
        }
        let dir = folder("x.bin", &bytes);
        let _ = read_loralib(&dir.path().join("x.bin"), 8.0);
    }

    #[test]
    fn any_target_on_any_name(text in "\\PC{0,20}", name in "\\PC{0,30}", pattern in "[a-z.*()|^$?+{}]{0,8}") {
        let Ok(targets) = text.parse::<Targets>() else { return Ok(()) };
        let mut config = LoraConfig::new(4, 8.0, targets);
        config.rank_pattern.insert(pattern.as_str(), 2);
        config.modules_to_save.push(pattern);
        let _ = config.plan(&[name.clone(), format!("layer.0.{name}")]);
        let _ = config.resolve(&name);
    }
}

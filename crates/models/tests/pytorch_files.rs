//! PyTorch's weight files: they load to the bits of their safetensors twins, nothing in them is
//! executed, and whatever is wrong with one is one clear error and never a panic.
//!
//! `tests/data` is made by `scripts/reference/make_checkpoint_fixtures.py`.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lowburn_models::{
    Dtype, LoadOptions, LoadReport, ModelError, SequenceClassifier, load_classifier, weight_files,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const BIN: &str = "pytorch_model.bin";
const INDEX: &str = "pytorch_model.bin.index.json";
const SHARDS: [&str; 2] = [
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
];
const QUERY: &str = "encoder.layer.1.attention.self.query.weight";

fn parity(model: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../data/parity/models").join(model)
}

fn data(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read(root.join("tests/data").join(name)).unwrap()
}

/// A model folder with these weights.
fn folder(model: &str, bytes: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = "config.json";
    fs::copy(parity(model).join(config), dir.path().join(config)).unwrap();
    fs::write(dir.path().join(BIN), bytes).unwrap();
    dir
}

fn sharded() -> TempDir {
    let dir = folder("mlm", &[]);
    fs::remove_file(dir.path().join(BIN)).unwrap();
    for name in SHARDS.into_iter().chain([INDEX]) {
        fs::write(dir.path().join(name), data(&format!("mlm/{name}"))).unwrap();
    }
    dir
}

fn load(dir: &Path) -> Result<(SequenceClassifier, LoadReport), ModelError> {
    let options = LoadOptions {
        num_labels: 3,
        head_seed: 1,
        dtype: Dtype::F32,
    };
    load_classifier(dir, &options, &Device::flex()).map(|(model, _, report)| (model, report))
}

#[track_caller]
fn refused(dir: &Path, expected: &[&str]) {
    let message = load(dir).map(|_| ()).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

/// The entries of a zip archive.
fn entries(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
    (0..archive.len())
        .map(|i| {
            let mut entry = archive.by_index(i).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.name().to_owned(), bytes)
        })
        .collect()
}

fn archive(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(name.as_str(), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// `base.bin` with one entry changed and every checksum right.
fn with_entry(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut entries = entries(&data("base.bin"));
    let entry = entries.iter_mut().find(|(entry, _)| entry == name).unwrap();
    change(&mut entry.1);
    archive(&entries)
}

fn with_pickle(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    with_entry("base/data.pkl", change)
}

/// Puts other bytes in the place of some that occur, the first time after `start`.
#[track_caller]
fn replace(bytes: &mut Vec<u8>, start: &[u8], old: &[u8], new: &[u8]) {
    let find = |from: usize, what: &[u8]| {
        let found = bytes[from..].windows(what.len()).position(|w| w == what);
        from + found.unwrap_or_else(|| panic!("{what:?} does not occur"))
    };
    let at = find(find(0, start), old);
    bytes.splice(at..at + old.len(), new.iter().copied());
}

// What loads

#[track_caller]
fn same_bits(dir: &Path, twin: &str) {
    let (ours, report) = load(dir).unwrap();
    let (theirs, expected) = load(&parity(twin)).unwrap();
    assert_eq!(report.loaded, expected.loaded, "{twin}");
    assert_eq!(report.head, expected.head, "{twin}");
    let all = |_: &str| true;
    assert_eq!(ours.host_tensors(all), theirs.host_tensors(all), "{twin}");
}

#[test]
fn every_form_loads_to_the_bits_of_its_twin() {
    for model in ["base", "pad0"] {
        let dir = folder(model, &data(&format!("{model}.bin")));
        same_bits(dir.path(), model);
    }
    let dir = sharded();
    same_bits(dir.path(), "mlm");
    let (_, report) = load(dir.path()).unwrap();
    let tied = "lm_head.decoder.weight".to_owned();
    assert!(report.ignored.contains(&tied), "{:?}", report.ignored);
}

#[test]
fn an_archive_without_checksums_or_packed_again_loads() {
    let same = with_pickle(|_| {});
    same_bits(folder("base", &same).path(), "base");
    let renamed: Vec<_> = entries(&data("base.bin"))
        .into_iter()
        .map(|(name, bytes)| (name.replacen("base/", "archive/", 1), bytes))
        .collect();
    same_bits(folder("base", &archive(&renamed)).path(), "base");
}

#[test]
fn the_first_form_in_the_order_of_transformers_counts() {
    let dir = sharded();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let names = || -> Vec<String> {
        let files = weight_files(dir.path()).unwrap().into_iter();
        files
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(), [INDEX, SHARDS[0], SHARDS[1]]);
    put(BIN, b"nothing");
    assert_eq!(names(), [BIN]);
    refused(
        dir.path(),
        &[BIN, "not a PyTorch checkpoint", "get it again"],
    );
    let map = json!({"weight_map": {"a": "part"}}).to_string();
    put("model.safetensors.index.json", map.as_bytes());
    put("part", b"nothing");
    assert_eq!(names(), ["model.safetensors.index.json", "part"]);
    refused(dir.path(), &["part", "get it again"]);
    let single = fs::read(parity("mlm").join("model.safetensors")).unwrap();
    put("model.safetensors", &single);
    assert_eq!(names(), ["model.safetensors"]);
    same_bits(dir.path(), "mlm");
}

// What does not

#[test]
fn files_of_another_kind() {
    let safetensors = fs::read(parity("base").join("model.safetensors")).unwrap();
    for bytes in [&b""[..], b"PK", b"hello", &[0; 600], &safetensors] {
        refused(folder("base", bytes).path(), &[BIN, "get it again"]);
    }
    // A pickle alone, and an archive without one.
    refused(folder("base", b"\x80\x02}.").path(), &[BIN, "state_dict"]);
    let empty = archive(&[("base/version".to_owned(), b"3\n".to_vec())]);
    refused(folder("base", &empty).path(), &[BIN, "data.pkl", "again"]);
    let big = with_entry("base/byteorder", |order| *order = b"big".to_vec());
    refused(folder("base", &big).path(), &[BIN, "Big-endian"]);
}

#[test]
fn files_cut_off() {
    for model in ["base", "pad0"] {
        let good = data(&format!("{model}.bin"));
        let len = good.len();
        let mut cuts: Vec<usize> = (0..len).step_by(len / 40).collect();
        cuts.extend([1, 2, 4, 10, len - 30, len - 1]);
        for cut in cuts {
            refused(folder(model, &good[..cut]).path(), &[BIN, "get it again"]);
        }
    }
}

#[test]
fn what_torch_saves_and_no_model_folder_holds() {
    for (name, expected) in [
        ("training", "\"epoch\" is an int and not a tensor"),
        ("number", "\"step\" is an int and not a tensor"),
        ("list", "found list"),
        ("tensor", "found torch.Tensor"),
        ("sparse", "_rebuild_sparse_tensor"),
        ("complex", "ComplexFloatStorage"),
        ("float8", "float8_e4m3fn"),
        ("quantized", "QInt8Storage"),
    ] {
        let dir = folder("base", &data(&format!("odd/{name}.bin")));
        refused(dir.path(), &[BIN, expected]);
    }
    let dir = folder("base", &data("odd/training.bin"));
    refused(dir.path(), &["transformers", "weights alone"]);
    for name in ["sparse", "complex", "float8", "quantized"] {
        let dir = folder("base", &data(&format!("odd/{name}.bin")));
        refused(dir.path(), &["save the model dense"]);
    }
}

#[test]
fn nothing_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let proof = dir.path().join("executed");
    let command = format!("touch {}", proof.display());
    let mut call = b"cposix\nsystem\nX".to_vec();
    call.extend((command.len() as u32).to_le_bytes());
    call.extend(command.bytes());
    call.extend(b"\x85R");
    // In the place of the dictionary, as an entry of it, and where nobody looks at it.
    let whole = with_pickle(|pickle| *pickle = [b"\x80\x02", &call[..], b"."].concat());
    refused(folder("base", &whole).path(), &[BIN, "posix.system"]);
    let entry = with_pickle(|pickle| {
        let entry = [b"X\x01\0\0\0x", &call[..]].concat();
        replace(pickle, b"collections", b"(", &[b"(", &entry[..]].concat());
    });
    refused(
        folder("base", &entry).path(),
        &[BIN, "\"x\" is posix.system and not a tensor"],
    );
    let dropped = with_pickle(|pickle| {
        pickle.splice(2..2, [&call[..], b"0"].concat());
    });
    same_bits(folder("base", &dropped).path(), "base");
    for pickle in [&call[..], b""] {
        let bytes = [b"\x80\x02", pickle, b"."].concat();
        refused(folder("base", &bytes).path(), &[BIN]);
    }
    assert!(!proof.exists());
}

#[test]
fn pickles_that_lie() {
    // [32, 32] with strides (32, 1), as torch writes small numbers.
    let (shape, strides) = (b"K K \x86", b"K K\x01\x86");
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK \x86";
    let (far, back) = (b"J\xff\xff\xff\x7fK\x01\x86", b"J\xff\xff\xff\xffK\x01\x86");
    for (old, new, expected) in [
        (&shape[..], &b"K K\x21\x86"[..], "needs 1025 elements"),
        (shape, b"K\x21K \x86", "needs 1056 elements"),
        (shape, huge, "overflows"),
        (shape, b"K \x85", "rank 2 does not match shape rank 1"),
        (strides, far, "elements, but storage"),
        (strides, back, "must be non-negative"),
    ] {
        let bytes = with_pickle(|pickle| replace(pickle, QUERY.as_bytes(), old, new));
        let dir = folder("base", &bytes);
        refused(dir.path(), &[BIN, expected, "get it again"]);
    }
    // What a shape may be and the model's is not.
    let bytes = with_pickle(|pickle| replace(pickle, QUERY.as_bytes(), shape, b"K\x1fK \x86"));
    let shown = format!("{QUERY} is [31, 32], expected [32, 32]");
    refused(folder("base", &bytes).path(), &["misshapen", &shown]);
    // A name twice: the second counts, as in Python, and the other is missing.
    let bytes = with_pickle(|pickle| {
        let key = QUERY.replace("query", "value");
        replace(pickle, b"(", QUERY.as_bytes(), key.as_bytes());
    });
    refused(folder("base", &bytes).path(), &["1 missing", QUERY]);
    // A storage class of whole numbers, which nobody can train.
    let bytes = with_pickle(|pickle| replace(pickle, b"(", b"HalfStorage", b"ShortStorage"));
    let shown = ["tensor", "is I16", "save the model as one of them"];
    refused(folder("base", &bytes).path(), &shown);
}

#[test]
fn storages_that_are_not_what_the_pickle_says() {
    let short = with_entry("base/data/0", |storage| storage.truncate(10));
    refused(folder("base", &short).path(), &[BIN, "tensor", "available"]);
    let mut all = entries(&data("base.bin"));
    all.retain(|(name, _)| name != "base/data/0");
    let absent = archive(&all);
    refused(folder("base", &absent).path(), &[BIN, "tensor", "data/0"]);
    // One bit of a storage, with the checksum as it was.
    let mut damaged = data("base.bin");
    let (_, storage) = entries(&damaged)
        .into_iter()
        .max_by_key(|(_, bytes)| bytes.len())
        .unwrap();
    let at = damaged
        .windows(storage.len())
        .position(|window| window == storage)
        .unwrap();
    damaged[at + 5] ^= 1;
    let parts = [BIN, "word_embeddings.weight", "checksum", "get it again"];
    refused(folder("base", &damaged).path(), &parts);
    // The older form has a count before each storage.
    let mut legacy = data("pad0.bin");
    let count = (24_u64 * 24).to_le_bytes();
    let at = legacy.windows(8).position(|window| window == count);
    legacy[at.unwrap()] ^= 1;
    let parts = [BIN, "tensor", "holds 577 elements", "declares 576"];
    refused(folder("pad0", &legacy).path(), &parts);
}

// What would fill the memory

/// Where the directory of an archive has an entry.
fn directory_entry(archive: &[u8], name: &str) -> usize {
    let entry = archive.windows(46 + name.len()).rposition(|window| {
        let length = usize::from(window[28]);
        window.starts_with(b"PK\x01\x02")
            && length == name.len()
            && window.ends_with(name.as_bytes())
    });
    entry.unwrap()
}

/// A number of four bytes in an archive.
fn number(archive: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(archive[at..at + 4].try_into().unwrap())
}

/// An archive whose directory says that an entry has so many bytes, packed by a method (8 is deflate).
fn claimed(mut archive: Vec<u8>, name: &str, method: u8, size: u32) -> Vec<u8> {
    let entry = directory_entry(&archive, name);
    archive[entry + 10] = method;
    archive[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
    archive
}

#[test]
fn compressed_entries() {
    for good in [data("base.bin"), with_pickle(|_| {})] {
        for name in ["base/data/0", "base/data.pkl", "base/version"] {
            let bytes = claimed(good.clone(), name, 8, 1 << 30);
            let parts = [BIN, name, "is compressed", "save its state_dict again"];
            refused(folder("base", &bytes).path(), &parts);
        }
    }
}

#[test]
fn pickles_of_many_opcodes() {
    let many = vec![b'N'; (2 << 20) + 1];
    let pickle = [b"\x80\x02", &many[..], b"."].concat();
    let bytes = with_pickle(|old| old.clone_from(&pickle));
    let parts = [BIN, "base/data.pkl", "has 2097156 bytes", "at most 2097152"];
    refused(folder("base", &bytes).path(), &parts);
    let bytes = claimed(data("base.bin"), "base/data.pkl", 0, 3 << 20);
    refused(folder("base", &bytes).path(), &[BIN, "has 3145728 bytes"]);
    // A pickle alone, and the older form with something pushed and popped before its magic number ends.
    let filled = |times: usize| {
        let mut legacy = data("pad0.bin");
        legacy.splice(14..14, b"N0".repeat(times));
        legacy
    };
    let parts = [BIN, "more than 2097152 bytes", "save its state_dict again"];
    refused(folder("base", &pickle).path(), &parts);
    refused(folder("pad0", &filled((1 << 20) + 1)).path(), &parts);
    same_bits(folder("pad0", &filled(100)).path(), "pad0");
    // A string that is longer than the file.
    let long = [
        b"\x80\x02\x8a\x0a",
        &data("pad0.bin")[4..14],
        b"X\xff\xff\xff\x7fabc",
    ]
    .concat();
    refused(folder("pad0", &long).path(), &[BIN, "get it again"]);
}

#[test]
fn the_oldest_form() {
    let mut tar = vec![0; 2048];
    tar[..8].copy_from_slice(b"storages");
    tar[257..262].copy_from_slice(b"ustar");
    let parts = [BIN, "TAR", "save its state_dict again"];
    refused(folder("base", &tar).path(), &parts);
}

#[test]
fn zip_directories_that_are_too_large() {
    let mut all = entries(&data("base.bin"));
    all.extend((0..40).map(|i| (format!("base/{i}{}", "x".repeat(60_000)), Vec::new())));
    let bytes = archive(&all);
    let parts = [BIN, "zip directory has", "at most 2097152"];
    refused(folder("base", &bytes).path(), &parts);
}

#[test]
fn zip_directories_that_can_be_read_in_two_ways() {
    // A second name for an entry, Info-ZIP's Unicode path.
    let mut renamed = with_pickle(|_| {});
    let name = "base/version";
    let entry = directory_entry(&renamed, name);
    let field = *b"\x75\x70\x05\0\x01\0\0\0\0";
    renamed[entry + 30] += field.len() as u8;
    let behind = entry + 46 + name.len();
    renamed.splice(behind..behind, field);
    let size = renamed.len() - 10;
    let longer = number(&renamed, size) + field.len() as u32;
    renamed[size..size + 4].copy_from_slice(&longer.to_le_bytes());
    let parts = [BIN, name, "second name", "save its state_dict again"];
    refused(folder("base", &renamed).path(), &parts);
    // torch has two records between directory and end. A reader that takes them for a part of the directory
    // looks for its start that much further on, where the second entry is if the file was called so.
    let mut shifted = data("base.bin");
    let end = shifted.len() - 22;
    let (size, start) = (number(&shifted, end + 12), number(&shifted, end + 16));
    assert_eq!((start + size) as usize + 76, end);
    let second = start as usize + 76;
    shifted[second..second + 4].copy_from_slice(b"PK\x01\x02");
    let parts = [BIN, "in two ways", "21 characters", "under another name"];
    refused(folder("base", &shifted).path(), &parts);
    // A comment, in which there could be the end of another archive.
    let mut commented = with_pickle(|_| {});
    let length = commented.len() - 2;
    commented[length] = 1;
    commented.push(b'x');
    let parts = [BIN, "zip directory cannot be read", "get it again"];
    refused(folder("base", &commented).path(), &parts);
}

// Shards

/// A sharded folder with its index changed.
fn with_index(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = sharded();
    let path = dir.path().join(INDEX);
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut index["weight_map"]);
    fs::write(&path, index.to_string()).unwrap();
    dir
}

#[test]
fn an_index_that_lies() {
    let way_out = "from one checkpoint";
    let query = format!("roberta.{QUERY}");
    let dir = with_index(|map| map["ghost"] = SHARDS[1].into());
    let shown = format!("tensor ghost is not in {}", SHARDS[1]);
    refused(dir.path(), &[INDEX, &shown, way_out]);
    let dir = with_index(|map| map[&query] = SHARDS[0].into());
    let shown = format!("{query} is not in {} but in {}", SHARDS[0], SHARDS[1]);
    refused(dir.path(), &[INDEX, &shown, way_out]);
    let dir = with_index(|map| {
        map.as_object_mut().unwrap().remove(&query).unwrap();
    });
    let shown = format!("weight_map lacks tensor {query} of {}", SHARDS[1]);
    refused(dir.path(), &[INDEX, &shown, way_out]);
    let dir = with_index(|map| map["x"] = "../pytorch_model.bin".into());
    refused(dir.path(), &[INDEX, "not a plain file name"]);
    let dir = with_index(|map| map["x"] = "more.bin".into());
    refused(dir.path(), &[INDEX, "more.bin is missing"]);
    fs::copy(dir.path().join(SHARDS[0]), dir.path().join("more.bin")).unwrap();
    refused(dir.path(), &["is in two shards", "keep one"]);
    fs::write(dir.path().join("more.bin"), b"nothing").unwrap();
    refused(dir.path(), &["more.bin", "get it again"]);
}

// Any bytes

/// Some bytes replaced, some inserted, and perhaps the end cut off.
fn mutated(good: Vec<u8>, within: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let places = proptest::collection::vec((within, any::<u8>(), any::<bool>()), 0..6);
    let len = good.len();
    (places, prop_oneof![4 => Just(len), 1 => 0..len]).prop_map(move |(places, end)| {
        let mut bytes = good.clone();
        for (place, byte, inserted) in places {
            if inserted {
                bytes.insert(place, byte);
            } else {
                bytes[place] = byte;
            }
        }
        bytes.truncate(end);
        bytes
    })
}

fn pickle() -> Vec<u8> {
    let mut entries = entries(&data("base.bin"));
    entries.retain(|(name, _)| name == "base/data.pkl");
    entries.remove(0).1
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn no_file_makes_a_panic(
        (model, bytes) in {
            let (zip, legacy) = (data("base.bin"), data("pad0.bin"));
            let (whole, directory) = (0..zip.len(), zip.len() - 4000..zip.len());
            prop_oneof![
                1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(|b| ("base", b)),
                1 => mutated(zip.clone(), whole).prop_map(|b| ("base", b)),
                2 => mutated(zip, directory).prop_map(|b| ("base", b)),
                3 => mutated(legacy, 0..8000).prop_map(|b| ("pad0", b)),
            ]
        }
    ) {
        let _ = load(folder(model, &bytes).path());
    }

    #[test]
    fn no_pickle_makes_a_panic(
        pickle in {
            let good = pickle();
            let len = good.len();
            mutated(good, 0..len)
        }
    ) {
        let bytes = with_pickle(|good| *good = pickle);
        let _ = load(folder("base", &bytes).path());
    }

    #[test]
    fn no_index_makes_a_panic(
        text in {
            let good = data(&format!("mlm/{INDEX}"));
            let len = good.len();
            mutated(good, 0..len)
        }
    ) {
        let dir = sharded();
        fs::write(dir.path().join(INDEX), text).unwrap();
        let _ = load(dir.path());
    }
}

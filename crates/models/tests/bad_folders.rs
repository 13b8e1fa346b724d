//! Whatever is wrong with a model folder is one clear error that names the file, the value and a
//! way out; and no bytes at all make the loader panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use lowburn_models::{
    HeadOrigin, LoadOptions, LoadReport, ModelConfig, ModelError, SequenceClassifier,
    load_classifier, manifest,
};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const QUERY: &str = "roberta.encoder.layer.1.attention.self.query.weight";

/// DeBERTa-v2 with a convolution, its own sizes of heads and pos_att_type as a string.
const DEB_CONV: &str = "../deberta/models/deb_conv";
/// DeBERTa-v2 with every kind of embedding and matrices of its own for positions.
const DEB_PLAIN: &str = "../deberta/models/deb_plain";
/// DeBERTa-v2 without relative attention.
const DEB_ABSOLUTE: &str = "../deberta/models/deb_absolute";

fn parity(model: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../data/parity/models").join(model)
}

/// A copy of a good folder.
fn copy_of(model: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(parity(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn tiny() -> TempDir {
    copy_of("tiny")
}

fn load(dir: &Path) -> Result<(SequenceClassifier, LoadReport), ModelError> {
    let options = LoadOptions {
        num_labels: 2,
        head_seed: 1,
        dtype: lowburn_models::Dtype::F32,
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

/// A good folder with its configuration changed.
fn with_config(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tiny();
    change_config(dir.path(), change);
    dir
}

fn change_config(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join(CONFIG);
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
}

#[derive(Clone, Debug)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn zeros(shape: &[usize]) -> Self {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            bytes,
        }
    }

    fn floats(&self) -> Vec<f32> {
        let (words, _) = self.bytes.as_chunks::<4>();
        words.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

type Tensors = BTreeMap<String, Stored>;

/// A good folder with its tensors changed.
fn with_tensors(change: impl FnOnce(&mut Tensors)) -> TempDir {
    let dir = tiny();
    change_tensors(dir.path(), change);
    dir
}

fn change_tensors(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            let stored = Stored {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), stored)
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, t)| {
        (
            name,
            TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap(),
        )
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A good folder whose weight file has another header over the same data.
fn with_header(change: impl FnOnce(String) -> String) -> TempDir {
    let dir = tiny();
    let path = dir.path().join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let end = header_end(&bytes);
    let header = change(String::from_utf8(bytes[8..end].to_vec()).unwrap());
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(&bytes[end..]);
    fs::write(&path, file).unwrap();
    dir
}

fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn the_folder_as_it_is_loads() {
    let dir = tiny();
    let (_, report) = load(dir.path()).unwrap();
    assert_eq!(report.head, HeadOrigin::Loaded);
    assert_eq!(report.ignored, Vec::<String>::new());
}

// config.json

#[test]
fn config_missing_or_not_a_file() {
    let dir = tiny();
    fs::remove_file(dir.path().join(CONFIG)).unwrap();
    refused(
        dir.path(),
        &[CONFIG, "no such file", "Hugging Face model folder"],
    );
    fs::create_dir(dir.path().join(CONFIG)).unwrap();
    refused(dir.path(), &[CONFIG, "reading the configuration failed"]);
    refused(&dir.path().join("nowhere"), &["nowhere", "no such file"]);
}

#[test]
fn config_not_json() {
    let dir = tiny();
    let path = dir.path().join(CONFIG);
    let good = fs::read(&path).unwrap();
    let object = good.iter().rposition(|byte| *byte == b'}').unwrap();
    let cuts = (0..=object).map(|end| good[..end].to_vec());
    let others = ["[]", "null", "7", "\"roberta\"", "{}{}", "\u{feff}{}"];
    let others = others.iter().map(|text| text.as_bytes().to_vec());
    let deep = [b"[".repeat(100_000), vec![0xff, 0xfe, b'{', b'}']];
    for text in cuts.chain(others).chain(deep) {
        let message = ModelConfig::parse(&text, &path).unwrap_err().to_string();
        for part in [CONFIG, "not a JSON object", "get the file again"] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    fs::write(&path, b"not JSON").unwrap();
    refused(dir.path(), &[CONFIG, "not a JSON object"]);
}

#[test]
fn config_of_another_model() {
    for (value, shown) in [
        (json!("bert"), "\"bert\""),
        (json!("xlm-roberta"), "\"xlm-roberta\""),
        (json!(7), "model_type is 7"),
        (json!(null), "missing"),
    ] {
        let dir = with_config(|config| config["model_type"] = value);
        let way_out = "choose a checkpoint of these";
        refused(dir.path(), &[CONFIG, "model_type", shown, way_out]);
    }
}

#[test]
fn config_without_a_size() {
    for field in [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ] {
        let missing = format!("{field} is missing");
        let dir = with_config(|config| {
            config.as_object_mut().unwrap().remove(field);
        });
        refused(dir.path(), &[CONFIG, &missing, "get the complete file"]);
        for value in [
            json!(0),
            json!(-1),
            json!(32.0),
            json!("32"),
            json!(true),
            json!([32]),
            json!(16_777_217),
            json!(u64::MAX),
            json!(1e300),
        ] {
            let shown = format!("{field} is {value}");
            let dir = with_config(|config| config[field] = value);
            refused(dir.path(), &[CONFIG, &shown, "expected"]);
        }
    }
}

#[test]
fn config_with_an_absurd_value() {
    for (field, value, expected) in [
        ("hidden_dropout_prob", json!(1.0), "[0, 1)"),
        ("hidden_dropout_prob", json!(-0.1), "[0, 1)"),
        ("hidden_dropout_prob", json!("0.1"), "expected a number"),
        ("attention_probs_dropout_prob", json!(2), "[0, 1)"),
        ("classifier_dropout", json!(1.5), "[0, 1)"),
        ("classifier_dropout", json!([]), "expected a number"),
        ("layer_norm_eps", json!(0), "expected a positive number"),
        ("layer_norm_eps", json!(-1e-5), "expected a positive number"),
        (
            "layer_norm_eps",
            json!(1e-300),
            "expected a positive number",
        ),
        (
            "layer_norm_eps",
            json!(1e30),
            "expected a positive number up to 10",
        ),
        (
            "initializer_range",
            json!(0.0),
            "expected a positive number",
        ),
        (
            "initializer_range",
            json!(1e300),
            "expected a positive number up to 10",
        ),
        ("hidden_act", json!("mish"), "supported are gelu"),
        ("hidden_act", json!(3), "supported are gelu"),
        (
            "num_attention_heads",
            json!(5),
            "not a multiple of num_attention_heads 5",
        ),
        ("pad_token_id", json!(-1), "expected a whole number"),
        ("pad_token_id", json!(320), "not below vocab_size 320"),
        (
            "max_position_embeddings",
            json!(2),
            "no position after pad_token_id 1; expected at least 3",
        ),
        ("type_vocab_size", json!(0), "expected at least 1"),
        ("num_hidden_layers", json!(1025), "expected at most 1024"),
        ("num_labels", json!(0), "expected at least 1"),
        ("num_labels", json!("two"), "expected a whole number"),
        ("num_labels", json!(65_537), "expected at most 65536"),
        ("num_labels", json!(1 << 24), "expected at most 65536"),
        (
            "problem_type",
            json!("multi_label_classification"),
            "it must be \"regression\" or \"single_label_classification\"",
        ),
        ("problem_type", json!(1), "it must be \"regression\" or"),
        (
            "problem_type",
            json!("regression"),
            "the number of labels 2",
        ),
        (
            "position_embedding_type",
            json!("relative_key"),
            "it must be \"absolute\"",
        ),
        ("is_decoder", json!(true), "it must be false"),
        ("is_encoder_decoder", json!(true), "it must be false"),
        ("add_cross_attention", json!(1), "it must be false"),
        ("chunk_size_feed_forward", json!(64), "it must be 0"),
        ("pruned_heads", json!({"1": [0]}), "it must be {}"),
        (
            "quantization_config",
            json!({"load_in_8bit": true}),
            "it must be absent",
        ),
        (
            "id2label",
            json!(["no", "yes"]),
            "expected an object of id to name",
        ),
        ("id2label", json!("yes"), "expected an object of id to name"),
        ("id2label", json!({}), "expected at least one label"),
        (
            "id2label",
            json!({"1": "no", "2": "yes"}),
            "expected the ids 0 to 1",
        ),
        (
            "id2label",
            json!({"0": "no", "00": "yes"}),
            "expected the ids 0 to 1",
        ),
        (
            "id2label",
            json!({"0": 0, "1": 1}),
            "expected the ids 0 to 1 with names",
        ),
        ("id2label", json!({"-1": "no"}), "expected the ids 0 to 0"),
    ] {
        let dir = with_config(|config| config[field] = value);
        refused(dir.path(), &[CONFIG, field, expected]);
    }
}

#[test]
fn config_of_a_problem_that_its_labels_contradict() {
    let (one, more) = ("regression", "single_label_classification");
    for (problem, labels, fits) in [
        (one, json!(1), true),
        (one, json!({"0": "score"}), true),
        (one, json!(2), false),
        (one, json!({"0": "no", "1": "yes"}), false),
        (one, json!(null), false),
        (more, json!(1), false),
        (more, json!({"0": "score"}), false),
        (more, json!(3), true),
        (more, json!(null), true),
    ] {
        let field = if labels.is_object() {
            "id2label"
        } else {
            "num_labels"
        };
        let dir = with_config(|config| {
            config["problem_type"] = problem.into();
            config[field] = labels;
        });
        if fits {
            load(dir.path()).unwrap();
        } else {
            refused(dir.path(), &[CONFIG, "problem_type", problem, "labels"]);
        }
    }
}

#[test]
fn config_of_deberta_with_an_absurd_value() {
    let (flag, whole) = ("expected true or false", "expected a whole number");
    let terms = "it must be made of c2p and p2c";
    let norm = "it must be \"none\" or \"layer_norm\"";
    for (field, value, expected) in [
        ("attention_head_size", json!(6), "it must be 8"),
        ("attention_head_size", json!("8"), "it must be 8"),
        ("pooler_hidden_size", json!(12), "it must be 24"),
        ("pooler_hidden_act", json!("mish"), "supported are gelu"),
        ("pooler_dropout", json!(1.0), "[0, 1)"),
        ("cls_dropout", json!(-0.5), "[0, 1)"),
        ("cls_dropout", json!("0"), "expected a number"),
        ("embedding_size", json!(0), "expected at least 1"),
        ("embedding_size", json!(-1), whole),
        ("embedding_size", json!(16_777_217), whole),
        ("position_biased_input", json!(1), flag),
        ("relative_attention", json!("yes"), flag),
        ("share_att_key", json!(0), flag),
        ("pos_att_type", json!("c2p|p2p"), terms),
        ("pos_att_type", json!("c2p,p2c"), terms),
        ("pos_att_type", json!(["c2c"]), terms),
        ("pos_att_type", json!(["c2p", 1]), terms),
        ("pos_att_type", json!(3), terms),
        ("pos_att_type", json!({"c2p": true}), terms),
        ("norm_rel_ebd", json!("batch_norm"), norm),
        ("norm_rel_ebd", json!("layer_norm|batch_norm"), norm),
        ("norm_rel_ebd", json!(true), norm),
        ("norm_rel_ebd", json!(["layer_norm"]), norm),
        ("position_buckets", json!(1), "expected at least 2"),
        ("position_buckets", json!("8"), whole),
        ("position_buckets", json!(8.0), whole),
        ("position_buckets", json!(16_777_217), whole),
        (
            "max_relative_positions",
            json!(5),
            "position_buckets 8: a distance of 5 or more has no bucket",
        ),
        ("max_relative_positions", json!("all"), whole),
        (
            "conv_kernel_size",
            json!(2),
            "expected an odd number up to 255",
        ),
        (
            "conv_kernel_size",
            json!(257),
            "expected an odd number up to 255",
        ),
        ("conv_kernel_size", json!(-1), whole),
        ("conv_groups", json!(0), "expected at least 1"),
        ("conv_groups", json!(5), "not a multiple of conv_groups 5"),
        ("conv_act", json!("mish"), "supported are gelu"),
        ("type_vocab_size", json!(-1), whole),
        ("max_position_embeddings", json!(0), "expected at least 1"),
        ("num_attention_heads", json!(0), "expected at least 1"),
        ("pad_token_id", json!(150), "not below vocab_size 150"),
        (
            "layer_norm_eps",
            json!(0.0),
            "expected a positive number up to 10",
        ),
        ("hidden_act", json!("geglu"), "supported are gelu"),
        (
            "problem_type",
            json!("multi_label_classification"),
            "it must be \"regression\"",
        ),
        ("num_labels", json!(65_537), "expected at most 65536"),
        ("is_decoder", json!(true), "it must be false"),
    ] {
        let dir = copy_of(DEB_CONV);
        change_config(dir.path(), |config| config[field] = value);
        refused(dir.path(), &[CONFIG, field, expected]);
    }
    let dir = copy_of(DEB_ABSOLUTE);
    change_config(dir.path(), |config| config["norm_rel_ebd"] = json!("rms"));
    refused(dir.path(), &[CONFIG, "norm_rel_ebd is \"rms\"", norm]);
    let dir = copy_of(DEB_PLAIN);
    change_config(dir.path(), |config| {
        config["num_attention_heads"] = json!(5);
    });
    let expected = "hidden_size 24 is not a multiple of num_attention_heads 5";
    refused(dir.path(), &[CONFIG, expected]);
}

#[test]
fn config_of_deberta_of_a_size_that_no_machine_holds() {
    for change in [
        json!({"vocab_size": 1 << 24, "embedding_size": 1 << 24}),
        json!({"embedding_size": 1 << 24, "max_position_embeddings": 1 << 24}),
        json!({"position_biased_input": false, "hidden_size": 1 << 12, "position_buckets": 1 << 24}),
        json!({"hidden_size": 1 << 14, "num_hidden_layers": 16}),
        json!({"hidden_size": 1 << 14, "num_hidden_layers": 1, "conv_kernel_size": 255}),
    ] {
        let dir = copy_of(DEB_CONV);
        change_config(dir.path(), |config| {
            let config = config.as_object_mut().unwrap();
            config.remove("attention_head_size");
            config.insert("num_attention_heads".into(), 1.into());
            config.extend(change.as_object().unwrap().clone());
        });
        refused(dir.path(), &[CONFIG, "parameters; expected at most"]);
    }
}

#[test]
fn config_of_a_size_that_no_machine_holds() {
    for change in [
        json!({"vocab_size": 1 << 24, "hidden_size": 1 << 24}),
        json!({"hidden_size": 1 << 24}),
        json!({"hidden_size": 1 << 20, "intermediate_size": 1 << 24}),
        json!({"hidden_size": 1 << 12, "max_position_embeddings": 1 << 24}),
        json!({"hidden_size": 1 << 12, "type_vocab_size": 1 << 24}),
        json!({"hidden_size": 1 << 11, "num_hidden_layers": 1024}),
    ] {
        let dir = with_config(|config| {
            for (field, value) in change.as_object().unwrap() {
                config[field] = value.clone();
            }
        });
        let largest = change.as_object().unwrap().iter().next_back().unwrap();
        let shown = format!("{} {}", largest.0, largest.1);
        refused(
            dir.path(),
            &[CONFIG, &shown, "parameters; expected at most"],
        );
    }
}

// model.safetensors

#[test]
fn weights_missing_or_of_another_kind() {
    let dir = tiny();
    let weights = dir.path().join(WEIGHTS);
    fs::remove_file(&weights).unwrap();
    refused(
        dir.path(),
        &[WEIGHTS, INDEX, "give a Hugging Face model folder"],
    );
    let bin = "pytorch_model.bin";
    fs::write(dir.path().join(bin), b"PK").unwrap();
    refused(
        dir.path(),
        &[bin, "not a PyTorch checkpoint", "get it again"],
    );
    // What would come first is there but cannot be read: no other is taken in its place.
    fs::create_dir(&weights).unwrap();
    refused(dir.path(), &[WEIGHTS, "not a file", "get it again"]);
}

#[cfg(unix)]
#[test]
fn weights_that_are_a_broken_link() {
    let dir = tiny();
    let weights = dir.path().join(WEIGHTS);
    fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink("blobs/never-downloaded", &weights).unwrap();
    refused(dir.path(), &[WEIGHTS, "not a file", "get it again"]);
}

#[test]
fn weights_truncated_or_continued() {
    let dir = tiny();
    let path = dir.path().join(WEIGHTS);
    let good = fs::read(&path).unwrap();
    let (end, len) = (header_end(&good), good.len());
    let mut cuts = vec![
        0,
        1,
        7,
        8,
        9,
        end / 2,
        end - 1,
        end,
        end + 1,
        len - 4,
        len - 1,
    ];
    cuts.extend((0..len).step_by(len / 40));
    for cut in cuts {
        fs::write(&path, &good[..cut]).unwrap();
        refused(dir.path(), &[WEIGHTS, "get it again"]);
    }
    fs::write(&path, [good.as_slice(), &[0]].concat()).unwrap();
    refused(dir.path(), &[WEIGHTS, "get it again"]);
}

#[test]
fn weights_with_a_lying_length_of_the_header() {
    let dir = tiny();
    let path = dir.path().join(WEIGHTS);
    let mut bytes = fs::read(&path).unwrap();
    let n = header_end(&bytes) as u64 - 8;
    let len = bytes.len() as u64;
    for lie in [
        0,
        1,
        n - 1,
        n + 1,
        len - 8,
        len,
        100_000_001,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ] {
        bytes[..8].copy_from_slice(&lie.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        refused(dir.path(), &[WEIGHTS, "get it again"]);
    }
}

#[test]
fn weights_with_a_lying_header() {
    type Lie = (&'static str, fn(String) -> String);
    let lies: [Lie; 7] = [
        ("another shape", |h| h.replacen("[32,32]", "[32,33]", 1)),
        ("a shape that overflows", |h| {
            h.replacen("[32,32]", "[4294967296,4294967296]", 1)
        }),
        ("a negative extent", |h| {
            h.replacen("[32,32]", "[-32,-32]", 1)
        }),
        ("another type", |h| h.replacen("\"F32\"", "\"F16\"", 1)),
        ("an unknown type", |h| h.replacen("\"F32\"", "\"X7\"", 1)),
        ("offsets far outside", |h| {
            h.replacen("\"data_offsets\":[0,", "\"data_offsets\":[0,9999999999", 1)
        }),
        ("a name twice", |h| {
            let key = h.replacen(
                "roberta.encoder.layer.1.attention",
                "roberta.encoder.layer.2.attention",
                1,
            );
            assert_ne!(key, h);
            key
        }),
    ];
    for (what, lie) in lies {
        let mut same = false;
        let dir = with_header(|header| {
            let changed = lie(header.clone());
            same = changed == header;
            changed
        });
        assert!(!same, "{what} changes the header");
        refused(dir.path(), &[WEIGHTS, "get it again"]);
    }
    for text in ["", "[]", "null", "{", "{\"a\":1}", "\u{1f525}"] {
        let dir = with_header(|_| text.to_owned());
        refused(dir.path(), &[WEIGHTS, "get it again"]);
    }
    let dir = with_header(|_| "{}".to_owned());
    refused(dir.path(), &[WEIGHTS, "get it again"]);
}

#[test]
fn weights_without_any_tensor() {
    let dir = with_tensors(Tensors::clear);
    let first = "roberta.embeddings.word_embeddings.weight";
    refused(dir.path(), &["missing", first, "more", "one checkpoint"]);
}

#[test]
fn a_tensor_missing() {
    let dir = with_tensors(|tensors| {
        tensors.remove(QUERY);
    });
    refused(dir.path(), &["1 missing", QUERY, "one checkpoint"]);
    let dir = with_tensors(|tensors| {
        tensors.remove("classifier.dense.bias");
    });
    refused(dir.path(), &["1 missing", "classifier.dense.bias"]);
}

#[test]
fn a_tensor_too_many() {
    for name in [
        "roberta.encoder.layer.3.output.dense.bias",
        "qa_outputs.weight",
        "roberta.embeddings.position_ids_of_something_else",
        "lm_headless",
        "",
    ] {
        let dir = with_tensors(|tensors| {
            tensors.insert(name.to_owned(), Stored::zeros(&[2]));
        });
        refused(dir.path(), &["1 unexpected", name, "one checkpoint"]);
    }
}

#[test]
fn the_norm_that_deberta_has_and_does_not_use() {
    let names = ["encoder.LayerNorm.bias", "encoder.LayerNorm.weight"];
    let names = names.map(|name| format!("deberta.{name}"));
    for (norm, known) in [("layer_norm", true), ("none", false)] {
        let dir = copy_of(DEB_ABSOLUTE);
        change_config(dir.path(), |config| config["norm_rel_ebd"] = norm.into());
        load(dir.path()).unwrap();
        change_tensors(dir.path(), |tensors| {
            for name in &names {
                tensors.insert(name.clone(), Stored::zeros(&[24]));
            }
        });
        if known {
            let (_, report) = load(dir.path()).unwrap();
            assert_eq!(report.ignored, names);
        } else {
            refused(dir.path(), &["2 unexpected", &names[0], &names[1]]);
        }
    }
    // Where it is used, it is missed.
    let dir = copy_of(DEB_CONV);
    change_tensors(dir.path(), |tensors| {
        tensors.remove(&names[0]).unwrap();
    });
    refused(dir.path(), &["1 missing", &names[0]]);
}

#[test]
fn a_tensor_of_a_slightly_other_name() {
    for wrong in [
        "bert.encoder.layer.1.attention.self.query.weight",
        "roberta.encoder.layer.1.attention.self.query.weights",
        "roberta.encoder.layer.1.attention.self.qeury.weight",
        "model.backbone.encoder.layer.1.attention.self.query.weight",
    ] {
        let dir = with_tensors(|tensors| {
            let query = tensors.remove(QUERY).unwrap();
            tensors.insert(wrong.to_owned(), query);
        });
        let hint = format!("{wrong} (did it mean {QUERY}?)");
        refused(dir.path(), &["1 missing", "1 unexpected", &hint]);
    }
}

#[test]
fn two_names_for_one_tensor() {
    let dir = with_tensors(|tensors| {
        let norm = tensors["roberta.embeddings.LayerNorm.weight"].clone();
        tensors.insert("embeddings.LayerNorm.gamma".to_owned(), norm);
    });
    let parts = ["ambiguous", "embeddings.LayerNorm.gamma", "one checkpoint"];
    refused(dir.path(), &parts);
}

#[test]
fn a_tensor_of_another_shape() {
    for shape in [
        vec![],
        vec![0],
        vec![32],
        vec![0, 32],
        vec![32, 31],
        vec![1, 32, 32],
        vec![32, 32, 1, 1, 1, 1, 1],
    ] {
        let shown = format!("{QUERY} is {shape:?}, expected [32, 32]");
        let dir = with_tensors(|tensors| {
            tensors.insert(QUERY.to_owned(), Stored::zeros(&shape));
        });
        refused(dir.path(), &["1 misshapen", &shown, "one checkpoint"]);
    }
}

#[test]
fn an_output_layer_that_contradicts_itself() {
    let (weight, bias) = ("classifier.out_proj.weight", "classifier.out_proj.bias");
    for (rows, labels) in [(3, 2), (2, 3), (3, 4)] {
        let dir = with_tensors(|tensors| {
            tensors.insert(weight.to_owned(), Stored::zeros(&[rows, 32]));
            tensors.insert(bias.to_owned(), Stored::zeros(&[labels]));
        });
        refused(dir.path(), &["misshapen", "classifier.out_proj.", "labels"]);
    }
    for shape in [vec![], vec![0, 32], vec![32], vec![2, 31]] {
        let dir = with_tensors(|tensors| {
            tensors.insert(weight.to_owned(), Stored::zeros(&shape));
        });
        refused(dir.path(), &["misshapen", weight]);
    }
}

#[test]
fn a_tensor_that_is_not_of_floats() {
    for (dtype, size) in [(Dtype::I64, 8), (Dtype::I8, 1), (Dtype::BOOL, 1)] {
        let dir = with_tensors(|tensors| {
            let query = tensors.get_mut(QUERY).unwrap();
            query.dtype = dtype;
            query.bytes = vec![0; 32 * 32 * size];
        });
        let shown = format!("{QUERY} is {dtype:?}");
        refused(
            dir.path(),
            &[WEIGHTS, &shown, "save the model as one of them"],
        );
    }
}

// Shards

#[test]
fn a_shard_missing_or_damaged() {
    let name = "model-00002-of-00002.safetensors";
    let dir = copy_of("pad0");
    let path = dir.path().join(name);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    refused(dir.path(), &[name, "get it again"]);
    fs::remove_file(&path).unwrap();
    refused(dir.path(), &[INDEX, name, "put it beside the index"]);
    fs::create_dir(&path).unwrap();
    refused(dir.path(), &[INDEX, name, "put it beside the index"]);
    fs::remove_dir(&path).unwrap();
    fs::copy(dir.path().join("model-00001-of-00002.safetensors"), &path).unwrap();
    refused(dir.path(), &[name, "is in two shards", "keep one"]);
}

#[test]
fn an_index_that_says_other_than_its_shards() {
    let way_out = "from one checkpoint";
    let changed = |change: fn(&mut serde_json::Map<String, Value>)| {
        let dir = copy_of("pad0");
        let path = dir.path().join(INDEX);
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(index["weight_map"].as_object_mut().unwrap());
        fs::write(&path, index.to_string()).unwrap();
        dir
    };
    let (first, second) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    let dir = changed(|map| {
        map.insert("ghost".into(), "model-00001-of-00002.safetensors".into());
    });
    let shown = format!("tensor ghost is not in {first}");
    refused(dir.path(), &[INDEX, &shown, way_out]);
    let dir = changed(|map| {
        map.insert(QUERY.into(), "model-00001-of-00002.safetensors".into());
    });
    let shown = format!("tensor {QUERY} is not in {first} but in {second}");
    refused(dir.path(), &[INDEX, &shown, way_out]);
    let dir = changed(|map| {
        map.remove(QUERY).unwrap();
    });
    let shown = format!("weight_map lacks tensor {QUERY} of {second}");
    refused(dir.path(), &[INDEX, &shown, way_out]);
}

#[test]
fn an_index_damaged() {
    let dir = copy_of("pad0");
    let path = dir.path().join(INDEX);
    for text in [
        "",
        "{",
        "[]",
        "{}",
        "{\"weight_map\": 7}",
        "{\"weight_map\": {\"a\": 7}}",
        "{\"weight_map\": {}}",
    ] {
        fs::write(&path, text).unwrap();
        refused(dir.path(), &[INDEX, "get the file again"]);
    }
}

#[test]
fn an_index_that_leaves_the_folder() {
    let dir = copy_of("pad0");
    let path = dir.path().join(INDEX);
    for name in [
        "../x.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        ".",
        "",
        "/",
        "x/",
        "./x",
    ] {
        let index = json!({"weight_map": {"a": name}});
        fs::write(&path, index.to_string()).unwrap();
        let shown = format!("{name:?}");
        refused(
            dir.path(),
            &[INDEX, &shown, "not a plain file name", "beside the index"],
        );
    }
    fs::write(&path, json!({"weight_map": {"a": "x\0y"}}).to_string()).unwrap();
    refused(dir.path(), &[INDEX, "is missing"]);
}

// What is odd and loads all the same

#[test]
fn a_checkpoint_of_another_number_of_labels_gets_a_new_output_layer() {
    let dir = with_tensors(|tensors| {
        let [weight, bias] = ["classifier.out_proj.weight", "classifier.out_proj.bias"];
        tensors.insert(weight.to_owned(), Stored::zeros(&[5, 32]));
        tensors.insert(bias.to_owned(), Stored::zeros(&[5]));
    });
    let (model, report) = load(dir.path()).unwrap();
    assert_eq!(report.head, HeadOrigin::OutputFresh { found: 5 });
    assert_eq!(model.num_labels(), 2);
    let weight = &model.host_tensors(|name| name == "classifier.out_proj.weight");
    assert!(weight.values().all(|t| t.data.iter().any(|v| *v != 0.0)));
}

#[test]
fn not_a_number_is_a_weight_like_any_other() {
    let dir = with_tensors(|tensors| {
        tensors.get_mut(QUERY).unwrap().bytes.fill(0xff);
    });
    let (model, _) = load(dir.path()).unwrap();
    let query = &model.host_tensors(|name| name == QUERY)[QUERY];
    assert!(query.data.iter().all(|value| value.is_nan()));
}

#[test]
fn every_precision_is_read_to_the_bit() {
    use half::{bf16, f16};
    let mut expected = BTreeMap::new();
    let dir = with_tensors(|tensors| {
        // All four types in one file.
        for (i, (name, tensor)) in tensors.iter_mut().enumerate() {
            let values = tensor.floats().into_iter();
            let (dtype, words): (_, Vec<(Vec<u8>, f32)>) = match i % 4 {
                0 => (
                    Dtype::F32,
                    values.map(|v| (v.to_le_bytes().to_vec(), v)).collect(),
                ),
                1 => (
                    Dtype::F64,
                    values
                        .map(|v| (f64::from(v).to_le_bytes().to_vec(), v))
                        .collect(),
                ),
                2 => (
                    Dtype::F16,
                    values
                        .map(f16::from_f32)
                        .map(|h| (h.to_le_bytes().to_vec(), h.to_f32()))
                        .collect(),
                ),
                _ => (
                    Dtype::BF16,
                    values
                        .map(bf16::from_f32)
                        .map(|h| (h.to_le_bytes().to_vec(), h.to_f32()))
                        .collect(),
                ),
            };
            let (bytes, rounded): (Vec<Vec<u8>>, Vec<f32>) = words.into_iter().unzip();
            (tensor.dtype, tensor.bytes) = (dtype, bytes.concat());
            expected.insert(name.clone(), rounded);
        }
    });
    let (model, _) = load(dir.path()).unwrap();
    for (name, tensor) in model.host_tensors(|_| true) {
        assert_eq!(tensor.data, expected[&name], "{name}");
    }
}

#[test]
fn names_of_older_files_and_of_the_bare_encoder_are_understood() {
    let dir = with_tensors(|tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .filter(|(name, _)| !name.starts_with("classifier."))
            .map(|(name, tensor)| {
                let name = name.strip_prefix("roberta.").unwrap();
                let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
                (name.replace("LayerNorm.bias", "LayerNorm.beta"), tensor)
            })
            .collect();
        for name in [
            "pooler.dense.bias",
            "lm_head.bias",
            "embeddings.position_ids",
        ] {
            tensors.insert(name.to_owned(), Stored::zeros(&[1, 66]));
        }
    });
    let (model, report) = load(dir.path()).unwrap();
    assert_eq!(report.head, HeadOrigin::Fresh);
    let ignored = [
        "embeddings.position_ids",
        "lm_head.bias",
        "pooler.dense.bias",
    ];
    assert_eq!(report.ignored, ignored);
    let (plain, _) = load(&parity("tiny")).unwrap();
    let encoder = |name: &str| name.starts_with("roberta.");
    assert_eq!(model.host_tensors(encoder), plain.host_tensors(encoder));
}

#[cfg(unix)]
#[test]
fn a_folder_whose_name_is_not_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let good = tiny();
    let dir = good
        .path()
        .join(std::ffi::OsStr::from_bytes(b"model-\xff\xfe"));
    fs::create_dir(&dir).unwrap();
    refused(&dir, &["config.json: no such file"]);
    for name in [CONFIG, WEIGHTS] {
        fs::copy(good.path().join(name), dir.join(name)).unwrap();
    }
    load(&dir).unwrap();
    let files = lowburn_models::weight_files(&dir).unwrap();
    assert_eq!(files, [dir.join(WEIGHTS)]);
}

// Any bytes

/// What a caller does with a configuration that was accepted.
fn use_config(config: &ModelConfig) {
    assert!(config.trained_length() >= 1);
    assert!(config.max_length() >= config.trained_length());
    assert!((config.pad_id() as usize) < config.vocab_size);
    let specs = manifest(config, config.num_labels.unwrap_or(2));
    assert!(specs.iter().map(|spec| spec.elements()).sum::<usize>() > 0);
    config.to_classifier_json(2, config.labels.as_deref());
}

/// Some bytes of a file replaced, and perhaps its end cut off.
fn mutated(good: Vec<u8>, within: usize) -> impl Strategy<Value = Vec<u8>> {
    let places = proptest::collection::vec((0..within, any::<u8>()), 0..6);
    let len = good.len();
    (places, prop_oneof![3 => Just(len), 1 => 0..len]).prop_map(move |(places, end)| {
        let mut bytes = good.clone();
        for (place, byte) in places {
            bytes[place] = byte;
        }
        bytes.truncate(end);
        bytes
    })
}

/// Words that some field of some config.json may have.
const WORDS: [&str; 9] = [
    "p2c|c2p",
    "c2p",
    "layer_norm",
    "none",
    "tanh",
    "gelu",
    "regression",
    "single_label_classification",
    "deberta-v2",
];

fn some_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(-1_i64), any::<i64>()].prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..100_u64).prop_map(Value::from),
        (0..40_u32).prop_map(|shift| Value::from(1_u64 << shift)),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            "[a-z_]{0,8}",
            proptest::sample::select(WORDS.map(str::to_owned).to_vec())
        ]
        .prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::from),
        proptest::collection::btree_map("[0-9]{1,2}", "[a-z]{0,3}", 0..4)
            .prop_map(|map| json!(map)),
    ]
}

/// Fields that a config.json may have and those at hand do not all have.
const FIELDS: [&str; 4] = ["id2label", "num_labels", "problem_type", "pruned_heads"];
const FIELDS_DEBERTA: [&str; 17] = [
    "attention_head_size",
    "cls_dropout",
    "conv_act",
    "conv_groups",
    "conv_kernel_size",
    "embedding_size",
    "max_relative_positions",
    "norm_rel_ebd",
    "pad_token_id",
    "pooler_dropout",
    "pooler_hidden_act",
    "pooler_hidden_size",
    "pos_att_type",
    "position_biased_input",
    "position_buckets",
    "relative_attention",
    "share_att_key",
];

/// A good config.json with some of its fields replaced.
fn other_values(model: &str) -> impl Strategy<Value = Vec<u8>> {
    let config: Value = serde_json::from_slice(&config_of(model)).unwrap();
    let mut fields: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
    fields.extend(FIELDS.map(str::to_owned));
    if config["model_type"] == "deberta-v2" {
        fields.extend(FIELDS_DEBERTA.map(str::to_owned));
    }
    let changes = (proptest::sample::select(fields), some_json());
    proptest::collection::vec(changes, 1..4).prop_map(move |changes| {
        let mut config = config.clone();
        for (field, value) in changes {
            config[field] = value;
        }
        config.to_string().into_bytes()
    })
}

fn config_of(model: &str) -> Vec<u8> {
    fs::read(parity(model).join(CONFIG)).unwrap()
}

/// A good config.json with some of its bytes replaced.
fn other_bytes(model: &str) -> impl Strategy<Value = Vec<u8>> {
    let text = config_of(model);
    let len = text.len();
    mutated(text, len)
}

fn good(name: &str) -> Vec<u8> {
    fs::read(parity("tiny").join(name)).unwrap()
}

/// Tensors with another type and shape, or without any.
fn odd_tensors() -> impl Strategy<Value = Vec<(String, Option<Stored>)>> {
    let bytes = good(WEIGHTS);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    let names = prop_oneof![
        proptest::sample::select(names),
        Just("classifier.out_proj.weight".to_owned()),
        Just("classifier.out_proj.bias".to_owned()),
        "[a-z.]{0,20}",
    ];
    let extents = prop_oneof![0..4_usize, Just(32), Just(64)];
    let shapes = proptest::collection::vec(extents, 0..4);
    let types = vec![
        (Dtype::F32, 4),
        (Dtype::F16, 2),
        (Dtype::BF16, 2),
        (Dtype::I64, 8),
    ];
    let tensors = (shapes, proptest::sample::select(types)).prop_map(|(shape, (dtype, size))| {
        let bytes = vec![0; size * shape.iter().product::<usize>()];
        Stored {
            dtype,
            shape,
            bytes,
        }
    });
    proptest::collection::vec((names, proptest::option::weighted(0.8, tensors)), 1..5)
}

/// Without a file of regressions beside the test.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn no_config_makes_a_panic(
        text in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..256),
            other_bytes("tiny"),
            other_bytes(DEB_CONV),
            other_bytes(DEB_PLAIN),
            other_values("tiny"),
            other_values(DEB_CONV),
            other_values(DEB_PLAIN),
        ]
    ) {
        if let Ok(config) = ModelConfig::parse(&text, Path::new(CONFIG)) {
            use_config(&config);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn no_weight_file_makes_a_panic(
        bytes in prop_oneof![
            1 => proptest::collection::vec(any::<u8>(), 0..256),
            1 => mutated(good(WEIGHTS), good(WEIGHTS).len()),
            4 => mutated(good(WEIGHTS), header_end(&good(WEIGHTS))),
        ]
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(parity("tiny").join(CONFIG), dir.path().join(CONFIG)).unwrap();
        fs::write(dir.path().join(WEIGHTS), bytes).unwrap();
        let _ = load(dir.path());
    }

    #[test]
    fn no_tensors_make_a_panic(changes in odd_tensors()) {
        let dir = with_tensors(|tensors| {
            for (name, tensor) in changes {
                match tensor {
                    Some(tensor) => tensors.insert(name, tensor),
                    None => tensors.remove(&name),
                };
            }
        });
        let _ = load(dir.path());
    }

    #[test]
    fn no_index_makes_a_panic(
        text in {
            let good = fs::read(parity("pad0").join(INDEX)).unwrap();
            let len = good.len();
            mutated(good, len)
        }
    ) {
        let dir = copy_of("pad0");
        fs::write(dir.path().join(INDEX), text).unwrap();
        let _ = load(dir.path());
    }
}

//! Whatever is wrong with an adapter folder is one clear error that names the file and the value.

use std::fs;
use std::path::Path;

use lowburn_lora::{AdapterFile, Factors, HostTensor, LoraConfig, Targets, read_peft, write_peft};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const QUERY: &str = "roberta.encoder.layer.0.attention.self.query";

fn adapter() -> AdapterFile {
    let mut adapter = AdapterFile::new(LoraConfig::new(2, 6.0, "query".parse().unwrap()));
    let factors = Factors {
        a: HostTensor::new([2, 3], vec![1., 2., 3., 4., 5., 6.]),
        b: HostTensor::new([4, 2], vec![1., 0., 0., 1., 1., 1., 2., 3.]),
    };
    adapter.factors.insert(QUERY.to_owned(), factors);
    let head = HostTensor::new([2, 3], vec![0.5; 6]);
    adapter.saved.insert("classifier.weight".to_owned(), head);
    adapter
}

/// A good folder, with its configuration changed.
fn folder(change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_peft(&adapter(), dir.path()).unwrap();
    let path = dir.path().join("adapter_config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    dir
}

/// A good folder whose tensors are those of `list`: names and shapes of f32 zeros.
fn with_tensors(list: &[(&str, &[usize])]) -> TempDir {
    let dir = folder(|_| {});
    let zeros = vec![0; 4096];
    let views = list.iter().map(|(name, shape)| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        let name = format!("base_model.model.{name}");
        (
            name,
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap(),
        )
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
    dir
}

#[track_caller]
fn refused(dir: &Path, expected: &[&str]) {
    let message = read_peft(dir).unwrap_err().to_string();
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[track_caller]
fn field_refused(field: &str, value: Value, expected: &str) {
    let dir = folder(|config| config[field] = value);
    refused(dir.path(), &["adapter_config.json", field, expected]);
}

#[test]
fn the_folder_as_it_is_reads() {
    assert_eq!(read_peft(folder(|_| {}).path()).unwrap(), adapter());
}

#[test]
fn fields_that_change_the_results_are_refused_by_name() {
    for (field, value, expected) in [
        ("use_dora", json!(true), "DoRA"),
        ("lora_bias", json!(true), "bias on B"),
        ("bias", json!("all"), "trained biases"),
        ("bias", json!("lora_only"), "trained biases"),
        ("fan_in_fan_out", json!(true), "[in, out]"),
        ("peft_type", json!("ADALORA"), "only LORA"),
        ("peft_type", json!("IA3"), "only LORA"),
        ("init_lora_weights", json!("pissa"), "base weights"),
        ("init_lora_weights", json!("pissa_niter_4"), "base weights"),
        ("init_lora_weights", json!("olora"), "base weights"),
        ("init_lora_weights", json!("corda"), "base weights"),
        ("init_lora_weights", json!("loftq"), "base weights"),
        ("init_lora_weights", json!("eva"), "base weights"),
        ("init_lora_weights", json!("lora_ga"), "base weights"),
        ("init_lora_weights", json!("mica"), "base weights"),
        ("loftq_config", json!({"loftq_bits": 4}), "LoftQ"),
        ("layer_replication", json!([[0, 2]]), "repeated layers"),
        ("trainable_token_indices", json!([1, 2]), "token embeddings"),
        ("target_parameters", json!(["x.weight"]), "bare parameters"),
        ("alora_invocation_tokens", json!([1]), "activated LoRA"),
        ("kasa_config", json!({"beta": 1}), "KaSA"),
        ("use_qalora", json!(true), "QALoRA"),
        ("invented_in_2030", json!(0.5), "does not know"),
        ("invented_in_2030", json!("yes"), "does not know"),
    ] {
        field_refused(field, value, expected);
    }
}

#[test]
fn fields_that_change_nothing_pass() {
    let dir = folder(|config| {
        for (field, value) in [
            ("invented_in_2030", json!(null)),
            ("another", json!(false)),
            ("a_list", json!([])),
            ("a_map", json!({})),
            ("a_text", json!("")),
            (
                "auto_mapping",
                json!({"base_model_class": "X", "parent_library": "y"}),
            ),
            ("peft_version", json!("0.21.0")),
            ("megatron_core", json!("megatron.core")),
            ("qalora_group_size", json!(16)),
            ("inference_mode", json!(false)),
            ("init_lora_weights", json!(false)),
            ("loftq_config", json!({})),
        ] {
            config[field] = value;
        }
    });
    assert_eq!(read_peft(dir.path()).unwrap(), adapter());
}

#[test]
fn the_configuration_of_peft_0_5_reads() {
    let dir = folder(|config| {
        *config = json!({
            "auto_mapping": null, "base_model_name_or_path": "roberta-base", "bias": "none",
            "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
            "layers_pattern": null, "layers_to_transform": null, "lora_alpha": 6,
            "lora_dropout": 0.05, "modules_to_save": ["classifier", "score", "classifier", "score"],
            "peft_type": "LORA", "r": 2, "revision": null, "target_modules": ["query"],
            "task_type": "SEQ_CLS"
        });
    });
    let read = read_peft(dir.path()).unwrap();
    assert_eq!(read.config.modules_to_save, ["classifier", "score"]);
    assert_eq!(read.config.dropout, 0.05);
}

#[test]
fn values_of_the_wrong_kind_or_range_are_refused() {
    for (field, value, expected) in [
        ("r", json!(0), "between 1 and"),
        ("r", json!(-1), "whole number"),
        ("r", json!(2.5), "whole number"),
        ("r", json!("2"), "whole number"),
        ("r", json!(null), "whole number"),
        ("r", json!(u64::MAX), "between 1 and"),
        ("lora_alpha", json!(0), "other than 0"),
        ("lora_alpha", json!("16"), "expected a number"),
        ("lora_dropout", json!(1.0), "[0, 1)"),
        ("target_modules", json!(null), "expected a list"),
        ("target_modules", json!([]), "expected a list"),
        ("target_modules", json!([1]), "list of strings"),
        ("target_modules", json!("(query"), "Opening parenthesis"),
        ("modules_to_save", json!({"a": 1}), "list of strings"),
        ("modules_to_save", json!(["("]), "Opening parenthesis"),
        ("rank_pattern", json!([1]), "object"),
        ("rank_pattern", json!({"query": 0}), "between 1 and"),
        ("rank_pattern", json!({"(": 1}), "Opening parenthesis"),
        ("alpha_pattern", json!({"query": "x"}), "expected a number"),
        ("layers_to_transform", json!([-1]), "whole number"),
        ("layers_to_transform", json!("0"), "whole number"),
        (
            "layers_pattern",
            json!(["layer"]),
            "needs layers_to_transform",
        ),
        ("use_rslora", json!("yes"), "true or false"),
        ("task_type", json!(1), "string or null"),
        ("peft_type", json!(null), "expected \"LORA\""),
    ] {
        field_refused(field, value, expected);
    }
    let both = folder(|config| {
        config["target_modules"] = json!(".*query");
        config["layers_to_transform"] = json!([0]);
    });
    refused(both.path(), &["layers_to_transform", "list of names"]);
}

#[test]
fn shapes_and_configuration_must_agree() {
    refused(
        folder(|config| config["r"] = json!(3)).path(),
        &["safetensors", QUERY, "rank 2", "says 3"],
    );
    refused(
        folder(|config| config["rank_pattern"] = json!({"query": 4})).path(),
        &[QUERY, "rank 2", "says 4"],
    );
    refused(
        folder(|config| config["target_modules"] = json!(["value"])).path(),
        &[QUERY, "value", "do not take it in"],
    );
    refused(
        folder(|config| config["layers_to_transform"] = json!([1])).path(),
        &[QUERY, "do not take it in"],
    );
    refused(
        folder(|config| {
            config["modules_to_save"] = json!(["score"]);
            config["task_type"] = json!("FEATURE_EXTRACTION");
        })
        .path(),
        &["classifier.weight", "modules_to_save [\"score\"]"],
    );
}

#[test]
fn pairs_must_be_whole() {
    let a = format!("{QUERY}.lora_A.weight");
    let b = format!("{QUERY}.lora_B.weight");
    refused(with_tensors(&[(&a, &[2, 3])]).path(), &[&b, "missing"]);
    refused(with_tensors(&[(&b, &[4, 2])]).path(), &[&a, "missing"]);
    refused(with_tensors(&[]).path(), &["no LoRA factors"]);
    refused(
        with_tensors(&[(&a, &[2, 3]), (&b, &[2, 4])]).path(),
        &["[2, 4]", "[out, r]"],
    );
    refused(
        with_tensors(&[(&a, &[6]), (&b, &[4, 2])]).path(),
        &["[6]", "[r, in]"],
    );
    let c = format!("{QUERY}.lora_magnitude_vector");
    refused(
        with_tensors(&[(&a, &[2, 3]), (&b, &[4, 2]), (&c, &[4])]).path(),
        &["DoRA", &c],
    );
    let twice = format!("{QUERY}.lora_A.default.weight");
    refused(
        with_tensors(&[(&a, &[2, 3]), (&b, &[4, 2]), (&twice, &[2, 3])]).path(),
        &["second tensor"],
    );
    refused(
        with_tensors(&[(&a, &[2, 3]), (&b, &[4, 2]), ("roberta.x.bias", &[3])]).path(),
        &["roberta.x.bias", "trained biases"],
    );
}

#[test]
fn missing_files_say_where_an_adapter_is() {
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("none"), &["none", "does not exist"]);
    refused(dir.path(), &["has no adapter_config.json"]);
    write_peft(&adapter(), &dir.path().join("mrpc")).unwrap();
    refused(dir.path(), &["mrpc has one"]);
    refused(&dir.path().join("mrpc/adapter_config.json"), &["is a file"]);
    fs::remove_file(dir.path().join("mrpc/adapter_model.safetensors")).unwrap();
    refused(
        &dir.path().join("mrpc"),
        &["neither adapter_model.safetensors"],
    );
}

#[test]
fn damaged_files_are_one_clear_error() {
    let dir = folder(|_| {});
    let config = dir.path().join("adapter_config.json");
    let weights = dir.path().join("adapter_model.safetensors");
    let good = fs::read(&weights).unwrap();
    for bytes in [
        Vec::new(),
        good[..4].to_vec(),
        good[..good.len() - 1].to_vec(),
        good[..100].to_vec(),
        [u64::MAX.to_le_bytes().as_slice(), &good[8..]].concat(),
        [good.as_slice(), &[0]].concat(),
        String::from_utf8_lossy(&good)
            .replace("[2,3]", "[2,9]")
            .into_bytes(),
    ] {
        fs::write(&weights, bytes).unwrap();
        refused(dir.path(), &["adapter_model.safetensors", "damaged"]);
    }
    let text = fs::read_to_string(&config).unwrap();
    for bytes in ["", "[]", "null", &text[..text.len() / 2], "{\"r\": NaN}"] {
        fs::write(&config, bytes).unwrap();
        refused(dir.path(), &["adapter_config.json", "not a JSON object"]);
    }
}

#[test]
fn integers_are_not_weights() {
    let dir = folder(|_| {});
    let name = format!("base_model.model.{QUERY}.lora_A.weight");
    let view = TensorView::new(Dtype::I32, vec![2, 3], &[0; 24]).unwrap();
    let bytes = safetensors::serialize([(name, view)], None).unwrap();
    fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
    refused(dir.path(), &[QUERY, "I32"]);
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let adapter = adapter();
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    adapter.plan(&names(&[QUERY])).unwrap();
    let error = |modules: &[&str]| adapter.plan(&names(modules)).unwrap_err().to_string();

    let other = error(&["deberta.encoder.layer.0.attention.self.query_proj"]);
    assert!(
        other.contains(QUERY) && other.contains("query_proj"),
        "{other}"
    );
    let more = "roberta.encoder.layer.1.attention.self.query";
    let deeper = error(&[QUERY, more]);
    assert!(
        deeper.contains(more) && deeper.contains("no factors"),
        "{deeper}"
    );
    assert!(error(&[]).contains("no linear layer at all"));

    let mut wider = adapter.clone();
    wider.config.targets = Targets::names(["query", "qury"]);
    let unknown = wider.plan(&names(&[QUERY])).unwrap_err().to_string();
    assert!(
        unknown.contains("\"qury\"") && unknown.contains("query?"),
        "{unknown}"
    );
}

#[test]
fn plans_name_what_does_not_fit() {
    let modules = ["l.0.self.query", "l.0.self.value", "l.0.output.dense"].map(str::to_owned);
    let plan = |change: &dyn Fn(&mut LoraConfig)| {
        let mut config = LoraConfig::new(2, 6.0, "query,value".parse().unwrap());
        change(&mut config);
        config.plan(&modules).map_err(|error| error.to_string())
    };
    assert_eq!(plan(&|_| {}).unwrap().len(), 2);
    let all = plan(&|c| c.targets = Targets::AllLinear).unwrap();
    assert_eq!(all.len(), 3);
    for (change, expected) in [
        (
            (&|c: &mut LoraConfig| c.targets = Targets::names(["query", "vale"]))
                as &dyn Fn(&mut LoraConfig),
            "target \"vale\" matches no linear layer of this model; did you mean value?",
        ),
        (
            &|c| c.targets = Targets::names(["query", "classifier"]),
            "target \"classifier\" is the head",
        ),
        (
            &|c| c.targets = Targets::names(["classifier.dense"]),
            "is the head",
        ),
        (
            &|c| c.targets = Targets::Regex("query".to_owned()),
            "match no linear layer of this model once",
        ),
        (
            &|c| c.exclude = Some(Targets::names(["self.query", "value"])),
            "it has dense, query, value",
        ),
        (
            &|c| c.layers_to_transform = Some(vec![7]),
            "match no linear layer",
        ),
        (
            &|c| c.rank_pattern.insert("dense", 4),
            "rank_pattern \"dense\" matches no linear layer",
        ),
        (
            &|c| c.alpha_pattern.insert("quer", 4.0),
            "alpha_pattern \"quer\" matches no linear layer of this model; did you mean query?",
        ),
        (&|c| c.rank = 0, "rank is 0"),
    ] {
        let message = plan(change).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_head_never_gets_an_adapter() {
    let mut config = LoraConfig::new(2, 6.0, Targets::AllLinear);
    config.modules_to_save = vec!["pooler".to_owned()];
    for head in ["classifier", "classifier.dense", "x.score", "pooler.dense"] {
        assert_eq!(config.resolve(head), None, "{head}");
    }
    assert!(config.resolve("encoder.dense").is_some());
}

#[test]
fn contradictions_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("adapter");
    let mut wrong_rank = adapter();
    wrong_rank.config.rank = 5;
    let mut unnamed = adapter();
    let bias = HostTensor::new([1], vec![0.0]);
    unnamed.saved.insert("pooler.bias".to_owned(), bias);
    let mut empty = adapter();
    empty.factors.clear();
    for (adapter, expected) in [
        (wrong_rank, "rank 2"),
        (unnamed, "pooler.bias"),
        (empty, "no LoRA factors"),
    ] {
        let message = write_peft(&adapter, &folder).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!folder.exists());
    }
    let blocked = dir.path().join("file");
    fs::write(&blocked, "x").unwrap();
    let message = write_peft(&adapter(), &blocked.join("sub"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("cannot create"), "{message}");
}

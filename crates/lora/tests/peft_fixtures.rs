//! Folders made by PEFT (scripts/reference/make_lora_fixtures.py) are read with the ranks, alphas,
//! scales and weight changes that PEFT's own layers have, and survive being written here.

use std::fs;
use std::path::{Path, PathBuf};

use lowburn_lora::{AdapterFile, FileDtype, LoraConfig, LoraInit, Targets, read_peft, write_peft};
use serde_json::{Value, json};

const CASES: [&str; 11] = [
    "list",
    "regex",
    "lookahead",
    "all_linear",
    "patterns",
    "rslora",
    "layers",
    "layers_pattern",
    "gaussian",
    "exclude",
    "bf16",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn expected(case: &str) -> Value {
    json(&fixtures().join(case).join("expected.json"))
}

fn load(case: &str) -> AdapterFile {
    read_peft(&fixtures().join(case)).unwrap_or_else(|error| panic!("{case}: {error}"))
}

/// The linear layers of the base but its head, as a model would list them.
fn linears(expected: &Value) -> Vec<String> {
    let names = expected["linears"].as_array().unwrap().iter();
    let names = names.map(|name| name.as_str().unwrap().to_owned());
    names
        .filter(|name| !name.starts_with("classifier"))
        .collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    let values = value.as_array().unwrap().iter();
    values.map(|v| v.as_f64().unwrap() as f32).collect()
}

#[test]
fn every_folder_is_a_case() {
    let folders = fs::read_dir(fixtures()).unwrap().flatten();
    let folders = folders.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(folders, CASES.len());
}

#[test]
fn layers_have_the_rank_alpha_and_scale_of_peft() {
    for case in CASES {
        let expected = expected(case);
        let adapter = load(case);
        let plan = adapter.plan(&linears(&expected)).unwrap();
        let modules = expected["modules"].as_object().unwrap();
        let names: Vec<&String> = plan.keys().collect();
        assert_eq!(names.len(), modules.len(), "{case}: {names:?}");
        for (module, wanted) in modules {
            let found = plan[module];
            assert_eq!(
                Some(found.rank as u64),
                wanted["rank"].as_u64(),
                "{case} {module}"
            );
            assert_eq!(
                Some(found.alpha),
                wanted["alpha"].as_f64(),
                "{case} {module}"
            );
            assert_eq!(
                Some(found.scale),
                wanted["scale"].as_f64(),
                "{case} {module}"
            );
        }
    }
}

#[test]
fn a_plan_for_the_bare_model_is_the_same() {
    for case in CASES {
        let linears = linears(&expected(case));
        let adapter = load(case);
        let plan = adapter.plan(&linears).unwrap();
        // PEFT's list for all-linear has the head's layers in it, which a user may not ask for.
        let config = match case {
            "all_linear" => LoraConfig {
                targets: Targets::AllLinear,
                ..adapter.config
            },
            _ => adapter.config,
        };
        assert_eq!(config.plan(&linears).unwrap(), plan, "{case}");
    }
}

#[test]
fn the_weight_change_is_that_of_peft() {
    for case in CASES {
        let delta = &expected(case)["delta"];
        let module = delta["module"].as_str().unwrap();
        let found = load(case).delta(module).unwrap();
        let shape: Vec<usize> = serde_json::from_value(delta["shape"].clone()).unwrap();
        assert_eq!(found.shape, shape);
        let wanted = numbers(&delta["values"]);
        let largest = wanted
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        assert!(
            largest > 0.1,
            "{case}: a change of {largest} proves nothing"
        );
        for (found, wanted) in found.data.iter().zip(&wanted) {
            // f32 on both sides; only the order of at most five additions may differ.
            assert!(
                (found - wanted).abs() <= 1e-6 * largest,
                "{case}: {found} for {wanted}"
            );
        }
    }
}

#[test]
fn the_head_is_there_in_its_own_type() {
    for case in CASES {
        let adapter = load(case);
        let head = &adapter.saved["classifier.dense.weight"];
        assert_eq!(head.data, numbers(&expected(case)["head"]), "{case}");
        let bf16 = case == "bf16";
        let dtype = if bf16 {
            FileDtype::BF16
        } else {
            FileDtype::F32
        };
        assert_eq!(head.dtype, dtype, "{case}");
        assert_eq!(adapter.saved.len(), 4, "{case}");
        for factors in adapter.factors.values() {
            assert_eq!(factors.a.dtype, FileDtype::F32, "{case}");
        }
    }
}

#[test]
fn fields_are_read() {
    let list = load("list");
    assert_eq!(list.config.targets, Targets::names(["query", "value"]));
    assert_eq!(list.config.dropout, 0.1);
    assert_eq!(list.config.modules_to_save, ["classifier", "score"]);
    assert_eq!(list.base_model.as_deref(), Some("tiny-roberta"));
    assert_eq!(list.task_type.as_deref(), Some("SEQ_CLS"));
    assert_eq!(load("gaussian").config.init, LoraInit::GaussianByRank);
    assert_eq!(
        load("layers_pattern").config.layers_pattern,
        ["block", "layer"]
    );
    assert!(load("rslora").config.use_rslora);
}

#[test]
fn written_folders_read_the_same_and_repeat_byte_for_byte() {
    for case in CASES {
        let adapter = load(case);
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        write_peft(&adapter, &first).unwrap();
        let again = read_peft(&first).unwrap();
        assert_eq!(again, adapter, "{case}");
        write_peft(&again, &second).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let bytes = |folder: &Path| fs::read(folder.join(file)).unwrap();
            assert_eq!(bytes(&first), bytes(&second), "{case} {file}");
        }
    }
}

#[test]
fn the_weights_written_are_the_bytes_that_peft_writes() {
    for case in CASES {
        let dir = tempfile::tempdir().unwrap();
        write_peft(&load(case), dir.path()).unwrap();
        let file = "adapter_model.safetensors";
        let ours = fs::read(dir.path().join(file)).unwrap();
        assert!(
            ours == fs::read(fixtures().join(case).join(file)).unwrap(),
            "{case}"
        );
    }
}

#[test]
fn only_fields_that_every_peft_knows_are_written() {
    const CORE: [&str; 18] = [
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "peft_type",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    ];
    let dir = tempfile::tempdir().unwrap();
    for case in CASES {
        write_peft(&load(case), dir.path()).unwrap();
        let written = json(&dir.path().join("adapter_config.json"));
        let fields: Vec<&String> = written.as_object().unwrap().keys().collect();
        let mut core = CORE.to_vec();
        if case == "exclude" {
            core.insert(3, "exclude_modules");
        }
        assert_eq!(fields, core, "{case}");
        let original = json(&fixtures().join(case).join("adapter_config.json"));
        for field in core {
            let wanted = match &original[field] {
                // One layer may be given without a list, one pattern likewise.
                Value::Number(layer) if field == "layers_to_transform" => json!([layer]),
                value => value.clone(),
            };
            assert_eq!(written[field], wanted, "{case} {field}");
        }
    }
}

#[test]
fn all_linear_is_written_as_names() {
    let mut adapter = load("all_linear");
    adapter.config.targets = Targets::AllLinear;
    let dir = tempfile::tempdir().unwrap();
    write_peft(&adapter, dir.path()).unwrap();
    let again = read_peft(dir.path()).unwrap();
    assert_eq!(
        again.config.targets,
        Targets::names(adapter.factors.keys().cloned())
    );
    assert_eq!(again.factors, adapter.factors);
    let linears = linears(&expected("all_linear"));
    assert_eq!(
        again.plan(&linears).unwrap(),
        adapter.plan(&linears).unwrap()
    );
}

#[test]
fn matching_is_that_of_peft() {
    let file = json(&fixtures().join("targets.json"));
    let names: Vec<&str> = file["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let config = config_of(&file, &case["config"]);
        for name in &names {
            let wanted = &case["answers"][name];
            let found = config.resolve(name);
            let text = format!("{} for {name}", case["config"]);
            assert_eq!(found.is_some(), !wanted.is_null(), "{text}");
            if let Some(found) = found {
                assert_eq!(Some(found.rank as u64), wanted[0].as_u64(), "{text}");
                assert_eq!(Some(found.alpha), wanted[1].as_f64(), "{text}");
            }
        }
    }
}

/// A configuration from PEFT's arguments, through the reader of files (a folder with one pair of
/// factors would be needed for `read_peft`, and most of these match nothing in common).
fn config_of(file: &Value, arguments: &Value) -> LoraConfig {
    let targets = |value: &Value| serde_json::from_value::<Targets>(value.clone()).unwrap();
    let strings = |value: &Value| match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text.clone()],
        list => serde_json::from_value(list.clone()).unwrap(),
    };
    let mut config = LoraConfig::new(
        file["r"].as_u64().unwrap() as usize,
        file["lora_alpha"].as_f64().unwrap(),
        targets(&arguments["target_modules"]),
    );
    config.modules_to_save = strings(&arguments["modules_to_save"]);
    config.layers_pattern = strings(&arguments["layers_pattern"]);
    if !arguments["exclude_modules"].is_null() {
        config.exclude = Some(targets(&arguments["exclude_modules"]));
    }
    config.layers_to_transform = match &arguments["layers_to_transform"] {
        Value::Null => None,
        Value::Number(layer) => Some(vec![layer.as_u64().unwrap() as usize]),
        list => Some(serde_json::from_value(list.clone()).unwrap()),
    };
    if !arguments["rank_pattern"].is_null() {
        config.rank_pattern = serde_json::from_value(arguments["rank_pattern"].clone()).unwrap();
    }
    if !arguments["alpha_pattern"].is_null() {
        config.alpha_pattern = serde_json::from_value(arguments["alpha_pattern"].clone()).unwrap();
    }
    config.validate().unwrap();
    config
}

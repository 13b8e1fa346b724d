//! Everything that can be wrong with a command gives one clear line, exit code 1 (2 for a command
//! line that makes no sense), and leaves nothing behind.

mod common;

use std::fs;
use std::path::Path;

use common::{Said, copy_folder, lowburn, mini, mini_data, mini_model, text, train};

/// Trains with changed options; the output folder must not have come into being.
#[track_caller]
fn refused(changes: &[(&str, &str)], parts: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    lowburn(train(&output, changes)).fails_with(parts);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}

/// A copy of the mini checkpoint that a test may damage.
fn model_copy(dir: &Path) -> std::path::PathBuf {
    let folder = dir.join("model");
    copy_folder(&mini().join("model"), &folder);
    folder
}

#[test]
fn hyperparameters_that_cannot_be() {
    refused(&[("--rank", "0")], &["rank", "0"]);
    refused(&[("--alpha", "nan")], &["alpha", "NaN"]);
    refused(&[("--lora-dropout", "1")], &["dropout", "1"]);
    refused(&[("--lr", "nan")], &["lr", "NaN", "5e-4"]);
    refused(&[("--lr", "inf")], &["lr", "inf"]);
    refused(&[("--lr", "-1e-3")], &["lr", "-0.001"]);
    refused(&[("--weight-decay", "-1")], &["weight-decay", "-1"]);
    refused(&[("--batch-size", "0")], &["batch-size", "0", "at least 1"]);
    refused(&[("--epochs", "0")], &["epochs", "0", "at least 1"]);
    refused(&[("--accumulate", "0")], &["accumulate", "0"]);
    refused(&[("--train-rows", "0")], &["train-rows", "0"]);
    refused(&[("--max-steps", "0")], &["max-steps", "0"]);
    refused(&[("--eval-every", "0")], &["eval-every", "0"]);
    refused(
        &[("--max-length", "65")],
        &["max-length", "65", "64 positions"],
    );
    refused(&[("--max-length", "1")], &["max-length", "1", "at least"]);
    refused(&[("--warmup-ratio", "1.5")], &["warmup-ratio", "1.5"]);
    refused(
        &[("--warmup-ratio", "-"), ("--warmup-steps", "9")],
        &["warmup-steps", "9", "8 steps"],
    );
    refused(&[("--threads", "0")], &["threads", "0"]);
    // A card of that number is on no machine; whether the feature or the card is missing depends on the build.
    let missing = match cfg!(feature = "cuda") {
        true => "what there is: flex",
        false => "cargo build --release --features cuda",
    };
    refused(&[("--device", "cuda:99")], &["device is cuda:99", missing]);
}

#[test]
fn combinations_that_cannot_be() {
    let full = [("--method", "full"), ("--rank", "8")];
    refused(&full, &["lora", "full"]);
    refused(
        &[("--method", "head"), ("--init-adapter", "x")],
        &["init-adapter", "head"],
    );
    refused(
        &[("--group-by-length", ""), ("--shuffle", "false")],
        &["group-by-length", "shuffle"],
    );
    refused(&[("--target", "quarry")], &["quarry", "query"]);
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    let usage = |changes: &[(&str, &str)], parts: &[&str]| {
        let said = lowburn(train(&output, changes));
        assert_eq!(said.code, Some(2), "{said:#?}");
        for part in parts {
            assert!(said.stderr.contains(part), "no {part:?} in {said:#?}");
        }
    };
    usage(&[("--task", "sst3")], &["sst3", "cola"]);
    usage(
        &[("--warmup-steps", "3")],
        &["--warmup-ratio", "--warmup-steps"],
    );
    usage(&[("--warmup-ratio", "-")], &["--warmup-ratio"]);
    usage(&[("--lr", "fast")], &["fast", "--lr"]);
    usage(&[("--device", "abacus")], &["abacus", "flex"]);
    usage(&[("--device", "cuda:one")], &["cuda:one", "cuda:0"]);
    usage(&[("--device", "flex:1")], &["flex:1", "one processor"]);
    usage(&[("--method", "magic")], &["magic", "lora"]);
    usage(&[("--lr", "-")], &["--lr"]);
    usage(&[("--target", "(")], &["--target", "regular expression"]);
}

#[test]
fn data_that_cannot_be_used() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let rte = dir.path().join("rte");
    let data = text(dir.path());
    let with =
        |task: &str, parts: &[&str]| refused(&[("--data-dir", &data), ("--task", task)], parts);
    with("rte", &["rte/train-00000-of-00001.parquet"]);
    copy_folder(&mini().join("glue/rte"), &rte);
    let train_file = rte.join("train-00000-of-00001.parquet");
    let bytes = fs::read(&train_file).expect("the file");
    fs::write(&train_file, &bytes[..bytes.len() / 2]).expect("cut");
    with("rte", &["train-00000-of-00001.parquet"]);
    fs::write(&train_file, b"not parquet at all").expect("written");
    with("rte", &["train-00000-of-00001.parquet"]);
    // The columns of another task.
    fs::copy(
        mini().join("glue/sst2/train-00000-of-00001.parquet"),
        &train_file,
    )
    .expect("copied");
    with("rte", &["train-00000-of-00001.parquet", "sentence1"]);
    // Rows without labels.
    fs::copy(rte.join("test-00000-of-00001.parquet"), &train_file).expect("copied");
    with("rte", &["label"]);
    fs::remove_file(&train_file).expect("removed");
    with("rte", &["train"]);
    refused(&[("--data-dir", "/no/such/place")], &["/no/such/place"]);
    let said = lowburn([
        "eval",
        "--model",
        &mini_model(),
        "--task",
        "rte",
        "--data-dir",
        &mini_data(),
        "--split",
        "test",
    ]);
    said.fails_with(&["test", "label"]);
}

#[test]
fn checkpoints_that_cannot_be_used() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = model_copy(dir.path());
    let model = text(&folder);
    let with = |parts: &[&str]| refused(&[("--model", &model)], parts);
    let config_path = folder.join("config.json");
    let config = fs::read_to_string(&config_path).expect("the file");
    let edited = |field: &str, value: serde_json::Value| {
        let mut fields = common::json(&config);
        assert!(fields[field] != value);
        match value {
            serde_json::Value::Null => drop(fields.as_object_mut().expect("fields").remove(field)),
            value => fields[field] = value,
        }
        fs::write(&config_path, fields.to_string()).expect("written");
    };
    edited("model_type", "gpt2".into());
    with(&["config.json", "gpt2", "roberta"]);
    edited("hidden_size", 0.into());
    with(&["config.json", "hidden_size"]);
    edited("hidden_size", serde_json::Value::Null);
    with(&["config.json", "hidden_size"]);
    edited("num_attention_heads", 5.into());
    with(&["config.json", "num_attention_heads", "5"]);
    edited("vocab_size", 300.into());
    with(&["300", "tokenizer"]);
    edited("intermediate_size", 512.into());
    with(&["intermediate"]);
    fs::write(&config_path, "{").expect("written");
    with(&["config.json"]);
    fs::write(&config_path, &config).expect("written");

    let weights_path = folder.join("model.safetensors");
    let weights = fs::read(&weights_path).expect("the file");
    fs::write(&weights_path, &weights[..weights.len() - 10]).expect("cut");
    with(&["model.safetensors"]);
    fs::write(&weights_path, u64::MAX.to_le_bytes()).expect("written");
    with(&["model.safetensors"]);
    fs::remove_file(&weights_path).expect("removed");
    with(&["model.safetensors"]);
    refused(&[("--model", "/no/such/place")], &["/no/such/place"]);
}

#[test]
fn an_output_folder_that_exists() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = dir.path().join("run");
    fs::create_dir(&output).expect("made");
    fs::write(output.join("precious.txt"), "x").expect("written");
    lowburn(train(&output, &[])).fails_with(&["exists", "--resume", "--overwrite"]);
    for option in ["--resume", "--overwrite"] {
        let said = lowburn(train(&output, &[(option, "")]));
        said.fails_with(&["run.json", "another --output"]);
    }
    assert_eq!(fs::read_dir(&output).expect("there").count(), 1);
    for command in ["merge", "init"] {
        let mut line = vec![command.to_owned(), "--output".into(), text(&output)];
        let config = text(&mini().join("model/config.json"));
        let rest = match command {
            "merge" => vec!["--model", "x", "--adapter", "y"],
            _ => vec!["--config", config.as_str(), "--seed", "0"],
        };
        line.extend(rest.into_iter().map(str::to_owned));
        lowburn(&line).fails_with(&["exists", "--overwrite"]);
        line.push("--overwrite".into());
        if command == "init" {
            lowburn(&line).fails_with(&["config.json", "another --output"]);
        }
    }
    assert_eq!(fs::read_dir(&output).expect("there").count(), 1);
}

#[test]
fn adapters_that_do_not_fit() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    lowburn(train(&run, &[("--max-steps", "2")])).ok();
    let adapter = text(&run.join("adapter"));
    let eval = |model: &str, task: &str, adapter: &str, more: &[&str]| -> Said {
        let data = mini_data();
        let mut line = vec![
            "eval",
            "--model",
            model,
            "--task",
            task,
            "--data-dir",
            &data,
            "--adapter",
            adapter,
        ];
        line.extend(more);
        lowburn(line)
    };
    eval(&mini_model(), "rte", &adapter, &[]).ok();
    eval(&mini_model(), "rte", "/no/such/place", &[]).fails_with(&["/no/such/place"]);
    eval(&mini_model(), "rte", &mini_model(), &[]).fails_with(&["checkpoint", "--model"]);
    // Another base of the same shape, and one of another shape.
    let config = text(&mini().join("model/config.json"));
    let other = text(&dir.path().join("other"));
    let init = |config: &str| {
        let tokenizer = mini_model();
        let line = [
            "init",
            "--config",
            config,
            "--tokenizer",
            &tokenizer,
            "--output",
            &other,
            "--seed",
            "1",
            "--overwrite",
        ];
        lowburn(line).ok();
    };
    init(&config);
    eval(&other, "rte", &adapter, &[]).fails_with(&["another base", "--any-base"]);
    eval(&other, "rte", &adapter, &["--any-base"]).ok();
    let mut fields = common::json(&fs::read_to_string(&config).expect("the file"));
    fields["hidden_size"] = 64.into();
    let narrower = dir.path().join("config.json");
    fs::write(&narrower, fields.to_string()).expect("written");
    init(&text(&narrower));
    eval(&other, "rte", &adapter, &["--any-base"]).fails_with(&["lora_A"]);
    // Labels in another order.
    eval(&mini_model(), "mrpc", &adapter, &[]).fails_with(&["rte", "mrpc", "entailment"]);
    // A field that changes the maths and is not implemented.
    let config_path = run.join("adapter/adapter_config.json");
    let good = fs::read_to_string(&config_path).expect("the file");
    let mut fields = common::json(&good);
    fields["use_dora"] = true.into();
    fs::write(&config_path, fields.to_string()).expect("written");
    eval(&mini_model(), "rte", &adapter, &[]).fails_with(&["use_dora"]);
    fs::write(&config_path, good).expect("written");
    // Naming another rank than the folder to start from.
    let start = [("--init-adapter", adapter.as_str()), ("--rank", "4")];
    refused(&start, &["rank", "4", "8"]);
}

#[test]
fn texts_and_outputs_that_do_not_fit() {
    let (model, data) = (mini_model(), mini_data());
    let predict = |more: &[&str]| {
        let mut line = vec!["predict", "--model", &model, "--quiet"];
        line.extend(more);
        lowburn(line)
    };
    predict(&["--task", "rte", "--text", "a"]).fails_with(&["--text-pair"]);
    predict(&["--task", "sst2", "--text", "a", "--output", "x.csv"])
        .fails_with(&[".jsonl", ".tsv"]);
    predict(&["--task", "sst2", "--data-dir", &data, "--split", "dev"]).fails_with(&["dev"]);
    predict(&["--task", "sst2", "--input", "/no/such/file.tsv"]).fails_with(&["/no/such/file.tsv"]);
    let said = predict(&[
        "--task",
        "sst2",
        "--text",
        "a",
        "--output",
        "/no/such/place/x.tsv",
    ]);
    said.fails_with(&["/no/such/place/x.tsv"]);
}

/// Makes the last number of a tensor file no number.
fn spoil(path: &Path) {
    let mut bytes = fs::read(path).expect("the file");
    let end = bytes.len();
    bytes[end - 4..].fill(0xff);
    fs::write(path, bytes).expect("written");
}

/// `predict` of one typed row.
fn predict_row(task: &str, more: &[&str]) -> Said {
    let mut line = vec!["predict", "--quiet", "--task", task, "--text", "a"];
    if task != "sst2" {
        line.extend(["--text-pair", "b"]);
    }
    line.extend(more);
    lowburn(line)
}

#[test]
fn weights_that_are_no_numbers() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (folder, run) = (model_copy(dir.path()), dir.path().join("run"));
    spoil(&folder.join("model.safetensors"));
    let (spoilt, model, data) = (text(&folder), mini_model(), mini_data());
    let eval = |more: &[&str]| {
        let mut line = vec!["eval", "--task", "rte", "--data-dir", &data, "--json"];
        line.extend(more);
        lowburn(line)
    };
    let parts = [spoilt.as_str(), "NaN", "row 0", "validation"];
    eval(&["--model", &spoilt]).fails_with(&parts);
    let parts = [spoilt.as_str(), "NaN", "row 0", "--text"];
    predict_row("rte", &["--model", &spoilt]).fails_with(&parts);

    lowburn(train(&run, &[("--max-steps", "1")])).ok();
    spoil(&run.join("adapter/adapter_model.safetensors"));
    let adapter = text(&run.join("adapter"));
    let options = ["--model", &model, "--adapter", &adapter];
    let parts = [adapter.as_str(), model.as_str(), "NaN", "row 0"];
    eval(&options).fails_with(&parts);
    predict_row("rte", &options).fails_with(&parts);
}

#[test]
fn heads_that_do_not_fit_or_are_not_there() {
    // No head at all: random predictions, and a warning that --quiet does not take away.
    let said = predict_row("sst2", &["--model", &mini_model()]);
    assert!(
        said.stderr.starts_with("warning: ") && said.stderr.contains("random"),
        "{said:#?}"
    );
    said.ok();

    let dir = tempfile::tempdir().expect("a temporary folder");
    let (run, merged) = (dir.path().join("run"), dir.path().join("merged"));
    lowburn(train(&run, &[("--max-steps", "1")])).ok();
    let (model, adapter) = (mini_model(), text(&run.join("adapter")));
    let merge = |model: &str, output: &Path| {
        let output = text(output);
        let line = ["merge", "--model", model, "--adapter", &adapter];
        let line = line.into_iter().chain(["--any-base", "--quiet"]);
        lowburn(line.chain(["--output", &output]))
    };
    let said = merge(&model, &merged);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    // A head of two labels, and tasks that have three and one.
    fs::remove_file(merged.join("lowburn.json")).expect("removed");
    let headed = text(&merged);
    for task in ["mnli", "stsb"] {
        let said = predict_row(task, &["--model", &headed]);
        said.fails_with(&[&headed, "2 labels", task]);
    }
    let said = predict_row("rte", &["--model", &headed]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));

    // An adapter that has lost its head, on a base that has one.
    without_head(&run.join("adapter/adapter_model.safetensors"));
    let options = ["--model", &headed, "--adapter", &adapter, "--any-base"];
    for said in [
        predict_row("rte", &options),
        merge(&headed, &dir.path().join("again")),
    ] {
        let parts = [&adapter, &headed, "modules_to_save", "warning: "];
        assert!(
            parts.iter().all(|part| said.stderr.contains(*part)),
            "{said:#?}"
        );
        said.ok();
    }
}

/// Takes the head out of an adapter's file.
fn without_head(path: &Path) {
    let bytes = fs::read(path).expect("the file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let kept = tensors.tensors().into_iter();
    let kept = kept.filter(|(name, _)| !name.contains("classifier"));
    let bytes = safetensors::serialize(kept, None).expect("serialised");
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_tokenizer_without_special_tokens() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = model_copy(dir.path());
    let path = folder.join("tokenizer.json");
    let mut fields = common::json(&fs::read_to_string(&path).expect("the file"));
    fields["post_processor"] = serde_json::Value::Null;
    fs::write(&path, fields.to_string()).expect("written");
    let parts = ["tokenizer.json", "special tokens", "post_processor"];
    predict_row("sst2", &["--model", &text(&folder)]).fails_with(&parts);
    refused(&[("--model", &text(&folder))], &parts);
}

#[test]
fn options_that_contradict_are_named_as_typed() {
    let head = [("--method", "head"), ("--rank", "4")];
    refused(&head, &["--rank 4", "--method lora", "head"]);
    let said = lowburn([
        "inspect", "--model", "mini", "--method", "full", "--rank", "4",
    ]);
    said.fails_with(&["--rank 4", "--method lora", "full"]);

    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    lowburn(train(&run, &[("--max-steps", "1")])).ok();
    let adapter = text(&run.join("adapter"));
    let start = [
        ("--init-adapter", adapter.as_str()),
        ("--target", "query,key"),
    ];
    refused(&start, &["target is key,query: ", "has query,value;"]);
}

#[test]
fn a_missing_folder_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = text(&dir.path().join("none/x.tsv"));
    let said = predict_row("sst2", &["--model", &mini_model(), "--output", &output]);
    said.fails_with(&[&output, "create its folder first"]);
    let line = ["convert", "--to", "loralib", "x"];
    let said = lowburn(line.into_iter().chain(["--output", &output]));
    said.fails_with(&[&output, "create its folder first"]);
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
}

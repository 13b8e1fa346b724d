//! The commands one after the other, as a user types them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{copy_folder, json, lowburn, mini, mini_data, mini_model, text, train};
use serde_json::Value;

fn read_json(path: &Path) -> Value {
    json(&fs::read_to_string(path).expect("a file"))
}

fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("log.jsonl")).expect("a log");
    text.lines().map(json).collect()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn close(a: &Value, b: &Value, tolerance: f64) {
    let (a, b) = (number(a), number(b));
    assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{a} and {b}");
}

/// Number of layers and width of the mini checkpoint.
fn sizes() -> (u64, u64) {
    let config = read_json(&mini().join("model/config.json"));
    let size = |field: &str| config[field].as_u64().expect("a size");
    (size("num_hidden_layers"), size("hidden_size"))
}

/// `eval --json` of a model, with an adapter where there is one.
fn eval(model: &str, adapter: Option<&Path>, task: &str) -> Value {
    let data = mini_data();
    let mut line = vec![
        "eval",
        "--model",
        model,
        "--task",
        task,
        "--data-dir",
        &data,
        "--json",
        "--quiet",
    ];
    let adapter = adapter.map(text);
    if let Some(adapter) = &adapter {
        line.extend(["--adapter", adapter]);
    }
    json(&lowburn(line).ok())
}

/// The mini checkpoint without any dropout.
fn plain_model(dir: &Path) -> PathBuf {
    let folder = dir.join("plain");
    copy_folder(&mini().join("model"), &folder);
    let path = folder.join("config.json");
    let config = fs::read_to_string(&path).expect("the file");
    fs::write(&path, config.replace("_prob\": 0.1", "_prob\": 0.0")).expect("written");
    folder
}

#[test]
fn lora_from_training_to_predictions() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let options = [("--task", "sst2"), ("--train-rows", "400")];
    let said = lowburn(train(&run, &options)).ok();
    assert!(
        said.contains("accuracy") && said.contains("adapter"),
        "{said}"
    );
    let record = read_json(&run.join("run.json"));
    assert_eq!(record["status"], "finished");
    assert_eq!(record["steps"], 50);
    assert_eq!(record["config"]["lora"]["rank"], 8);
    assert_eq!(record["digest"].as_str().map(str::len), Some(64));
    assert!(number(&record["peak_memory_bytes"]) > 1e6);
    // Layers x query, value x (width x 8 + 8 x width), and the head.
    let (layers, width) = sizes();
    let parameters = &record["parameters"];
    assert_eq!(parameters["adapter"], layers * 2 * 2 * width * 8);
    assert_eq!(parameters["head"], width * width + width + 2 * width + 2);
    let lines = log(&run);
    assert_eq!(number(&lines[0]["lr"]), 0.0);
    assert_eq!(lines[0]["examples"], 8);
    assert_eq!(number(&lines[49]["epoch"]), 1.0);
    let fields: Vec<_> = lines[0].as_object().expect("an object").keys().collect();
    let expected = [
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "examples",
        "tokens",
    ];
    assert_eq!(fields, expected);

    // Evaluation again gives what the run recorded.
    let adapter = run.join("adapter");
    let scores = eval(&mini_model(), Some(&adapter), "sst2");
    assert_eq!(scores["split"], "validation");
    close(&scores["scores"]["accuracy"], &record["best"]["value"], 0.0);
    close(&scores["loss"], &record["evaluations"][0]["loss"], 1e-6);

    // So do the predictions.
    let (file, model, data) = (dir.path().join("p.jsonl"), mini_model(), mini_data());
    let (file_text, adapter_text) = (text(&file), text(&adapter));
    let predict = |more: &[&str]| {
        let mut line = vec![
            "predict",
            "--model",
            &model,
            "--adapter",
            &adapter_text,
            "--task",
            "sst2",
        ];
        line.extend(more);
        lowburn(line).ok()
    };
    predict(&[
        "--data-dir",
        &data,
        "--split",
        "validation",
        "--output",
        &file_text,
    ]);
    let predictions = fs::read_to_string(&file).expect("predictions");
    let rows: Vec<Value> = predictions.lines().map(json).collect();
    assert_eq!(rows.len() as u64, scores["rows"].as_u64().expect("rows"));
    let right = rows
        .iter()
        .filter(|row| row["label"] == row["prediction"])
        .count();
    let accuracy = right as f64 / rows.len() as f64;
    assert_eq!(accuracy, number(&scores["scores"]["accuracy"]));
    for row in &rows {
        let sum: f64 = row["probabilities"]
            .as_array()
            .expect("numbers")
            .iter()
            .map(number)
            .sum();
        assert!((sum - 1.0).abs() < 1e-9);
        let second = number(&row["logits"][1]) > number(&row["logits"][0]);
        assert_eq!(row["prediction"], u8::from(second));
    }
    let typed = json(&predict(&["--text", "a fine film"]));
    assert_eq!(typed["idx"], 0);
    assert!(typed["label"].is_null());
    // A test split has no labels, and GLUE takes two columns.
    let tsv = dir.path().join("p.tsv");
    predict(&[
        "--data-dir",
        &data,
        "--split",
        "test",
        "--output",
        &text(&tsv),
    ]);
    let tsv = fs::read_to_string(&tsv).expect("predictions");
    assert!(tsv.starts_with("index\tprediction\n0\t"), "{tsv}");

    // Merged, the model is one checkpoint with the same loss.
    let merged = text(&dir.path().join("merged"));
    lowburn([
        "merge",
        "--model",
        &model,
        "--adapter",
        &adapter_text,
        "--output",
        &merged,
    ])
    .ok();
    let config = read_json(&Path::new(&merged).join("config.json"));
    assert_eq!(config["id2label"]["1"], "positive");
    let again = eval(&merged, None, "sst2");
    close(&again["loss"], &scores["loss"], 1e-5);

    // Through loralib's format and back nothing changes.
    let bin = text(&dir.path().join("lora.bin"));
    let back = dir.path().join("back");
    lowburn([
        "convert",
        "--to",
        "loralib",
        &adapter_text,
        "--output",
        &bin,
    ])
    .ok();
    lowburn([
        "convert",
        "--from",
        "loralib",
        "--alpha",
        "16",
        &bin,
        "--output",
        &text(&back),
    ])
    .ok();
    assert_eq!(eval(&model, Some(&back), "sst2"), scores);
}

#[test]
fn full_and_head_leave_what_eval_takes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (method, lr) in [("full", "2e-4"), ("head", "1e-2"), ("bitfit", "5e-3")] {
        let run = dir.path().join(method);
        let options = [("--method", method), ("--lr", lr), ("--epochs", "2")];
        lowburn(train(&run, &options)).ok();
        let record = read_json(&run.join("run.json"));
        let scores = match method {
            "full" => eval(&text(&run.join("model")), None, "rte"),
            _ => eval(&mini_model(), Some(&run.join(method)), "rte"),
        };
        close(&scores["scores"]["accuracy"], &record["best"]["value"], 0.0);
        let parameters = &record["parameters"];
        assert_eq!(parameters["adapter"], 0);
        let trainable = &parameters["trainable"];
        match method {
            "full" => assert_eq!(trainable, &parameters["total"]),
            "head" => assert_eq!(trainable, &parameters["head"]),
            _ => {
                // In a layer the biases of seven modules as wide as the model and of the inner one; LayerNorm below.
                let (layers, width) = sizes();
                let biases = layers * (7 * width + 256) + width;
                let head = parameters["head"].as_u64().expect("a number");
                assert_eq!(trainable.as_u64(), Some(head + biases));
            }
        }
    }
    // A head is merged like an adapter.
    let merged = text(&dir.path().join("merged"));
    let head = dir.path().join("head/head");
    lowburn([
        "merge",
        "--model",
        &mini_model(),
        "--adapter",
        &text(&head),
        "--output",
        &merged,
    ])
    .ok();
    let (a, b) = (
        eval(&merged, None, "rte"),
        eval(&mini_model(), Some(&head), "rte"),
    );
    close(&a["loss"], &b["loss"], 1e-6);
}

#[test]
fn a_submission_holds_all_that_the_server_wants() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    lowburn(train(&run, &[("--train-rows", "32")])).ok();
    let archive = dir.path().join("glue.zip");
    let submit = |options: &[&str], models: &[String]| {
        let (archive, data) = (text(&archive), mini_data());
        let mut line = vec!["submit", "--output", &archive, "--data-dir", &data];
        line.extend(options);
        line.extend(models.iter().map(String::as_str));
        lowburn(line)
    };
    let model = |task: &str| format!("{task}={}", text(&run));
    submit(&[], &[model("rte")]).fails_with(&["no model for cola, sst2", "--fill"]);
    submit(&["--fill"], &[model("qnli")]).fails_with(&["qnli=", "that run is of rte"]);
    submit(&["--fill"], &[model("rte"), model("rte")]).fails_with(&["rte is given twice"]);
    submit(&["--fill"], &["ax=x".to_owned()]).fails_with(&["ax=x", "model of mnli"]);
    submit(&["--fill"], &["rte=nowhere".to_owned()]).fails_with(&["nowhere", "no such folder"]);
    submit(
        &["--fill"],
        &[format!("rte={}", text(&run.join("adapter")))],
    )
    .fails_with(&["--model"]);
    assert!(!archive.exists());

    submit(&["--fill"], &[model("rte")]).ok();
    let file = fs::File::open(&archive).expect("the archive");
    let mut zip = zip::ZipArchive::new(file).expect("a zip");
    let mut names: Vec<String> = zip.file_names().map(str::to_owned).collect();
    names.sort();
    let expected = [
        "AX.tsv",
        "CoLA.tsv",
        "MNLI-m.tsv",
        "MNLI-mm.tsv",
        "MRPC.tsv",
        "QNLI.tsv",
        "QQP.tsv",
        "RTE.tsv",
        "SST-2.tsv",
        "STS-B.tsv",
        "WNLI.tsv",
    ];
    assert_eq!(names, expected);
    let mut read = |name: &str| {
        let mut entry = zip.by_name(name).expect("an entry");
        std::io::read_to_string(&mut entry).expect("text")
    };
    let predictions = dir.path().join("rte.tsv");
    let (adapter, base, data) = (text(&run.join("adapter")), mini_model(), mini_data());
    lowburn([
        "predict",
        "--model",
        &base,
        "--adapter",
        &adapter,
        "--task",
        "rte",
        "--data-dir",
        &data,
        "--split",
        "test",
        "--output",
        &text(&predictions),
    ])
    .ok();
    assert_eq!(
        read("RTE.tsv"),
        fs::read_to_string(&predictions).expect("a table")
    );
    // Constant, in the server's words, as many as the server wants.
    assert_eq!(read("WNLI.tsv").lines().count(), 1 + 146);
    assert!(read("AX.tsv").ends_with("1103\tentailment\n"));
    assert!(read("STS-B.tsv").starts_with("index\tprediction\n0\t0.000\n"));
    submit(&["--fill"], &[model("rte")]).fails_with(&["exists", "--overwrite"]);
}

#[test]
fn accumulation_is_the_mean_of_the_whole() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = text(&plain_model(dir.path()));
    let run = |batch: &str, accumulate: &str| {
        let output = dir.path().join(batch);
        let options = [
            ("--model", model.as_str()),
            ("--batch-size", batch),
            ("--accumulate", accumulate),
            // 3 steps of 12 and one of 2, whose micro-batches are 2 alone, or 2 rows at once.
            ("--train-rows", "38"),
            ("--shuffle", "false"),
        ];
        lowburn(train(&output, &options)).ok();
        log(&output)
    };
    let (whole, parts) = (run("12", "1"), run("4", "3"));
    assert_eq!((whole.len(), parts.len()), (4, 4));
    for (whole, parts) in whole.iter().zip(&parts) {
        for field in ["step", "epoch", "lr", "examples", "tokens"] {
            assert_eq!(whole[field], parts[field]);
        }
        close(&whole["loss"], &parts["loss"], 1e-5);
        close(&whole["grad_norm"], &parts["grad_norm"], 1e-4);
    }
}

#[test]
fn a_run_may_start_from_an_adapter() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = dir.path().join("first");
    lowburn(train(&first, &[("--rank", "3"), ("--alpha", "5")])).ok();
    let adapter = text(&first.join("adapter"));
    // With a rate of 0 nothing moves, so the adapter that is kept is the one that was given.
    let second = dir.path().join("second");
    let options = [
        ("--init-adapter", adapter.as_str()),
        ("--lr", "0"),
        ("--max-steps", "2"),
    ];
    lowburn(train(&second, &options)).ok();
    let tensors =
        |run: &Path| fs::read(run.join("adapter/adapter_model.safetensors")).expect("there");
    assert!(tensors(&first) == tensors(&second));
    let record = read_json(&second.join("run.json"));
    assert_eq!(record["config"]["lora"]["rank"], 3);
    // Named again, the same values are no contradiction.
    let third = dir.path().join("third");
    let options = [
        ("--init-adapter", adapter.as_str()),
        ("--rank", "3"),
        ("--max-steps", "1"),
    ];
    lowburn(train(&third, &options)).ok();
}

#[test]
fn inspect_and_init() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // As the README has it: a model of fewer than 128 positions.
    let line = "inspect --model mini --method lora --rank 8";
    let table = lowburn(line.split(' ')).ok();
    assert!(table.contains("16 rows of 64 tokens"), "{table}");
    let model = mini_model();
    let table = lowburn([
        "inspect",
        "--model",
        &model,
        "--method",
        "lora",
        "--rank",
        "4",
        "--max-length",
        "64",
    ])
    .ok();
    assert!(
        table.contains("roberta.encoder.layer.*.attention.self.query.lora_A.weight"),
        "{table}"
    );
    let (layers, width) = sizes();
    let adapter = layers * 2 * 2 * width * 4;
    let adapter = format!("{},{:03}", adapter / 1000, adapter % 1000);
    assert!(table.contains(&adapter), "{table}");
    let full = json(
        &lowburn([
            "inspect",
            "--model",
            &model,
            "--method",
            "full",
            "--json",
            "--max-length",
            "64",
        ])
        .ok(),
    );
    assert_eq!(full["parameters"]["trainable"], full["parameters"]["total"]);

    let config = text(&mini().join("model/config.json"));
    let init = |seed: &str| {
        let output = text(&dir.path().join(seed));
        lowburn([
            "init",
            "--config",
            &config,
            "--tokenizer",
            &model,
            "--output",
            &output,
            "--seed",
            seed,
        ])
        .ok();
        fs::read(Path::new(&output).join("model.safetensors")).expect("weights")
    };
    assert!(init("1") != init("2"));
    let again = fs::read(dir.path().join("1/model.safetensors")).expect("weights");
    fs::rename(dir.path().join("1"), dir.path().join("first")).expect("moved");
    assert!(init("1") == again);
    let run = dir.path().join("run");
    let random = text(&dir.path().join("1"));
    lowburn(train(
        &run,
        &[("--model", random.as_str()), ("--max-steps", "2")],
    ))
    .ok();
}

#[test]
fn results_go_to_standard_output_and_quiet_is_quiet() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = dir.path().join("run");
    let said = lowburn(train(&run, &[("--quiet", "")]));
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (Some(0), ""),
        "{said:#?}"
    );
    assert!(said.stdout.contains("accuracy"));
    let other = dir.path().join("other");
    let said = lowburn(train(&other, &[]));
    for part in ["new", "training rows", "step 1/8", "validation"] {
        assert!(said.stderr.contains(part), "no {part:?} in {said:#?}");
    }
    let help = lowburn(["--help"]).ok();
    assert!(
        help.contains("train") && help.contains("Examples") && !help.contains('\x1b'),
        "{help}"
    );
    lowburn(["train", "--help"]).ok();
}

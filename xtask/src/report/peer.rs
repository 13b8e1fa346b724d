//! Our runs beside the same runs by PyTorch + PEFT, as a section of a grid's page.

use super::page::{MISSING, SHARED, mean_time};
use super::stats::Summary;
use super::table::{Align, Table};
use super::words;
use crate::record::Record;
use crate::results::{CellResults, Results};

/// In the place of times that two machines took.
const ELSEWHERE: &str = "another machine";

/// Heading, words and table; nothing when the peer has no run.
pub(super) fn section(results: &Results) -> String {
    let methods: Vec<String> = results
        .peer_methods()
        .map(|approach| approach.slug())
        .collect();
    if methods.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("Task", Align::Left),
        ("Method", Align::Left),
        ("lowburn", Align::Right),
        (words::PEER, Align::Right),
        ("Difference", Align::Right),
        ("Ranges overlap", Align::Left),
        ("Time: lowburn", Align::Right),
        (words::PEER, Align::Right),
    ]);
    for cell in &results.cells {
        if methods.contains(&cell.cell.approach.slug()) {
            table.row(row(cell));
        }
    }
    format!(
        "\n## Beside {}\n\nThe same recipes run by `scripts/peer/grid.py {}`, records in `peer/`: mean and standard \
         deviation over seeds of each run's best score, with the number of runs in parentheses. The two sides \
         draw their random numbers differently, so only the distributions can agree, not the runs; the last word on a \
         difference is whether the ranges of the seeds overlap. Methods that the peer did not run are left out.\n\n{}",
        words::PEER,
        results.grid.name,
        table.markdown()
    )
}

fn row(cell: &CellResults) -> Vec<String> {
    let (ours, peer) = (
        Summary::of(&cell.points()),
        Summary::of(&cell.peer_points()),
    );
    let mut row = vec![
        words::task(cell.cell.task).to_owned(),
        cell.cell.approach.label(),
        with_count(ours),
        with_count(peer),
    ];
    if let (Some(ours), Some(peer)) = (ours, peer) {
        row.push(format!("{:+.1}", ours.mean - peer.mean));
        row.push(overlap(&ours, &peer).to_owned());
        row.extend(times(&cell.ours, &cell.peer));
    }
    row
}

fn with_count(summary: Option<Summary>) -> String {
    summary.map_or(MISSING.to_owned(), |summary| {
        format!("{} ({})", summary.mean_and_deviation(), summary.count)
    })
}

/// Whether the ranges of the seeds have a value in common; a single seed has no range.
fn overlap(ours: &Summary, peer: &Summary) -> &'static str {
    if ours.count < 2 || peer.count < 2 {
        "too few seeds"
    } else if ours.min <= peer.max && peer.min <= ours.max {
        "yes"
    } else {
        "no"
    }
}

/// Mean times of both sides; words instead unless all were taken on one machine that did nothing else.
fn times(ours: &[(u64, Record)], peer: &[(u64, Record)]) -> [String; 2] {
    let all = || ours.iter().chain(peer).map(|(_, record)| record);
    let place = |record: &Record| (record.cpu.clone(), record.threads);
    let first = all().next().map(place);
    if !all().all(|record| record.timing_valid) {
        return [SHARED, SHARED].map(str::to_owned);
    }
    if all().any(|record| Some(place(record)) != first) {
        return [ELSEWHERE, ELSEWHERE].map(str::to_owned);
    }
    [ours, peer].map(mean_time)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::grid::Grid;
    use crate::report;
    use crate::results::Results;

    const GRID: &str = r#"
        title = "t"
        about = "a"
        model = "some"
        data = "glue"
        seeds = [0, 1]
        [common]
        method = "lora"
        rank = 8
        alpha = 16.0
        targets = "query,value"
        lora_dropout = 0.0
        lr = 1e-3
        epochs = 2
        batch_size = 16
        weight_decay = 0.1
        warmup_ratio = 0.06
        max_length = 128
        group_by_length = false
        eval_every = "epoch"
        [[cell]]
        task = "mrpc"
        [[cell]]
        task = "rte"
    "#;

    /// A grid of its own in a folder of its own.
    fn place() -> (tempfile::TempDir, Grid) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.toml");
        fs::write(&path, GRID).unwrap();
        let grid = Grid::load(path.to_str().unwrap()).unwrap();
        (folder, grid)
    }

    fn record(task: &str, seed: u64, best: f64, peer: bool) -> Value {
        let scores = |value: f64| json!({"accuracy": value, "f1": value});
        let evaluations: Vec<Value> = [(1.0, best - 0.02), (2.0, best)]
            .map(|(epoch, value)| {
                json!({"step": 1, "epoch": epoch, "split": "validation", "scores": scores(value)})
            })
            .to_vec();
        let mut record = json!({
            "config": {
                "model": "some", "task": task, "method": "lora",
                "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["query", "value"]},
                "lr": 1e-3, "epochs": 2, "batch_size": 16, "accumulate": 1, "weight_decay": 0.1,
                "max_length": 128, "seed": seed,
            },
            "digests": {"model": {"model.safetensors": "aa"}, "data": {"train": "bb"}},
            "threads": 2, "cpu": "a processor",
            "parameters": {"total": 100, "trainable": 10, "adapter": 6, "head": 4},
            "evaluations": evaluations,
            "best": {"epoch": 2.0, "metric": "accuracy", "value": best},
            "timing": {"total_seconds": 60.0, "examples_per_second": 10.0},
            "peak_memory_bytes": 1, "status": "finished",
        });
        if peer {
            record["framework"] = "pytorch+peft".into();
            record["config"]["warmup_ratio"] = json!(0.06);
            record["timing"]["total_seconds"] = json!(90.0);
        } else {
            record["digest"] = "dd".into();
            record["config"]["warmup"] = json!({"ratio": 0.06});
        }
        record
    }

    fn put(folder: &Path, name: &str, record: &Value) {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("run.json"), record.to_string()).unwrap();
    }

    fn fill(folder: &Path) {
        for (seed, ours, peer) in [(0, 0.86, 0.88), (1, 0.88, 0.87)] {
            let name = format!("mrpc-lora-r8-seed{seed}");
            put(
                &folder.join("records"),
                &name,
                &record("mrpc", seed, ours, false),
            );
            put(
                &folder.join("peer"),
                &name,
                &record("mrpc", seed, peer, true),
            );
        }
        put(
            &folder.join("records"),
            "rte-lora-r8-seed0",
            &record("rte", 0, 0.7, false),
        );
    }

    /// The cells of the table's row that begins with this task.
    fn row(text: &str, task: &str) -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("| {task} ")))
            .unwrap();
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn the_table_shows_both_sides_and_what_is_missing() {
        let (folder, grid) = place();
        assert_eq!(
            super::section(&Results::load(&grid, folder.path()).unwrap()),
            ""
        );
        fill(folder.path());
        let text = super::section(&Results::load(&grid, folder.path()).unwrap());
        assert_eq!(
            row(&text, "MRPC"),
            [
                "MRPC",
                "LoRA r 8",
                "87.0 ± 1.4 (2)",
                "87.5 ± 0.7 (2)",
                "-0.5",
                "yes",
                "60 s",
                "90 s"
            ]
        );
        assert_eq!(row(&text, "RTE")[2..4], ["70.0 (1)", "missing"]);
    }

    #[test]
    fn ranges_apart_and_times_that_cannot_be_compared_are_said() {
        let (folder, grid) = place();
        fill(folder.path());
        let peer = folder.path().join("peer");
        let mut worse = record("mrpc", 0, 0.80, true);
        worse["timing_valid"] = false.into();
        put(&peer, "mrpc-lora-r8-seed0", &worse);
        put(&peer, "mrpc-lora-r8-seed1", &record("mrpc", 1, 0.81, true));
        let text = super::section(&Results::load(&grid, folder.path()).unwrap());
        assert_eq!(
            row(&text, "MRPC")[5..],
            ["no", "shared machine", "shared machine"]
        );
        worse["timing_valid"] = true.into();
        worse["threads"] = 8.into();
        put(&peer, "mrpc-lora-r8-seed0", &worse);
        let text = super::section(&Results::load(&grid, folder.path()).unwrap());
        assert_eq!(row(&text, "MRPC")[6], "another machine");
    }

    #[test]
    fn a_peer_that_did_something_else_is_refused() {
        let (folder, grid) = place();
        fill(folder.path());
        let cases: [(&str, Value, &str); 8] = [
            ("/framework", Value::Null, "framework None"),
            ("/config/model", "other".into(), "model \"other\""),
            ("/config/warmup_ratio", json!(0.1), "warmup"),
            ("/config/lora/dropout", json!(0.1), "dropout"),
            ("/config/lora/targets", json!(["query"]), "targets"),
            ("/config/epochs", 3.into(), "epochs 3, the grid says 2"),
            ("/digests/data/train", "cc".into(), "data files"),
            (
                "/digests/model/model.safetensors",
                "cc".into(),
                "model.safetensors",
            ),
        ];
        for (place, value, expected) in cases {
            let mut changed = record("mrpc", 0, 0.88, true);
            *changed.pointer_mut(place).unwrap() = value;
            put(&folder.path().join("peer"), "mrpc-lora-r8-seed0", &changed);
            let error = Results::load(&grid, folder.path()).unwrap_err();
            let message = format!("{error:#}");
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
        for (key, value) in [
            ("train_rows", json!(100)),
            ("max_steps", json!(5)),
            ("eval_every", json!({"steps": 5})),
        ] {
            let mut changed = record("mrpc", 0, 0.88, true);
            changed["config"][key] = value;
            put(&folder.path().join("peer"), "mrpc-lora-r8-seed0", &changed);
            let message = format!("{:#}", Results::load(&grid, folder.path()).unwrap_err());
            assert!(message.contains(key), "{message} lacks {key}");
        }
    }

    #[test]
    fn the_check_sees_a_changed_record_of_the_peer_and_one_too_many() {
        let (folder, grid) = place();
        fill(folder.path());
        report::write(&grid, folder.path()).unwrap();
        report::check(&grid, folder.path()).unwrap();
        let figure = fs::read_to_string(folder.path().join("peer.svg")).unwrap();
        assert!(figure.contains("MRPC") && figure.contains("PyTorch + PEFT"));
        let page = fs::read_to_string(folder.path().join("README.md")).unwrap();
        assert!(page.contains("(peer.svg)"));

        let peer = folder.path().join("peer");
        put(&peer, "mrpc-lora-r8-seed1", &record("mrpc", 1, 0.871, true));
        let message = report::check(&grid, folder.path()).unwrap_err().to_string();
        assert!(message.contains("peer.svg"), "{message}");
        put(&peer, "mrpc-lora-r8-seed1", &record("mrpc", 1, 0.87, true));
        report::check(&grid, folder.path()).unwrap();
        put(&peer, "mrpc-lora-r8-seed7", &record("mrpc", 7, 0.87, true));
        let message = report::check(&grid, folder.path()).unwrap_err().to_string();
        assert!(message.contains("mrpc-lora-r8-seed7"), "{message}");
    }
}

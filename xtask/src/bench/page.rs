//! Benchmark records, and the table in `docs/performance.md` that is rendered from them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::{Align, Table, bytes, replace_part};
use crate::workspace;

/// One benchmark, as `results/bench/<work>.json` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Name of the work, and of the file.
    pub(crate) work: String,
    /// What was timed, in words.
    pub(crate) title: String,
    /// `lora` or `full`.
    pub(crate) method: String,
    /// Rank of the adapters.
    pub(crate) rank: Option<usize>,
    /// Hidden and attention dropout.
    pub(crate) dropout: f64,
    /// Rows of a step.
    pub(crate) batch: usize,
    /// Tokens of a row.
    pub(crate) length: usize,
    /// The processor.
    pub(crate) cpu: String,
    /// Threads of each side.
    pub(crate) threads: usize,
    /// lowburn.
    pub(crate) ours: Side,
    /// PyTorch + PEFT, when it was there.
    pub(crate) peer: Option<Side>,
    /// Median over the pairs of our seconds by the peer's.
    pub(crate) ratio: Option<f64>,
}

/// One side of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Side {
    /// What ran.
    pub(crate) versions: Value,
    /// Trained parameters.
    pub(crate) trainable: Option<u64>,
    /// Seconds of every step, in order.
    pub(crate) seconds: Vec<f64>,
    /// Their median.
    pub(crate) median: f64,
    /// Largest resident memory of the process.
    pub(crate) peak_bytes: Option<u64>,
}

const PART: &str = "bench";

/// The table of some records.
pub(crate) fn table(records: &[Record]) -> Table {
    let mut table = Table::new([
        ("Work", Align::Left),
        ("lowburn", Align::Right),
        ("PyTorch + PEFT", Align::Right),
        ("Ratio", Align::Right),
        ("Memory: lowburn", Align::Right),
        ("PyTorch + PEFT", Align::Right),
    ]);
    for record in records {
        let peer = record.peer.as_ref();
        let memory = |side: &Side| side.peak_bytes.map(bytes).unwrap_or_default();
        table.row([
            record.title.clone(),
            format!("{:.2} s", record.ours.median),
            peer.map_or("not timed".to_owned(), |peer| {
                format!("{:.2} s", peer.median)
            }),
            record
                .ratio
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
            memory(&record.ours),
            peer.map(memory).unwrap_or_default(),
        ]);
    }
    table
}

/// Renders the table into the document.
///
/// # Errors
/// For an unreadable record, or a document without its place.
pub(crate) fn write() -> Result<()> {
    let (path, _, new) = render()?;
    workspace::write(&path, &new)
}

/// Fails when rendering again would change the document.
///
/// # Errors
/// Naming the document.
pub(crate) fn check() -> Result<()> {
    let (path, old, new) = render()?;
    if old != new {
        bail!(
            "{} is not what results/bench gives; run `cargo xtask bench --render`",
            path.display()
        );
    }
    Ok(())
}

fn render() -> Result<(PathBuf, String, String)> {
    let path = workspace::root().join("docs").join("performance.md");
    let old =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let records = read()?;
    let content = if records.is_empty() {
        "No measurement is recorded yet; `cargo xtask bench --python python` makes one.".to_owned()
    } else {
        let mut text = table(&records).markdown();
        for record in &records {
            text += &format!(
                "\n{}: {} pairs on {}, {} threads.",
                record.title,
                record.ours.seconds.len(),
                record.cpu,
                record.threads
            );
        }
        text
    };
    let new =
        replace_part(&old, PART, &content).with_context(|| format!("in {}", path.display()))?;
    Ok((path, old, new))
}

fn read() -> Result<Vec<Record>> {
    let folder = workspace::results("bench");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is no benchmark record", path.display()))
        })
        .collect()
}

//! Benchmark records, and the table in `docs/performance.md` that is rendered from them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::work::Work;
use super::{estimate, growth};
use crate::report::{Align, Table, bytes, replace_part};
use crate::workspace;

/// One benchmark, as `results/bench/<work>.json` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Name of the work, and of the file.
    pub(crate) work: String,
    /// What was timed, in words.
    pub(crate) title: String,
    /// What stands on the other side; PyTorch + PEFT where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
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
    /// The other side, when it was there.
    pub(crate) peer: Option<Side>,
    /// Median over the pairs of our seconds by the other side's.
    pub(crate) ratio: Option<f64>,
    /// Share of our threads' time that went into products of matrices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) products: Option<f64>,
}

/// One side of a benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Side {
    /// What ran.
    pub(crate) versions: Value,
    /// Trained parameters.
    pub(crate) trainable: Option<u64>,
    /// Seconds of every pair, in order.
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
        ("Goal", Align::Right),
        ("Memory: lowburn", Align::Right),
        ("PyTorch + PEFT", Align::Right),
        ("Ratio", Align::Right),
        ("Goal", Align::Right),
    ]);
    for record in records {
        let peer = record.peer.as_ref();
        let work = Work::named(&record.work);
        let memory = |side: &Side| side.peak_bytes.map(bytes).unwrap_or_default();
        let number = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}"));
        let other = |text: String| match &record.against {
            Some(name) => format!("{name}: {text}"),
            None => text,
        };
        table.row([
            record.title.clone(),
            seconds(record.ours.median),
            peer.map_or("not timed".to_owned(), |peer| other(seconds(peer.median))),
            number(record.ratio).unwrap_or_default(),
            number(work.and_then(Work::goal)).unwrap_or_default(),
            memory(&record.ours),
            peer.map(memory).unwrap_or_default(),
            number(record.memory_ratio()).unwrap_or_default(),
            number(work.and_then(Work::memory_goal)).unwrap_or_default(),
        ]);
    }
    table
}

fn seconds(value: f64) -> String {
    if value < 1.0 {
        format!("{:.0} ms", 1e3 * value)
    } else {
        format!("{value:.2} s")
    }
}

impl Record {
    /// Our peak memory by the other side's.
    fn memory_ratio(&self) -> Option<f64> {
        let peer = self.peer.as_ref()?.peak_bytes?;
        Some(self.ours.peak_bytes? as f64 / peer as f64)
    }

    /// On what it was measured, and how much of it was products.
    fn remark(&self) -> String {
        let mut text = format!(
            "{}: {} pairs on {}, {} threads",
            self.title,
            self.ours.seconds.len(),
            self.cpu,
            self.threads
        );
        if let Some(share) = self.products {
            text += &format!(
                "; {:.0} % of our threads' time in products of matrices",
                1e2 * share
            );
        }
        text + "."
    }
}

/// Renders the tables into the document, and the figure.
///
/// # Errors
/// For an unreadable record, or a document without its place.
pub(crate) fn write() -> Result<()> {
    for (path, _, new) in render()? {
        workspace::write(&path, &new)?;
    }
    Ok(())
}

/// Fails when rendering again would change anything.
///
/// # Errors
/// Naming the document.
pub(crate) fn check() -> Result<()> {
    for (path, old, new) in render()? {
        if old != new {
            bail!(
                "{} is not what results/bench gives; run `cargo xtask bench --render`",
                path.display()
            );
        }
    }
    Ok(())
}

/// What is rendered: where, what is there, and what should be.
fn render() -> Result<Vec<(PathBuf, String, String)>> {
    let path = workspace::root().join("docs").join("performance.md");
    let old =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let records = read()?;
    let content = if records.is_empty() {
        "No measurement is recorded yet; `cargo xtask bench --python python` makes one.".to_owned()
    } else {
        let mut text = table(&records).markdown();
        for record in &records {
            text += &format!("\n- {}", record.remark());
        }
        text
    };
    let mut new =
        replace_part(&old, PART, &content).with_context(|| format!("in {}", path.display()))?;
    let growth = growth::read()?;
    let content = growth.as_ref().map_or_else(
        || "Not measured yet; `cargo xtask bench --growth --python python` does it.".to_owned(),
        growth::Growth::markdown,
    );
    new = replace_part(&new, growth::NAME, &content)
        .with_context(|| format!("in {}", path.display()))?;
    let content = estimate::read()?.as_ref().map_or_else(
        || "Not measured yet; `cargo xtask bench --estimate` does it.".to_owned(),
        estimate::Estimates::markdown,
    );
    new = replace_part(&new, estimate::NAME, &content)
        .with_context(|| format!("in {}", path.display()))?;
    let mut files = vec![(path, old, new)];
    if let Some(growth) = growth {
        let path = workspace::results("bench").join(format!("{}.svg", growth::NAME));
        let old = fs::read_to_string(&path).unwrap_or_default();
        files.push((path, old, growth.figure()?));
    }
    Ok(files)
}

/// What a file of results/bench holds.
///
/// # Errors
/// When it cannot be read, or is something else.
pub(super) fn parsed<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no benchmark record", path.display()))
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
    let mut records: Vec<Record> = paths
        .iter()
        .filter(|path| {
            let others = [growth::NAME, estimate::NAME];
            path.file_stem()
                .is_none_or(|stem| others.iter().all(|name| stem != *name))
        })
        .map(|path| parsed(path))
        .collect::<Result<_>>()?;
    let place = |record: &Record| Work::ALL.iter().position(|work| work.name() == record.work);
    records.sort_by_key(|record| (place(record).unwrap_or(usize::MAX), record.work.clone()));
    Ok(records)
}

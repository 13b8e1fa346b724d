//! How time and memory of a LoRA step grow with length, batch, rank and layers, ours beside PyTorch + PEFT.

use std::collections::BTreeSet;

use anyhow::Result;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::work::Work;
use super::{BenchArgs, Record, Side, one};
use crate::report::canvas::{Area, Entry, Mark, PEER, drawing, figure, panel};
use crate::report::{Align, Table, bytes};
use crate::workspace;

/// Name of the record, and of the figure.
pub(crate) const NAME: &str = "growth";
const OURS: RGBColor = RGBColor(0, 98, 168);

/// What changes; everything else stays at [`BASE`].
const AXES: [(&str, &[usize]); 4] = [
    ("length", &[32, 64, 128, 256, 512]),
    ("batch", &[2, 4, 8, 16, 32]),
    ("rank", &[1, 4, 16, 64, 256]),
    ("layers", &[3, 6, 12, 24]),
];

/// Rows of a step, tokens of a row, rank, layers.
const BASE: [usize; 4] = [8, 64, 8, 12];

/// Pairs of steps for a point.
const PAIRS: usize = 3;

/// One size that was timed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Point {
    /// What changes.
    axis: String,
    /// Its value.
    value: usize,
    /// Median seconds of a step.
    seconds: f64,
    peer_seconds: Option<f64>,
    ratio: Option<f64>,
    /// Largest resident memory.
    memory: Option<u64>,
    peer_memory: Option<u64>,
}

impl Point {
    /// Seconds, or peak memory in gigabytes, of one side.
    fn drawn(&self, ours: bool, memory: bool) -> Option<f64> {
        let gigabytes = |size: Option<u64>| size.map(|size| size as f64 / 1e9);
        match (memory, ours) {
            (false, true) => Some(self.seconds),
            (false, false) => self.peer_seconds,
            (true, true) => gigabytes(self.memory),
            (true, false) => gigabytes(self.peer_memory),
        }
    }
}

/// All sizes, and where they were timed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Growth {
    cpu: String,
    threads: usize,
    points: Vec<Point>,
}

/// Times every size, and keeps the record.
///
/// # Errors
/// Those of a benchmark.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let mut growth = Growth {
        cpu: String::new(),
        threads: args.threads(),
        points: Vec::new(),
    };
    for (axis, values) in AXES {
        for &value in values {
            eprintln!("{axis} {value}");
            let record = one(Work::LoraStep, &sized(args, axis, value))?;
            growth.cpu.clone_from(&record.cpu);
            growth.points.push(point(axis, value, &record));
        }
    }
    println!("{}", growth.table().markdown());
    if args.dry_run {
        return Ok(());
    }
    let path = workspace::results("bench").join(format!("{NAME}.json"));
    workspace::write(&path, &(serde_json::to_string_pretty(&growth)? + "\n"))?;
    super::write()
}

fn sized(args: &BenchArgs, axis: &str, value: usize) -> BenchArgs {
    let at = |name: &str, base: usize| if axis == name { value } else { base };
    let [batch, length, rank, layers] = BASE;
    BenchArgs {
        steps: PAIRS,
        batch: at("batch", batch),
        length: at("length", length),
        rank: at("rank", rank),
        layers: at("layers", layers),
        ..args.clone()
    }
}

fn point(axis: &str, value: usize, record: &Record) -> Point {
    let peer = record.peer.as_ref();
    Point {
        axis: axis.to_owned(),
        value,
        seconds: record.ours.median,
        peer_seconds: peer.map(|peer| peer.median),
        ratio: record.ratio,
        memory: record.ours.peak_bytes,
        peer_memory: peer.and_then(|peer: &Side| peer.peak_bytes),
    }
}

/// The record that is there.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read() -> Result<Option<Growth>> {
    let path = workspace::results("bench").join(format!("{NAME}.json"));
    if !path.exists() {
        return Ok(None);
    }
    super::page::parsed(&path).map(Some)
}

impl Growth {
    /// What the document says of it.
    pub(crate) fn markdown(&self) -> String {
        let [batch, length, rank, layers] = BASE;
        format!(
            "One of four sizes changes, the others are {batch} rows, {length} tokens, rank {rank} and {layers} layers. Median of \
             {PAIRS} steps on {}, {} threads.\n\n![Time and memory of a LoRA step by size](../results/bench/{NAME}.svg)\n\n{}",
            self.cpu,
            self.threads,
            self.table().markdown()
        )
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            ("Size", Align::Left),
            ("lowburn", Align::Right),
            ("PyTorch + PEFT", Align::Right),
            ("Ratio", Align::Right),
            ("Memory: lowburn", Align::Right),
            ("PyTorch + PEFT", Align::Right),
            ("Ratio", Align::Right),
        ]);
        let number = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}"));
        for point in &self.points {
            let time = |seconds: Option<f64>| seconds.map(|seconds| format!("{seconds:.2} s"));
            let memory = |size: Option<u64>| size.map(bytes).unwrap_or_default();
            let share = point.memory.zip(point.peer_memory);
            table.row([
                format!("{} {}", point.axis, point.value),
                time(Some(point.seconds)).unwrap_or_default(),
                time(point.peer_seconds).unwrap_or_default(),
                number(point.ratio).unwrap_or_default(),
                memory(point.memory),
                memory(point.peer_memory),
                number(share.map(|(ours, peer)| ours as f64 / peer as f64)).unwrap_or_default(),
            ]);
        }
        table
    }

    /// A panel of seconds and one of memory for each size that changes.
    ///
    /// # Errors
    /// When plotters fails.
    pub(crate) fn figure(&self) -> Result<String> {
        let legend = [
            ("lowburn", OURS, Mark::Line),
            ("PyTorch + PEFT", PEER, Mark::Line),
        ]
        .map(|(label, color, mark)| Entry {
            label: label.to_owned(),
            color,
            mark,
        });
        let note = format!("{}, {} threads", self.cpu, self.threads);
        figure(
            "A LoRA step by size",
            &note,
            &legend,
            2 * AXES.len(),
            |index, area| {
                let (axis, _) = AXES[index % AXES.len()];
                let memory = index >= AXES.len();
                self.panel(area, axis, memory)
            },
        )
    }

    fn panel(&self, area: &Area<'_>, axis: &str, memory: bool) -> Result<()> {
        let points: Vec<&Point> = self.points.iter().filter(|p| p.axis == axis).collect();
        let line = |ours| {
            let value = |point: &&Point| (point.value, point.drawn(ours, memory));
            points.iter().map(value).collect::<Vec<_>>()
        };
        let lines = [(OURS, line(true)), (PEER, line(false))];
        // Sizes double: their logarithm is what lies at even distances.
        let place = |value: usize| (value.max(1) as f64).log2();
        let sizes: BTreeSet<usize> = points.iter().map(|point| point.value).collect();
        let (first, last) = (sizes.first().copied(), sizes.last().copied());
        let range = (
            first.map_or(0.0, place) - 0.3,
            last.map_or(1.0, place) + 0.3,
        );
        let ticks: Vec<(f64, String)> = sizes
            .iter()
            .map(|&size| (place(size), size.to_string()))
            .collect();
        let mut values: Vec<f64> = lines
            .iter()
            .flat_map(|(_, line)| line.iter().filter_map(|(_, value)| *value))
            .collect();
        values.push(0.0);
        let (title, unit) = if memory {
            (format!("Memory by {axis}"), "peak, GB")
        } else {
            (format!("Time by {axis}"), "seconds")
        };
        let axes = panel(area, &title, (axis, unit), range, &ticks, &values)?;
        for (color, line) in lines {
            let pixels: Vec<(i32, i32)> = line
                .iter()
                .filter_map(|(size, value)| Some(axes.at(place(*size), (*value)?)))
                .collect();
            for &pixel in &pixels {
                area.draw(&Circle::new(pixel, 4, color.filled()))
                    .map_err(drawing)?;
            }
            area.draw(&PathElement::new(pixels, color.stroke_width(2)))
                .map_err(drawing)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_was_not_timed_by_the_peer_is_left_out_of_its_line() {
        let point = |value, peer_seconds| Point {
            axis: "length".to_owned(),
            value,
            seconds: value as f64 / 100.0,
            peer_seconds,
            ratio: peer_seconds.map(|_| 0.5),
            memory: Some(1_000_000_000),
            peer_memory: None,
        };
        let growth = Growth {
            cpu: "a processor".to_owned(),
            threads: 2,
            points: vec![point(32, Some(1.0)), point(64, None), point(128, Some(3.0))],
        };
        let svg = growth.figure().unwrap();
        assert!(svg.contains("Memory by layers"));
        assert_eq!(svg.matches("<circle").count(), 2 + 3 + 2 + 3);
        let text = growth.markdown();
        assert!(
            text.contains("| length 64  |  0.64 s |                |       |"),
            "{text}"
        );
    }
}

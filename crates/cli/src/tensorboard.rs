//! TensorBoard's event files: what a run tells, as curves.
//!
//! A file is a row of records (TFRecord: length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes), each of
//! which is an `Event` of TensorFlow's `event.proto`. Of these only scalars are needed, four fields of two messages, so
//! they are encoded here. The crates that do it have not been kept for years.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lowburn_trainer::{Event, Observer, TENSORBOARD};

/// Writes event files and passes every event on.
pub struct TensorBoard<O> {
    inner: O,
    folder: PathBuf,
    file: Option<File>,
    failed: bool,
}

impl<O: Observer> TensorBoard<O> {
    /// Events go to `OUTPUT/tensorboard` and to `inner`.
    pub fn new(output: &Path, inner: O) -> Self {
        Self {
            inner,
            folder: output.join(TENSORBOARD),
            file: None,
            failed: false,
        }
    }

    /// A file of its own for each process; TensorBoard reads those of a folder one after the other, and what a resumed run
    /// does again takes the place of what was there.
    fn start(&mut self, done: u64) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let seconds = wall_time() as u64;
        let name = format!(
            "events.out.tfevents.{seconds}.lowburn.{}.{done}",
            std::process::id()
        );
        self.file = Some(File::create(self.folder.join(name))?);
        let version = field_bytes(3, b"brain.Event:2");
        self.write(&[double(1, wall_time()), version].concat())?;
        if done > 0 {
            // session_log { status: START }: what earlier files have of this step and later ones no longer counts.
            let log = field_bytes(7, &[8, 1]);
            self.write(&[double(1, wall_time()), number(2, done + 1), log].concat())?;
        }
        Ok(())
    }

    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> std::io::Result<()> {
        let values = values.iter().flat_map(|(tag, value)| {
            let float = [&[(2 << 3) | 5][..], &(*value as f32).to_le_bytes()].concat();
            field_bytes(1, &[field_bytes(1, tag.as_bytes()), float].concat())
        });
        let summary = field_bytes(5, &values.collect::<Vec<u8>>());
        self.write(&[double(1, wall_time()), number(2, step), summary].concat())
    }

    fn write(&mut self, event: &[u8]) -> std::io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let length = (event.len() as u64).to_le_bytes();
        let masked = |bytes: &[u8]| masked(crc32c::crc32c(bytes)).to_le_bytes();
        file.write_all(&[&length[..], &masked(&length), event, &masked(event)].concat())
    }

    fn hear(&mut self, event: &Event<'_>) -> std::io::Result<()> {
        match event {
            Event::Started { done, .. } => self.start(*done),
            Event::Step(report) => {
                let values = [
                    ("train/loss", report.loss),
                    ("train/lr", report.lr),
                    ("train/grad_norm", report.grad_norm),
                    ("train/epoch", report.epoch),
                    ("train/examples_per_second", report.examples_per_second),
                ];
                self.scalars(
                    report.step,
                    &values.map(|(tag, value)| (tag.to_owned(), value)),
                )
            }
            Event::Evaluated { evaluation, .. } => {
                let tag = |name: &str| format!("{}/{name}", evaluation.split);
                let scores = evaluation.scores.iter();
                let mut values: Vec<_> = scores
                    .map(|(metric, value)| (tag(metric.name()), value))
                    .collect();
                values.extend(evaluation.loss.map(|loss| (tag("loss"), loss)));
                self.scalars(evaluation.step, &values)
            }
            _ => Ok(()),
        }
    }
}

impl<O: Observer> Observer for TensorBoard<O> {
    fn event(&mut self, event: &Event<'_>) {
        // A run is worth more than its curves: the first failure is told, and there are no more curves.
        if !self.failed
            && let Err(error) = self.hear(event)
        {
            self.failed = true;
            self.file = None;
            let text = format!(
                "no more TensorBoard events, {} cannot be written: {error}",
                self.folder.display()
            );
            self.inner.event(&Event::Warning(&text));
        }
        self.inner.event(event);
    }
}

fn wall_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// TFRecord's mask, which keeps a sum of bytes that hold sums apart from them.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A number of protobuf, seven bits a byte.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [&[(field << 3) | 1][..], &value.to_le_bytes()].concat()
}

fn field_bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    [
        vec![(field << 3) | 2],
        varint(bytes.len() as u64),
        bytes.to_vec(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sums_are_those_of_the_formats() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        // The check value of CRC-32C, and its mask as TensorFlow computes it.
        let crc = crc32c::crc32c(b"123456789");
        assert_eq!(crc, 0xe306_9283);
        assert_eq!(masked(crc), 0xc78a_b0e5);
    }
}

//! Rows from `.jsonl` and `.tsv`, for prediction on one's own texts.

use std::path::Path;

use serde_json::{Map, Value};

use crate::dataset::Row;
use crate::labels::{allowed, class_label, score_label};
use crate::{GlueError, Label, Task};

/// Reads one JSON object per line: the task's text columns as strings, `label` as a number, a class
/// name or null, `idx` as an integer. Other keys and blank lines are ignored.
pub(crate) fn read_jsonl(path: &Path, bytes: Vec<u8>, task: Task) -> Result<Vec<Row>, GlueError> {
    let text = utf8(path, &bytes)?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let bad = |problem, way_out| bad_line(path, number, problem, way_out);
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| {
            bad(
                format!("not a JSON object: {e}"),
                "write one complete {...} object per line".to_owned(),
            )
        })?;
        let text_of = |column: &'static str| match object.get(column) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(bad(
                format!("{column:?} is {other}"),
                format!("{column:?} must be a string"),
            )),
            None => Err(bad(
                format!(
                    "no key {column:?}, the keys are {:?}",
                    object.keys().collect::<Vec<_>>()
                ),
                format!("task {task} needs it"),
            )),
        };
        let (first, second) = task.columns();
        let label = match object.get("label") {
            Some(value) => {
                json_label(task, value).map_err(|problem| bad(problem, allowed(task)))?
            }
            None => None,
        };
        let idx = match object.get("idx") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_i64().ok_or_else(|| {
                bad(
                    format!("\"idx\" is {value}"),
                    "an idx is an integer; leave it out to number the rows".to_owned(),
                )
            })?),
        };
        let text_pair = second.map(text_of).transpose()?;
        rows.push(Row {
            idx,
            text: text_of(first)?,
            text_pair,
            label,
        });
    }
    Ok(rows)
}

/// Reads a header row with the task's column names, then one row per line, fields separated by one tab.
/// Quotes are characters like any other, as in GLUE's own files. `label` and `idx` are optional columns,
/// an empty label means none; other columns are ignored.
pub(crate) fn read_tsv(path: &Path, bytes: Vec<u8>, task: Task) -> Result<Vec<Row>, GlueError> {
    let text = utf8(path, &bytes)?;
    let mut lines = text.trim_end_matches(['\n', '\r']).lines().enumerate();
    let header: Vec<&str> = match lines.next() {
        Some((_, line)) if !line.is_empty() => line.split('\t').collect(),
        _ => {
            return Err(GlueError::Empty {
                path: path.to_owned(),
            });
        }
    };
    let (first, second) = task.columns();
    let place = |column: &str, needed: bool| {
        let mut places = (0..header.len()).filter(|&i| header[i] == column);
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(Some(place)),
            (None, _) if !needed => Ok(None),
            (place, _) => Err(GlueError::bad_column(
                path,
                task,
                column,
                place.is_some(),
                header.iter().copied(),
            )),
        }
    };
    let text_place = place(first, true)?;
    let pair_place = second
        .map(|column| place(column, true))
        .transpose()?
        .flatten();
    let (label_place, idx_place) = (place("label", false)?, place("idx", false)?);

    let mut rows = Vec::new();
    for (number, line) in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != header.len() {
            return Err(bad_line(
                path,
                number,
                format!("{} tab-separated fields, the header has {}", fields.len(), header.len()),
                "give each line as many fields as the header; a text must hold no tab or line break".to_owned(),
            ));
        }
        let field = |place: Option<usize>| place.map(|i| fields[i]);
        let label = field(label_place)
            .map_or(Ok(None), |value| text_label(task, value))
            .map_err(|problem| bad_line(path, number, problem, allowed(task)))?;
        let idx = field(idx_place)
            .map(|value| {
                value.parse().map_err(|_| {
                    bad_line(
                        path,
                        number,
                        format!("idx {value:?}"),
                        "an idx is an integer".to_owned(),
                    )
                })
            })
            .transpose()?;
        rows.push(Row {
            idx,
            text: field(text_place).unwrap_or_default().to_owned(),
            text_pair: field(pair_place).map(str::to_owned),
            label,
        });
    }
    Ok(rows)
}

/// `number` counts lines from 0, people from 1.
fn bad_line(path: &Path, number: usize, problem: String, way_out: String) -> GlueError {
    GlueError::Value {
        path: path.to_owned(),
        place: format!("line {}", number + 1),
        problem,
        way_out,
    }
}

fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, GlueError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        bad_line(
            path,
            line,
            format!("not UTF-8: {e}"),
            "save the file as UTF-8".to_owned(),
        )
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn json_label(task: Task, value: &Value) -> Result<Option<Label>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => text_label(task, text),
        Value::Number(number) if task.is_regression() => {
            score_label(task, number.as_f64().unwrap_or(f64::NAN))
        }
        Value::Number(number) => match number.as_i64() {
            Some(class) => class_label(task, class),
            None => Err(format!("label {number} is no class of task {task}")),
        },
        other => Err(format!("label {other} is neither a number nor a name")),
    }
}

fn text_label(task: Task, text: &str) -> Result<Option<Label>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(class) = task.labels().iter().position(|&name| name == text) {
        return Ok(Some(Label::Class(class)));
    }
    if task.is_regression() {
        let value: f64 = text
            .parse()
            .map_err(|_| format!("label {text:?} is no number"))?;
        return score_label(task, value);
    }
    let value: i64 = text
        .parse()
        .map_err(|_| format!("label {text:?} is no class of task {task}"))?;
    class_label(task, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsonl(text: &str, task: Task) -> Result<Vec<Row>, String> {
        read_jsonl(Path::new("in.jsonl"), text.as_bytes().to_vec(), task).map_err(|e| e.to_string())
    }

    fn tsv(text: &str, task: Task) -> Result<Vec<Row>, String> {
        read_tsv(Path::new("in.tsv"), text.as_bytes().to_vec(), task).map_err(|e| e.to_string())
    }

    #[test]
    fn jsonl_labels_are_optional_and_may_be_names() {
        let rows = jsonl(
            "\u{feff}{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":1,\"idx\":7,\"more\":[]}\n\n\
             {\"sentence2\":\"d\",\"sentence1\":\"c\"}\r\n\
             {\"sentence1\":\"e\",\"sentence2\":\"\",\"label\":\"entailment\"}\n\
             {\"sentence1\":\"e\",\"sentence2\":\"f\",\"label\":null,\"idx\":null}",
            Task::Rte,
        )
        .unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(
            (rows[0].idx, rows[0].label),
            (Some(7), Some(Label::Class(1)))
        );
        assert_eq!(
            (rows[1].text.as_str(), rows[1].text_pair.as_deref()),
            ("c", Some("d"))
        );
        assert_eq!((rows[1].idx, rows[1].label), (None, None));
        assert_eq!(rows[2].label, Some(Label::Class(0)));
        let scores = jsonl(
            "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":2}",
            Task::Stsb,
        )
        .unwrap();
        assert_eq!(scores[0].label, Some(Label::Score(2.0)));
    }

    #[test]
    fn jsonl_errors_name_line_and_value() {
        let good = "{\"sentence\":\"a\"}\n";
        for (line, part) in [
            ("{\"sentence\":\"a\"", "not a JSON object"),
            ("[1]", "not a JSON object"),
            ("{\"sentence\":3}", "\"sentence\" is 3"),
            ("{\"text\":\"a\"}", "no key \"sentence\""),
            (
                "{\"sentence\":\"a\",\"label\":2}",
                "label 2 is out of range",
            ),
            ("{\"sentence\":\"a\",\"label\":0.5}", "label 0.5"),
            ("{\"sentence\":\"a\",\"label\":\"good\"}", "\"good\""),
            ("{\"sentence\":\"a\",\"label\":[]}", "label []"),
            ("{\"sentence\":\"a\",\"idx\":\"x\"}", "\"idx\" is \"x\""),
        ] {
            let message = jsonl(&format!("{good}{line}\n"), Task::Sst2).unwrap_err();
            assert!(
                message.contains("in.jsonl, line 2") && message.contains(part),
                "{message}"
            );
        }
    }

    #[test]
    fn tsv_is_read_by_header_without_quoting() {
        let rows = tsv(
            "idx\tsentence2\tother\tsentence1\tlabel\r\n5\t\"b\tx\ta\"\tentailment\r\n6\td\t\tc\t\r\n",
            Task::Rte,
        )
        .unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].text.as_str(), rows[0].text_pair.as_deref()),
            ("a\"", Some("\"b"))
        );
        assert_eq!(
            (rows[0].idx, rows[0].label),
            (Some(5), Some(Label::Class(0)))
        );
        assert_eq!((rows[1].idx, rows[1].label), (Some(6), None));
        assert_eq!(tsv("sentence\n\na\n", Task::Cola).unwrap().len(), 2); // an empty text is a text
    }

    #[test]
    fn tsv_errors_name_line_and_value() {
        for (text, part) in [
            (
                "sentence\tlabel\na\t1\tz\n",
                "line 2: 3 tab-separated fields",
            ),
            (
                "sentence\tlabel\na\t1\nb\t2\n",
                "line 3: label 2 is out of range",
            ),
            ("sentence\tlabel\na\tx\n", "line 2: label \"x\""),
            ("sentence\tidx\na\tx\n", "line 2: idx \"x\""),
            ("text\tlabel\na\t1\n", "no column \"sentence\""),
            (
                "sentence\tsentence\na\tb\n",
                "more than one column \"sentence\"",
            ),
            ("", "no rows"),
        ] {
            let message = tsv(text, Task::Sst2).unwrap_err();
            assert!(
                message.contains("in.tsv") && message.contains(part),
                "{message}"
            );
        }
        let bytes = b"sentence\na\nb\xff\n".to_vec();
        let message = read_tsv(Path::new("in.tsv"), bytes, Task::Sst2)
            .unwrap_err()
            .to_string();
        assert!(message.contains("line 3: not UTF-8"), "{message}");
    }
}

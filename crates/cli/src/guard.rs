//! One line and an exit code for every failure, a panic included.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs a command and reports how it ended on standard error.
pub fn guarded(command: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    match catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            report(&one_line(&error));
            ExitCode::FAILURE
        }
        // The hook has spoken.
        Err(_) => ExitCode::FAILURE,
    }
}

/// An error and its causes on one line, each said once.
#[must_use]
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Transparent wrappers and messages that quote their cause repeat it.
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    if is_full(error) && !line.contains("free some space") {
        line.push_str("; free some space and try again");
    }
    join_lines(&line)
}

/// Whether the disk is full, which no message of a library says how to get out of.
pub(crate) fn is_full(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
    })
}

fn join_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join(" ")
}

/// Whether the reader of standard output went away, as `head` does: no failure of ours.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "error: {line}");
}

/// A panic is a mistake of this program or a library: say so, once, and where.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::SeqCst) {
        return;
    }
    let what = info.payload_as_str().unwrap_or("a panic without a message");
    let place = info.location().map_or_else(String::new, |place| {
        format!(" at {}:{}", place.file(), place.line())
    });
    report(&format!(
        "internal failure: {}{place}; this is a mistake in the program, please report it with the command line",
        join_lines(what)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let error = std::fs::read("/no/such/file")
            .context("cannot read /no/such/file")
            .context("reading the\nmodel")
            .expect_err("there is no such file");
        let line = one_line(&error);
        assert!(
            line.starts_with("reading the model: cannot read /no/such/file: No such"),
            "{line}"
        );
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_full_disk_has_a_way_out() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = anyhow::Error::new(full).context("cannot write x");
        let line = one_line(&error);
        assert!(
            line.contains("free some space") && !line.contains("--resume"),
            "{line}"
        );
    }
}

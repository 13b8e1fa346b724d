//! Turns panics of a library into values.
//!
//! Parquet and tokenizer files are not trusted, and the libraries that read them hold assertions
//! and index expressions that a crafted file may reach. A panic there is a bad file, not a bug of the
//! caller, so it must end as an error: unwound, and without the default message on stderr.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic inside becomes `Err` with its message, and nothing is printed.
///
/// The first call chains a panic hook in front of the present one. It is silent for threads inside
/// a guard and hands every other panic on.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static INSTALL: Once = Once::new();
    if std::thread::panicking() {
        return Ok(work());
    }
    INSTALL.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    outcome.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the reader gave up: {}", text.unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_messages() {
        assert_eq!(guard(|| 3), Ok(3));
        let message = guard(|| -> u8 { panic!("offset {} is past the end", 7) }).unwrap_err();
        assert!(message.contains("offset 7 is past the end"), "{message}");
        assert!(!GUARDED.get());
    }
}

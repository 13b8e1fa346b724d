//! Work of a runtime that says what is wrong by a panic, on this thread or on one of its own.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the first panic of an attempt said.
static SAID: Mutex<Option<String>> = Mutex::new(None);

/// Does work that may panic and gives the first panic's message, on one line, instead of printing it.
pub(crate) fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook belongs to the whole process, so there is one attempt at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    *lock(&SAID) = None;
    let before = take_hook();
    set_hook(Box::new(remember));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    set_hook(before);
    outcome.map_err(|_| {
        let said = lock(&SAID).take();
        said.unwrap_or_else(|| "it failed without a message".to_owned())
    })
}

fn remember(info: &PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("a panic without a message");
    let words: Vec<&str> = what.split_whitespace().collect();
    lock(&SAID).get_or_insert_with(|| words.join(" "));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_of_any_thread_becomes_the_message() {
        assert_eq!(attempt(|| 7), Ok(7));
        let elsewhere = || -> u32 {
            let thread = std::thread::spawn(|| -> u32 { panic!("no driver") });
            thread.join().expect("a result of the thread")
        };
        assert_eq!(attempt(elsewhere), Err("no driver".to_owned()));
        assert_eq!(attempt(|| 8), Ok(8));
        let here: Result<u32, String> = attempt(|| panic!("at step\n  {}", 3));
        assert_eq!(here, Err("at step 3".to_owned()));
    }
}

//! What a download tells while it goes on; who shows it, and how, is the caller's affair.

use std::time::Duration;

/// Something happened on the way to a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file begins to arrive.
    Started {
        /// `roberta-base`.
        repo: &'a str,
        /// The file's path in the repository.
        file: &'a str,
        /// Bytes that an earlier, interrupted download left.
        done: u64,
        /// Bytes of the whole file, where the server says it.
        size: Option<u64>,
    },
    /// More of it is on disk.
    Progress {
        /// Bytes so far.
        done: u64,
        /// Bytes of the whole file, where the server says it.
        size: Option<u64>,
    },
    /// It is complete, has the digest that the hub promises, and is in the cache.
    Finished {
        /// The file's path in the repository.
        file: &'a str,
        /// Its bytes.
        size: u64,
    },
    /// Another process fetches the same file; this one waits for it.
    Waiting {
        /// The file's path in the repository.
        file: &'a str,
    },
    /// Something failed that may pass.
    Retry {
        /// What went wrong.
        reason: &'a str,
        /// The pause before the next attempt.
        pause: Duration,
    },
    /// Something worth a line.
    Note(&'a str),
}

/// Who hears the events.
pub type Hear<'a> = &'a mut dyn FnMut(&Event<'_>);

//! How long threads are in products of matrices.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds, summed over threads.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// Does a product that may use so many threads, and counts its time for each of them.
pub(crate) fn counted(threads: usize, product: impl FnOnce()) {
    let began = Instant::now();
    product();
    let nanoseconds = began.elapsed().as_nanos() as u64 * threads as u64;
    BUSY.fetch_add(nanoseconds, Ordering::Relaxed);
}

/// Seconds so far.
pub(crate) fn seconds() -> f64 {
    BUSY.load(Ordering::Relaxed) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_product_counts_for_each_thread_that_it_may_use() {
        // Tests of products run beside this one, so the count may only be larger.
        let before = seconds();
        counted(3, || std::thread::sleep(Duration::from_millis(20)));
        assert!(seconds() - before >= 0.06);
    }
}

//! An allocator that keeps the memory of large tensors from step to step.
//!
//! A training step takes and gives back about a gigabyte of temporaries. A general allocator hands blocks of that size back to
//! the system at once, and gets them again as pages that must be cleared and entered into the page table one by one: a
//! seventh of a step on a virtual machine. Here a block that is given back is kept for the next one of its size, and
//! is made of huge pages where the system has them, so that the products of matrices miss fewer addresses.
//!
//! What is kept never makes the process larger than it was: together with what is in use it stays below the most that was
//! ever in use, and [`crate::pool::SLACK`].

use std::alloc::{GlobalAlloc, Layout, System};

/// A global allocator for programs that train. Small blocks are the system allocator's; so is everything on systems other
/// than Linux.
///
/// ```
/// #[global_allocator]
/// static PAGES: lowburn_kernels::PagePool = lowburn_kernels::PagePool;
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct PagePool;

#[cfg(not(target_os = "linux"))]
// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for PagePool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(target_os = "linux")]
// SAFETY: blocks are distinct mappings of at least the size of their class, aligned to a page; which allocator a block is of
// follows from its layout alone, which is the same when it is given back.
unsafe impl GlobalAlloc for PagePool {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match linux::class(layout) {
            // SAFETY: the caller's promise is the system allocator's condition.
            None => unsafe { System.alloc(layout) },
            Some(class) => linux::take(class).0,
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = linux::class(layout) else {
            // SAFETY: as above.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let (block, used) = linux::take(class);
        if used && !block.is_null() {
            // SAFETY: the block has at least that many bytes and nobody else has it.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match linux::class(layout) {
            // SAFETY: a block without a class came from the system's allocator.
            None => unsafe { System.dealloc(block, layout) },
            Some(class) => linux::give(block, class),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, is no overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (linux::class(layout), linux::class(wanted)) {
            // SAFETY: the block came from the system's allocator and may stay there.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some(before), Some(after)) if before == after => block,
            _ => {
                // SAFETY: the new block is another one and both have the bytes that are copied.
                unsafe {
                    let fresh = self.alloc(wanted);
                    if !fresh.is_null() {
                        fresh.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    fresh
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::alloc::Layout;
    use std::ptr;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use crate::pool;

    const STEPS: usize = pool::STEPS as usize;
    /// Powers of two from the smallest on.
    const POWERS: usize = 40;
    const PAGE: usize = pool::PAGE as usize;
    const HUGE: usize = pool::HUGE as usize;
    const SLACK: usize = pool::SLACK as usize;

    /// The sizes of blocks in rising order.
    pub(super) fn size_of(class: usize) -> usize {
        pool::size_of(class) as usize
    }

    /// The smallest size that holds a layout; `None` for the system's allocator.
    pub(super) fn class(layout: Layout) -> Option<usize> {
        let class = pool::class(layout.size() as u64)?;
        (layout.align() <= PAGE && class < POWERS * STEPS).then_some(class)
    }

    /// Blocks that nobody uses, as a list for each size that lies in the blocks themselves.
    struct Pool {
        kept: [*mut u8; POWERS * STEPS],
        bytes_kept: usize,
        bytes_used: usize,
        most_used: usize,
    }

    // SAFETY: the pointers are to memory of the process, which any thread may use.
    unsafe impl Send for Pool {}

    static POOL: Mutex<Pool> = Mutex::new(Pool {
        kept: [ptr::null_mut(); POWERS * STEPS],
        bytes_kept: 0,
        bytes_used: 0,
        most_used: 0,
    });

    fn pool() -> MutexGuard<'static, Pool> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block and whether it was used before, null when there is no memory.
    pub(super) fn take(class: usize) -> (*mut u8, bool) {
        let size = size_of(class);
        let mut pool = pool();
        let kept = pool.kept[class];
        if !kept.is_null() {
            // SAFETY: a kept block begins with the address of the next one, written by `give`.
            pool.kept[class] = unsafe { kept.cast::<*mut u8>().read() };
            pool.bytes_kept -= size;
        } else {
            pool.make_room(size);
        }
        pool.bytes_used += size;
        pool.most_used = pool.most_used.max(pool.bytes_used);
        drop(pool);
        if !kept.is_null() {
            return (kept, true);
        }
        let block = map(size);
        if block.is_null() {
            self::pool().bytes_used -= size;
        }
        (block, false)
    }

    /// Takes a block back.
    pub(super) fn give(block: *mut u8, class: usize) {
        let size = size_of(class);
        let mut pool = pool();
        pool.bytes_used -= size;
        if pool.bytes_used + pool.bytes_kept + size > pool.most_used + SLACK {
            drop(pool);
            unmap(block, size);
            return;
        }
        // SAFETY: the block is as large as its class and nobody uses it any more.
        unsafe { block.cast::<*mut u8>().write(pool.kept[class]) };
        pool.kept[class] = block;
        pool.bytes_kept += size;
    }

    impl Pool {
        /// Hands kept blocks back, the largest first, so that a new one does not make the process larger than it was.
        fn make_room(&mut self, size: usize) {
            let most = self.most_used.max(self.bytes_used + size) + SLACK;
            for class in (0..self.kept.len()).rev() {
                while !self.kept[class].is_null() && self.bytes_used + self.bytes_kept + size > most
                {
                    let block = self.kept[class];
                    // SAFETY: as in `take`.
                    self.kept[class] = unsafe { block.cast::<*mut u8>().read() };
                    self.bytes_kept -= size_of(class);
                    unmap(block, size_of(class));
                }
            }
        }
    }

    /// New pages, huge ones where the block is large enough and the system has them; null when there is no memory.
    fn map(size: usize) -> *mut u8 {
        let aligned = size >= HUGE;
        let whole = if aligned { size + HUGE - PAGE } else { size };
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping anywhere touches no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), whole, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        let start = start.cast::<u8>();
        if !aligned {
            return start;
        }
        let before = start.addr().next_multiple_of(HUGE) - start.addr();
        let block = start.wrapping_add(before);
        unmap(start, before);
        unmap(block.wrapping_add(size), whole - before - size);
        // SAFETY: advice about a mapping of our own; that there are no huge pages is no failure.
        unsafe { libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE) };
        block
    }

    fn unmap(block: *mut u8, size: usize) {
        if size > 0 {
            // SAFETY: the pages are of a mapping of our own, and nobody uses them.
            unsafe { libc::munmap(block.cast(), size) };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const SMALLEST: usize = pool::SMALLEST as usize;

        fn layout(size: usize) -> Layout {
            Layout::from_size_align(size, 64).expect("a layout")
        }

        #[test]
        fn classes_hold_their_sizes_and_waste_little() {
            assert_eq!(class(layout(SMALLEST - 1)), None);
            for size in [
                SMALLEST,
                SMALLEST + 1,
                3 * SMALLEST,
                (25 << 20) + 17,
                1 << 30,
                (1 << 33) - 5,
            ] {
                let found = size_of(class(layout(size)).expect("a class"));
                assert!(
                    found >= size && found <= size + size / STEPS + 1,
                    "{size}: {found}"
                );
                assert_eq!(found % PAGE, 0);
            }
            for found in 0..POWERS * STEPS - 1 {
                assert_eq!(class(layout(size_of(found))), Some(found));
                assert_eq!(
                    class(layout(size_of(found) + 1)).unwrap_or(found + 1),
                    found + 1
                );
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_apart_keep_what_is_written_and_come_again() {
        let pool = PagePool;
        let layout = |size: usize| Layout::from_size_align(size, 64).expect("a layout");
        let sizes = [200 << 10, 3 << 20, (3 << 20) + 5, 25 << 20];
        // SAFETY: every block is given back once, with its layout, and only its own bytes are touched.
        unsafe {
            let blocks = sizes.map(|size| pool.alloc(layout(size)));
            for (number, (block, size)) in blocks.iter().zip(sizes).enumerate() {
                assert!(block.addr().is_multiple_of(64));
                block.write_bytes(number as u8 + 1, size);
            }
            for (number, (block, size)) in blocks.iter().zip(sizes).enumerate() {
                let bytes = std::slice::from_raw_parts(*block, size);
                assert!(bytes.iter().all(|byte| *byte == number as u8 + 1));
            }
            let grown = pool.realloc(blocks[1], layout(sizes[1]), 9 << 20);
            assert!((0..sizes[1]).all(|at| grown.add(at).read() == 2));
            pool.dealloc(grown, layout(9 << 20));
            // A block that was written comes again, and zeroed when that is asked for.
            pool.dealloc(blocks[3], layout(sizes[3]));
            let again = pool.alloc_zeroed(layout(sizes[3]));
            assert!(
                (0..sizes[3])
                    .step_by(4096)
                    .all(|at| again.add(at).read() == 0)
            );
            pool.dealloc(again, layout(sizes[3]));
            pool.dealloc(blocks[0], layout(sizes[0]));
            pool.dealloc(blocks[2], layout(sizes[2]));
        }
    }
}

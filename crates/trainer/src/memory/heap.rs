//! The memory of a process, block by block, as the program's page pool (`lowburn_kernels::PagePool`) keeps it.
//!
//! Sizes and rules are the pool's own: a block of 128 KiB or more has a size of its class, an eighth of a power of two
//! from the next; one that is given back is kept for the next of its class; and what is kept and in use together stays
//! below the most that was ever in use and a slack. Pages count from when they are written to when they go back to
//! the system, in pieces of 2 MB where the block is large enough for huge pages.

use std::rc::Rc;

use lowburn_kernels::pool::{HUGE, PAGE, SLACK, class, size_of};

use super::Phase;

/// Bytes of an f32.
pub(super) const NUMBER: u64 = 4;

/// Larger than any memory: what is beyond counts as so much, and sums do not overflow.
const LARGEST: u64 = 1 << 50;

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Weights,
    Gradients,
    Optimizer,
    Activations,
    Buffers,
}

const PARTS: usize = 5;

/// Memory in use. It goes back by [`Heap::give`].
#[derive(Debug)]
pub(super) struct Block {
    /// What was asked for.
    pub(super) bytes: u64,
    /// `None` for a small one.
    class: Option<usize>,
    /// What of it is in memory.
    resident: u64,
    part: Part,
}

/// Memory with several holders, as tensors are shared. The last one gives it back by [`Heap::release`].
pub(super) type Shared = Rc<Block>;

/// A process.
#[derive(Debug, Default)]
pub(super) struct Heap {
    /// What of each kept block is in memory, by class; the last is taken first.
    kept: Vec<Vec<u64>>,
    bytes_kept: u64,
    bytes_used: u64,
    most_used: u64,
    /// Of blocks in use and kept, what is in memory.
    resident: u64,
    small: u64,
    most_small: u64,
    live: [u64; PARTS],
    /// What the process does.
    pub(super) phase: Phase,
    peak: u64,
    fullest: Fullest,
}

/// The moment when most was in use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fullest {
    pub(super) phase: Phase,
    parts: [u64; PARTS],
}

impl Fullest {
    /// Bytes of a part.
    pub(super) fn of(&self, part: Part) -> u64 {
        self.parts[part as usize]
    }

    fn sum(&self) -> u64 {
        sum(&self.parts)
    }
}

impl Heap {
    /// Memory that is written whole.
    pub(super) fn take(&mut self, bytes: u64, part: Part) -> Block {
        self.take_zeroed(bytes, bytes, part)
    }

    /// Memory of zeros of which so much is written. Only fresh pages are zero without being written.
    pub(super) fn take_zeroed(&mut self, bytes: u64, written: u64, part: Part) -> Block {
        let bytes = bytes.min(LARGEST);
        let class = class(bytes);
        let resident = match class {
            None => {
                self.small = self.small.saturating_add(bytes);
                self.most_small = self.most_small.max(self.small);
                bytes
            }
            Some(class) => self.page(class, bytes, written),
        };
        let live = &mut self.live[part as usize];
        *live = live.saturating_add(resident);
        self.look();
        Block {
            bytes,
            class,
            resident,
            part,
        }
    }

    /// A block of a class, kept or new; how much of it is in memory.
    fn page(&mut self, class: usize, bytes: u64, written: u64) -> u64 {
        let size = size_of(class);
        let resident = match self.kept.get_mut(class).and_then(Vec::pop) {
            Some(before) => {
                self.bytes_kept = self.bytes_kept.saturating_sub(size);
                let resident = touched(bytes, size).max(before);
                self.resident = self.resident.saturating_add(resident - before);
                resident
            }
            None => {
                self.make_room(size);
                let resident = touched(written.min(bytes), size);
                self.resident = self.resident.saturating_add(resident);
                resident
            }
        };
        self.bytes_used = self.bytes_used.saturating_add(size);
        self.most_used = self.most_used.max(self.bytes_used);
        resident
    }

    /// Kept blocks go back to the system, the largest first, so that a new one fits.
    fn make_room(&mut self, size: u64) {
        let most = self.most_used.max(self.bytes_used.saturating_add(size));
        let most = most.saturating_add(SLACK);
        for class in (0..self.kept.len()).rev() {
            while self.held().saturating_add(size) > most {
                let Some(resident) = self.kept[class].pop() else {
                    break;
                };
                self.bytes_kept = self.bytes_kept.saturating_sub(size_of(class));
                self.resident = self.resident.saturating_sub(resident);
            }
        }
    }

    /// Takes a block back.
    pub(super) fn give(&mut self, block: Block) {
        let live = &mut self.live[block.part as usize];
        *live = live.saturating_sub(block.resident);
        let Some(class) = block.class else {
            self.small = self.small.saturating_sub(block.bytes);
            return;
        };
        let size = size_of(class);
        self.bytes_used = self.bytes_used.saturating_sub(size);
        if self.held().saturating_add(size) > self.most_used.saturating_add(SLACK) {
            self.resident = self.resident.saturating_sub(block.resident);
            return;
        }
        if self.kept.len() <= class {
            self.kept.resize(class + 1, Vec::new());
        }
        self.kept[class].push(block.resident);
        self.bytes_kept = self.bytes_kept.saturating_add(size);
    }

    /// Bytes in use and kept.
    fn held(&self) -> u64 {
        self.bytes_used.saturating_add(self.bytes_kept)
    }

    /// One holder lets go.
    pub(super) fn release(&mut self, shared: Shared) {
        if let Some(block) = Rc::into_inner(shared) {
            self.give(block);
        }
    }

    /// Memory that is taken, used and given back.
    pub(super) fn pass(&mut self, bytes: u64) {
        let block = self.take(bytes, Part::Buffers);
        self.give(block);
    }

    fn look(&mut self) {
        self.peak = self.peak.max(self.resident.saturating_add(self.most_small));
        if sum(&self.live) > self.fullest.sum() {
            self.fullest = Fullest {
                phase: self.phase,
                parts: self.live,
            };
        }
    }

    /// The most that was ever in memory.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// The moment when most was in use.
    pub(super) fn fullest(&self) -> Fullest {
        self.fullest
    }

    /// Bytes of a part that are in use.
    #[cfg(test)]
    pub(super) fn live(&self, part: Part) -> u64 {
        self.live[part as usize]
    }
}

fn sum(parts: &[u64; PARTS]) -> u64 {
    parts
        .iter()
        .fold(0, |sum: u64, part| sum.saturating_add(*part))
}

/// Bytes in memory when the first `written` ones of a block were written.
fn touched(written: u64, size: u64) -> u64 {
    let huge = match size < HUGE {
        true => 0,
        false => size / HUGE * HUGE,
    };
    match written <= huge {
        true => written.next_multiple_of(HUGE),
        false => written.next_multiple_of(PAGE).min(size),
    }
}

#[cfg(test)]
mod tests {
    use lowburn_kernels::pool::SMALLEST;

    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn classes_are_the_pools() {
        assert_eq!(class(SMALLEST - 1), None);
        for (bytes, expected) in [
            (SMALLEST, SMALLEST),
            (SMALLEST + 1, SMALLEST + SMALLEST / 8),
            (2 * MB, 2 * MB),
            (2 * MB + 1, 2 * MB + MB / 4),
            (25 * MB, 26 * MB),
            (LARGEST, LARGEST),
        ] {
            assert_eq!(class(bytes).map(size_of), Some(expected), "{bytes}");
        }
    }

    #[test]
    fn pages_are_in_memory_when_they_are_written() {
        let sizes = [(0, 0), (1, HUGE), (HUGE, HUGE), (HUGE + 1, 2 * HUGE)];
        for (written, expected) in sizes {
            assert_eq!(touched(written, 4 * MB), expected, "{written}");
        }
        // What lies behind the last whole huge page comes in small ones.
        assert_eq!(touched(4 * MB + 5, 4 * MB + MB / 2), 4 * MB + PAGE);
        assert_eq!(touched(5, MB), PAGE);
        let mut heap = Heap::default();
        let block = heap.take_zeroed(40 * MB, 3 * MB, Part::Gradients);
        assert_eq!(heap.peak(), 4 * MB);
        heap.give(block);
        // Taken again it is cleared, and all of it is in memory.
        heap.take_zeroed(40 * MB, 3 * MB, Part::Gradients);
        assert_eq!(heap.peak(), 40 * MB);
    }

    #[test]
    fn blocks_are_kept_up_to_the_slack() {
        let mut heap = Heap::default();
        let first = heap.take(80 * MB, Part::Activations);
        heap.give(first);
        // Of the same class: no new memory.
        let again = heap.take(79 * MB, Part::Buffers);
        assert_eq!((heap.peak(), heap.live(Part::Buffers)), (80 * MB, 80 * MB));
        heap.give(again);
        // Of another: beside the kept one, as long as both are within the slack of the most that was used.
        let other = heap.take(60 * MB, Part::Activations);
        assert_eq!(heap.peak(), 140 * MB);
        // The kept one has to go.
        heap.take(40 * MB, Part::Activations);
        assert_eq!(heap.peak(), 140 * MB);
        heap.give(other);
        assert_eq!(heap.live(Part::Activations), 40 * MB);
    }

    #[test]
    fn shared_memory_goes_back_with_its_last_holder() {
        let mut heap = Heap::default();
        let shared = Rc::new(heap.take(MB, Part::Activations));
        heap.release(Rc::clone(&shared));
        assert_eq!(heap.live(Part::Activations), MB);
        heap.release(shared);
        assert_eq!(heap.live(Part::Activations), 0);
    }

    #[test]
    fn the_fullest_moment_is_told_by_parts() {
        let mut heap = Heap {
            phase: Phase::Step,
            ..Heap::default()
        };
        let weights = heap.take(MB, Part::Weights);
        heap.pass(3 * MB);
        heap.phase = Phase::Saving;
        heap.pass(2 * MB);
        heap.give(weights);
        let fullest = heap.fullest();
        assert_eq!(fullest.phase, Phase::Step);
        let parts = [Part::Weights, Part::Buffers].map(|part| fullest.of(part));
        assert_eq!(parts, [MB, 3 * MB]);
    }

    #[test]
    fn absurd_sizes_are_no_overflow() {
        let mut heap = Heap::default();
        let blocks: Vec<Block> = (0..1 << 15)
            .map(|_| heap.take(u64::MAX, Part::Weights))
            .collect();
        assert!(heap.peak() >= LARGEST);
        for block in blocks {
            heap.give(block);
        }
    }
}

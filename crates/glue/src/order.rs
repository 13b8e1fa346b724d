//! Which rows meet in a batch, and when: a pure function of seed and epoch.
//!
//! The generator is this crate's own (splitmix64 used as a counter-based function), so the order of a run never
//! changes with a dependency, and any epoch can be had without drawing those before it: exact resume
//! needs no saved generator state.

/// How an epoch runs through the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Whether rows are shuffled anew for each epoch; otherwise they come in file order.
    pub shuffle: bool,
    /// Whether rows of like length share a batch, so that little is spent on padding. Rows still
    /// meet others at random: windows of 50 batches are sorted, or of a quarter of the rows where that is
    /// less. Without `shuffle` the windows are cut from the file order and every epoch is the same.
    pub group_by_length: bool,
    /// The seed.
    pub seed: u64,
    /// Rows per batch; 0 counts as 1.
    pub batch_size: usize,
}

/// The most batches whose rows are sorted by length together, and the fewest windows of an epoch;
/// both as in Hugging Face's length-grouped sampler.
const WINDOW_BATCHES: usize = 50;
const WINDOWS: usize = 4;

impl Order {
    /// The batches of an epoch as row numbers; `lengths` are the rows' lengths in tokens.
    ///
    /// Every row comes exactly once. All batches are full but the last, which takes what is left.
    /// The same seed and epoch give the same batches on every machine.
    pub fn epoch(&self, epoch: usize, lengths: &[usize]) -> Vec<Vec<usize>> {
        let size = self.batch_size.max(1);
        let mut random = Generator::new(self.seed, epoch as u64);
        let mut rows: Vec<usize> = (0..lengths.len()).collect();
        if self.shuffle {
            random.shuffle(&mut rows);
        }
        if !self.group_by_length {
            return rows.chunks(size).map(<[usize]>::to_vec).collect();
        }
        let mut full = Vec::with_capacity(rows.len() / size + 1);
        let mut partial = None;
        let window_batches = (rows.len() / size / WINDOWS).clamp(1, WINDOW_BATCHES);
        for window in rows.chunks_mut(size.saturating_mul(window_batches)) {
            window.sort_by_key(|&row| lengths[row]); // stable: equal lengths keep their random order
            // The short batch is cut out anywhere, not from the end, where it would always hold the longest rows.
            let short = window.len() % size;
            let batches = window.len() / size;
            let cut = if self.shuffle {
                random.below(batches + 1) * size
            } else {
                batches * size
            };
            let (before, rest) = window.split_at(if short == 0 { window.len() } else { cut });
            let (middle, after) = rest.split_at(short);
            full.extend(
                before
                    .chunks(size)
                    .chain(after.chunks(size))
                    .map(<[usize]>::to_vec),
            );
            if !middle.is_empty() {
                partial = Some(middle.to_vec());
            }
        }
        if self.shuffle {
            random.shuffle(&mut full);
        }
        full.extend(partial);
        full
    }
}

/// The share of padding among all positions of the batches, from 0 to 1; 0 for no positions.
pub fn padding_fraction(batches: &[Vec<usize>], lengths: &[usize]) -> f64 {
    let (mut positions, mut tokens) = (0usize, 0usize);
    for batch in batches {
        let longest = batch.iter().map(|&row| lengths[row]).max().unwrap_or(0);
        positions += longest * batch.len();
        tokens += batch.iter().map(|&row| lengths[row]).sum::<usize>();
    }
    if positions == 0 {
        0.0
    } else {
        1.0 - tokens as f64 / positions as f64
    }
}

/// Draw `n` is `mix(key + n * golden ratio)`: splitmix64 (Steele, Lea and Flood 2014).
struct Generator {
    state: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Generator {
    fn new(seed: u64, epoch: u64) -> Self {
        // Mixed twice, so that neighbouring seeds and epochs start far apart.
        Self {
            state: mix(mix(seed.wrapping_add(GOLDEN)) ^ epoch.wrapping_mul(GOLDEN)),
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number below `bound` (at least 1), each equally likely: draws from the uneven rest are thrown away.
    fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        let even = u64::MAX - u64::MAX % bound;
        loop {
            let draw = self.next();
            if draw < even {
                return (draw % bound) as usize;
            }
        }
    }

    /// Fisher and Yates.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_is_splitmix64() {
        // The first outputs of the published generator for seed 0.
        let mut random = Generator { state: 0 };
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn the_order_never_changes() {
        let order = Order {
            shuffle: true,
            group_by_length: false,
            seed: 42,
            batch_size: 4,
        };
        let lengths = [3; 10];
        // Written down when the generator was: a change would silently change every published run.
        assert_eq!(
            order.epoch(0, &lengths),
            GOLDEN_EPOCH.map(<[usize]>::to_vec)
        );
        let in_file_order = Order {
            shuffle: false,
            ..order
        };
        assert_eq!(
            in_file_order.epoch(3, &lengths),
            [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]
        );
    }

    const GOLDEN_EPOCH: [&[usize]; 3] = [&[4, 9, 8, 7], &[3, 6, 5, 2], &[1, 0]];

    #[test]
    fn draws_are_even() {
        let mut random = Generator::new(1, 2);
        let mut counts = [0usize; 6];
        (0..60_000).for_each(|_| counts[random.below(6)] += 1);
        assert!(
            counts.iter().all(|&count| (9_500..10_500).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn neighbouring_seeds_and_epochs_differ() {
        let lengths = [3; 200];
        let mut seen = std::collections::HashSet::new();
        for seed in 0..20 {
            for epoch in 0..20 {
                let order = Order {
                    shuffle: true,
                    group_by_length: false,
                    seed,
                    batch_size: 200,
                };
                assert!(
                    seen.insert(order.epoch(epoch, &lengths)),
                    "seed {seed}, epoch {epoch}"
                );
            }
        }
    }

    #[test]
    fn padding_is_counted() {
        let batches = [vec![0, 1], vec![2]];
        assert_eq!(padding_fraction(&batches, &[1, 3, 2]), 0.25);
        assert_eq!(padding_fraction(&[], &[]), 0.0);
    }
}

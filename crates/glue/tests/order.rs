//! What holds for every order and every batch.

use lowburn_glue::{Encoding, Example, Label, Order, collate, padding_fraction};
use proptest::prelude::*;

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..80, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_comes_once(
        lengths in lengths(), batch_size in 0usize..40, seed in any::<u64>(), epoch in 0usize..5,
        shuffle in any::<bool>(), group_by_length in any::<bool>()
    ) {
        let order = Order { shuffle, group_by_length, seed, batch_size };
        let batches = order.epoch(epoch, &lengths);
        let mut rows: Vec<usize> = batches.concat();
        rows.sort_unstable();
        prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        let size = batch_size.max(1);
        if let Some((last, full)) = batches.split_last() {
            prop_assert!(full.iter().all(|batch| batch.len() == size));
            prop_assert!(!last.is_empty() && last.len() <= size);
        }
        prop_assert_eq!(&batches, &order.epoch(epoch, &lengths));
    }

    #[test]
    fn epochs_and_seeds_differ(seed in any::<u64>(), group_by_length in any::<bool>()) {
        let lengths: Vec<usize> = (0..300).map(|row| 5 + row * 7 % 40).collect();
        let order = Order { shuffle: true, group_by_length, seed, batch_size: 16 };
        prop_assert_ne!(order.epoch(0, &lengths), order.epoch(1, &lengths));
        let other = Order { seed: seed.wrapping_add(1), ..order };
        prop_assert_ne!(order.epoch(0, &lengths), other.epoch(0, &lengths));
        // Not only the order of the batches: a row meets others from epoch to epoch.
        let sets = |epoch| -> std::collections::HashSet<Vec<usize>> {
            order.epoch(epoch, &lengths).into_iter().map(|mut batch| { batch.sort_unstable(); batch }).collect()
        };
        prop_assert!(sets(0).intersection(&sets(1)).count() <= 2);
    }

    #[test]
    fn collated_rows_are_the_encodings(lengths in prop::collection::vec(1usize..20, 1..12), pad_id in 0u32..9) {
        let encodings: Vec<Encoding> = lengths
            .iter()
            .enumerate()
            .map(|(row, &length)| Encoding {
                ids: (0..length).map(|i| (100 * row + i + 10) as u32).collect(),
                type_ids: (0..length).map(|i| (i % 2) as u32).collect(),
            })
            .collect();
        let examples: Vec<Example> = (0..lengths.len())
            .map(|row| Example {
                idx: row as i64, text: String::new(), text_pair: None, label: Some(Label::Class(row % 2)),
            })
            .collect();
        let order = Order { shuffle: true, group_by_length: false, seed: 1, batch_size: 5 };
        for indices in order.epoch(0, &lengths) {
            let batch = collate(&encodings, &examples, &indices, pad_id);
            prop_assert_eq!(batch.rows, indices.len());
            prop_assert_eq!(batch.length, indices.iter().map(|&row| lengths[row]).max().unwrap());
            prop_assert_eq!((batch.ids.len(), batch.type_ids.len()), (batch.rows * batch.length, batch.rows * batch.length));
            for (place, &row) in indices.iter().enumerate() {
                let line = place * batch.length..(place + 1) * batch.length;
                let (ids, types) = (&batch.ids[line.clone()], &batch.type_ids[line]);
                for i in 0..batch.length {
                    let (id, kind) = match encodings[row].ids.get(i) {
                        Some(&id) => (id as i32, encodings[row].type_ids[i] as i32),
                        None => (pad_id as i32, 0),
                    };
                    prop_assert_eq!((ids[i], types[i]), (id, kind));
                }
                prop_assert_eq!(batch.labels[place], Label::Class(row % 2));
            }
        }
    }
}

/// Lengths spread as in MRPC (mean 53, deviation 13): grouping saves most of the padding.
#[test]
fn grouping_by_length_saves_padding() {
    let lengths: Vec<usize> = (0..3668u64)
        .map(|row| {
            let draws: u64 = (0..4)
                .map(|i| (row * 4 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)
                .sum();
            20 + (draws * 65 / (4 << 24)) as usize
        })
        .collect();
    for seed in 0..5 {
        let plain = Order {
            shuffle: true,
            group_by_length: false,
            seed,
            batch_size: 16,
        };
        let grouped = Order {
            group_by_length: true,
            ..plain
        };
        let without = padding_fraction(&plain.epoch(0, &lengths), &lengths);
        let with = padding_fraction(&grouped.epoch(0, &lengths), &lengths);
        assert!(without > 0.15 && with < 0.05, "{without} {with}");
    }
}

/// The short batch holds rows of any length, over the epochs: none is always there.
#[test]
fn the_short_batch_is_not_biased() {
    let lengths: Vec<usize> = (0..100).collect();
    let order = Order {
        shuffle: true,
        group_by_length: true,
        seed: 3,
        batch_size: 16,
    };
    let mut sum = 0.0;
    for epoch in 0..200 {
        let batches = order.epoch(epoch, &lengths);
        let last = batches.last().unwrap();
        assert_eq!(last.len(), 4);
        sum += last.iter().map(|&row| lengths[row] as f64).sum::<f64>() / 4.0;
    }
    assert!((sum / 200.0 - 49.5).abs() < 8.0, "{}", sum / 200.0);
}

//! Rows of token ids, put together and padded to the longest.

use crate::{Example, Label};

/// The token ids of one row, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Which text a token belongs to, 0 or 1, as the tokenizer says. RoBERTa's tokenizer says 0 for
    /// all; a model with one token type must not look at them.
    pub type_ids: Vec<u32>,
}

impl Encoding {
    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Rows of equal length, row after row. Padding is on the right.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The number of rows.
    pub rows: usize,
    /// The length of the longest row in tokens.
    pub length: usize,
    /// Token ids, `[rows * length]`.
    pub ids: Vec<i32>,
    /// Token types, `[rows * length]`, 0 at padding.
    pub type_ids: Vec<i32>,
    /// The true number of tokens of each row.
    pub lengths: Vec<usize>,
    /// The labels, one per row, or none if a row has no label.
    pub labels: Vec<Label>,
    /// The number of each row in the data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// The number of real tokens, padding not counted.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// Puts the rows `indices` of a data set together, padded with `pad_id` to the longest of them.
///
/// Ids must be below 2^31; [`crate::Tokenizer`] sees to that.
///
/// # Panics
/// When an index is outside `encodings` or `examples`.
pub fn collate(
    encodings: &[Encoding],
    examples: &[Example],
    indices: &[usize],
    pad_id: u32,
) -> Batch {
    let rows = indices.len();
    let lengths: Vec<usize> = indices.iter().map(|&row| encodings[row].len()).collect();
    let length = lengths.iter().copied().max().unwrap_or(0);
    let mut ids = vec![pad_id as i32; rows * length];
    let mut type_ids = vec![0; rows * length];
    for (place, &row) in indices.iter().enumerate() {
        let start = place * length;
        for (i, &id) in encodings[row].ids.iter().enumerate() {
            ids[start + i] = id as i32;
        }
        for (i, &kind) in encodings[row]
            .type_ids
            .iter()
            .take(lengths[place])
            .enumerate()
        {
            type_ids[start + i] = kind as i32;
        }
    }
    let labels: Option<Vec<Label>> = indices.iter().map(|&row| examples[row].label).collect();
    Batch {
        rows,
        length,
        ids,
        type_ids,
        lengths,
        labels: labels.unwrap_or_default(),
        indices: indices.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(label: Option<Label>) -> Example {
        Example {
            idx: 0,
            text: String::new(),
            text_pair: None,
            label,
        }
    }

    #[test]
    fn rows_are_padded_on_the_right() {
        let encodings = [
            Encoding {
                ids: vec![5, 6, 7],
                type_ids: vec![0, 0, 1],
            },
            Encoding {
                ids: vec![8],
                type_ids: vec![0],
            },
            Encoding {
                ids: vec![9, 10],
                type_ids: vec![1, 1],
            },
        ];
        let examples = [1, 0, 1].map(|class| example(Some(Label::Class(class))));
        let batch = collate(&encodings, &examples, &[2, 0, 1], 1);
        assert_eq!((batch.rows, batch.length, batch.tokens()), (3, 3, 6));
        assert_eq!(batch.ids, [9, 10, 1, 5, 6, 7, 8, 1, 1]);
        assert_eq!(batch.type_ids, [1, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(batch.lengths, [2, 3, 1]);
        assert_eq!(
            batch.labels,
            [Label::Class(1), Label::Class(1), Label::Class(0)]
        );
        assert_eq!(batch.indices, [2, 0, 1]);
    }

    #[test]
    fn one_unlabelled_row_means_no_labels() {
        let encodings = vec![
            Encoding {
                ids: vec![5],
                type_ids: vec![0]
            };
            2
        ];
        let examples = [example(Some(Label::Class(0))), example(None)];
        assert!(collate(&encodings, &examples, &[0, 1], 0).labels.is_empty());
        assert_eq!(collate(&encodings, &examples, &[0], 0).labels.len(), 1);
        assert_eq!(collate(&encodings, &examples, &[], 0).length, 0);
    }
}

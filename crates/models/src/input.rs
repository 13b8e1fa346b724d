//! A padded batch of token ids.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Token ids of a batch, padded on the right.
#[derive(Debug, Clone)]
pub struct ModelInput {
    /// Ids, `[rows, length]` row by row, each below the vocabulary size.
    pub ids: Vec<i32>,
    /// Rows of the batch.
    pub rows: usize,
    /// Length that every row is padded to.
    pub length: usize,
    /// Real tokens of each row, from the left; at least 1.
    pub lengths: Vec<usize>,
    /// Which text a token belongs to, `[rows, length]`; all 0 where nothing was said.
    pub type_ids: Vec<i32>,
}

impl ModelInput {
    /// A batch; see the fields.
    ///
    /// # Panics
    /// Panics when there is no row, the sizes contradict each other, or a row has no token or more
    /// than `length`.
    pub fn new(ids: Vec<i32>, rows: usize, length: usize, lengths: Vec<usize>) -> Self {
        assert!(rows > 0, "a batch has at least one row");
        assert_eq!(ids.len(), rows * length, "ids are [rows, length]");
        assert_eq!(lengths.len(), rows, "one length per row");
        assert!(
            lengths.iter().all(|n| (1..=length).contains(n)),
            "every row has between 1 and {length} tokens"
        );
        Self {
            type_ids: vec![0; ids.len()],
            ids,
            rows,
            length,
            lengths,
        }
    }

    /// The same batch with token types, for the architectures that read them.
    ///
    /// # Panics
    /// Panics when there are more or fewer than there are ids.
    pub fn with_type_ids(self, type_ids: Vec<i32>) -> Self {
        assert_eq!(type_ids.len(), self.ids.len(), "one type per id");
        Self { type_ids, ..self }
    }

    /// Number of real tokens.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// Tokens of the longest row, padding not counted.
    pub(crate) fn longest(&self) -> usize {
        self.lengths.iter().max().copied().unwrap_or(0)
    }

    /// The values of the real tokens, row after row: what is computed on, since the tokens of a
    /// row never see its padding.
    fn packed(&self, padded: &[i32]) -> Vec<i32> {
        let rows = padded.chunks_exact(self.length).zip(&self.lengths);
        rows.flat_map(|(row, length)| &row[..*length])
            .copied()
            .collect()
    }

    /// The ids of the real tokens, `[1, tokens]`.
    pub(crate) fn packed_ids(&self, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.packed(&self.ids), device)
    }

    /// The positions of the real tokens, `[1, tokens]`.
    pub(crate) fn packed_positions(&self, pad: usize, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.packed(&self.positions(pad)), device)
    }

    /// The places of the real tokens in their rows, from 0, `[1, tokens]`.
    pub(crate) fn packed_places(&self, device: &Device) -> Tensor<2, Int> {
        let places = self.lengths.iter().flat_map(|length| 0..*length as i32);
        int_tensor(places.collect(), device)
    }

    /// The types of the real tokens, `[1, tokens]`.
    pub(crate) fn packed_types(&self, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.packed(&self.type_ids), device)
    }

    /// The first token of every row of `x` `[tokens, d]`, `[rows, d]`.
    pub(crate) fn first_tokens(&self, x: Tensor<2>) -> Tensor<2> {
        let starts = self.starts(&x.device());
        x.select(0, starts)
    }

    /// Where each row begins among the real tokens, `[rows]`.
    fn starts(&self, device: &Device) -> Tensor<1, Int> {
        let mut next = 0;
        let starts = self.lengths.iter().map(|length| {
            let start = next;
            next += *length as i32;
            start
        });
        let starts: Vec<i32> = starts.collect();
        Tensor::from_data(TensorData::new(starts, [self.rows]), device)
    }

    /// A tensor of real tokens `[tokens, d]` as `[rows, length, d]`, with zeros for padding.
    pub(crate) fn padded(&self, x: Tensor<2>) -> Tensor<3> {
        let width = x.dims()[1];
        let device = x.device();
        let x = Tensor::cat(vec![x, Tensor::zeros([1, width], &device)], 0);
        let none = self.tokens() as i32;
        let mut places = Vec::with_capacity(self.ids.len());
        let mut next = 0;
        for length in &self.lengths {
            let length = *length as i32;
            places
                .extend((0..self.length as i32).map(|i| if i < length { next + i } else { none }));
            next += length;
        }
        let n = places.len();
        let places = Tensor::from_data(TensorData::new(places, [n]), &device);
        x.select(0, places).reshape([self.rows, self.length, width])
    }

    /// RoBERTa's positions, `[rows, length]`: `pad` for padding tokens, and `pad` + 1, `pad` + 2, ...
    /// for the others (`create_position_ids_from_input_ids` in transformers).
    fn positions(&self, pad: usize) -> Vec<i32> {
        let mut positions = Vec::with_capacity(self.ids.len());
        for row in self.ids.chunks_exact(self.length) {
            let mut seen = pad as i32;
            for id in row {
                let real = *id != pad as i32;
                seen += i32::from(real);
                positions.push(if real { seen } else { pad as i32 });
            }
        }
        positions
    }
}

fn int_tensor(values: Vec<i32>, device: &Device) -> Tensor<2, Int> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [1, n]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions of one row of ids.
    fn positions(ids: &[i32], real: usize, pad: usize) -> Vec<i32> {
        ModelInput::new(ids.to_vec(), 1, ids.len(), vec![real]).positions(pad)
    }

    #[test]
    fn positions_count_from_behind_the_padding_id() {
        assert_eq!(positions(&[0, 9, 8, 2], 4, 1), [2, 3, 4, 5]);
        assert_eq!(positions(&[0, 9, 2, 1, 1], 3, 1), [2, 3, 4, 1, 1]);
        assert_eq!(positions(&[7, 9, 2, 0, 0], 3, 0), [1, 2, 3, 0, 0]);
        assert_eq!(positions(&[0, 9, 5, 5], 2, 5), [6, 7, 5, 5]);
    }

    #[test]
    fn a_padding_id_inside_the_text_has_no_position_as_in_transformers() {
        assert_eq!(positions(&[0, 1, 8, 2], 4, 1), [2, 1, 3, 4]);
    }

    #[test]
    fn rows_are_counted_one_by_one() {
        let input = ModelInput::new(vec![0, 2, 1, 0, 9, 2], 2, 3, vec![2, 3]);
        assert_eq!(input.positions(1), [2, 3, 1, 2, 3, 4]);
    }

    #[test]
    fn packing_leaves_the_padding_out_and_padding_puts_zeros_there() {
        let device = Device::flex();
        let input = ModelInput::new(vec![0, 2, 1, 0, 9, 2, 0, 1, 1], 3, 3, vec![2, 3, 1]);
        let ids = input.packed_ids(&device);
        assert_eq!(ids.dims(), [1, input.tokens()]);
        let data = ids.into_data().convert::<i32>();
        assert_eq!(data.try_to_vec::<i32>().unwrap(), [0, 2, 0, 9, 2, 0]);
        let starts = input.starts(&device).into_data().convert::<i32>();
        assert_eq!(starts.try_to_vec::<i32>().unwrap(), [0, 2, 5]);
        let x = Tensor::<1>::from_data([1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &device);
        let padded = input.padded(x.reshape([6, 1]));
        assert_eq!(padded.dims(), [3, 3, 1]);
        let values: Vec<f32> = padded.into_data().try_to_vec().unwrap();
        assert_eq!(values, [1.0, 2.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
    }

    #[test]
    fn sizes_that_contradict_each_other_panic() {
        for (ids, rows, length, lengths) in [
            (5, 2, 3, vec![1, 1]),
            (6, 2, 3, vec![1]),
            (6, 2, 3, vec![0, 3]),
            (6, 2, 3, vec![4, 3]),
            (0, 0, 0, vec![]),
            (0, 0, 3, vec![]),
        ] {
            let attempt = || ModelInput::new(vec![0; ids], rows, length, lengths);
            assert!(std::panic::catch_unwind(attempt).is_err());
        }
    }
}

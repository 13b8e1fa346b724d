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
            ids,
            rows,
            length,
            lengths,
        }
    }

    /// Number of real tokens.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The values of the real tokens, row after row: what is computed on, since the tokens of a
    /// row never see its padding.
    fn packed(&self, padded: &[i32]) -> Vec<i32> {
        let rows = padded.chunks_exact(self.length).zip(&self.lengths);
        rows.flat_map(|(row, length)| &row[..*length]).copied().collect()
    }

    /// The ids of the real tokens, `[1, tokens]`.
    pub(crate) fn packed_ids(&self, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.packed(&self.ids), device)
    }

    /// The positions of the real tokens, `[1, tokens]`.
    pub(crate) fn packed_positions(&self, pad: usize, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.packed(&self.positions(pad)), device)
    }

    /// Where each row begins among the real tokens, `[rows]`.
    pub(crate) fn starts(&self, device: &Device) -> Tensor<1, Int> {
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
            places.extend((0..self.length as i32).map(|i| if i < length { next + i } else { none }));
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

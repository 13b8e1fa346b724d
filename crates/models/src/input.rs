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
    /// Panics when the sizes contradict each other, or a row has no token or more than `length`.
    pub fn new(ids: Vec<i32>, rows: usize, length: usize, lengths: Vec<usize>) -> Self {
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

    /// The ids as a tensor, `[rows, length]`.
    pub(crate) fn id_tensor(&self, device: &Device) -> Tensor<2, Int> {
        int_tensor(self.ids.clone(), self.rows, self.length, device)
    }

    /// RoBERTa's positions: `pad` for padding tokens, and `pad` + 1, `pad` + 2, ... for the others
    /// (`create_position_ids_from_input_ids` in transformers).
    pub(crate) fn positions(&self, pad: usize, device: &Device) -> Tensor<2, Int> {
        let mut positions = Vec::with_capacity(self.ids.len());
        for row in self.ids.chunks_exact(self.length) {
            let mut seen = pad as i32;
            for id in row {
                let real = *id != pad as i32;
                seen += i32::from(real);
                positions.push(if real { seen } else { pad as i32 });
            }
        }
        int_tensor(positions, self.rows, self.length, device)
    }
}

fn int_tensor(values: Vec<i32>, rows: usize, length: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, [rows, length]), device)
}

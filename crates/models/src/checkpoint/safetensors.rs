//! One safetensors file. Its header is read whole; numbers are read in pieces as they are
//! converted, so that neither the file nor a second form of a tensor is ever held.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use lowburn_lora::FileDtype;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::numbers::{Numbers, append};
use super::{AGAIN, Described, wrong};
use crate::ModelError;

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

pub(super) struct SafetensorsFile {
    file: File,
    metadata: Metadata,
    /// Where the numbers start.
    data: u64,
}

impl SafetensorsFile {
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Described>), ModelError> {
        let failed = || ModelError::io(path, "opening the weights");
        let damaged = |problem: String| wrong(path, format!("{problem}; {AGAIN}"));
        let mut file = File::open(path).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        let rest = length
            .checked_sub(8)
            .ok_or_else(|| damaged(format!("{length} bytes are too few for a header")))?;
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(failed())?;
        let header = u64::from_le_bytes(prefix);
        if header > rest.min(LONGEST_HEADER) {
            return Err(damaged(format!(
                "a header of {header} bytes in a file of {length} bytes"
            )));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(failed())?;
        let metadata: Metadata = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("not a safetensors header: {error}")))?;
        // The metadata was checked while it was read: no gaps, and as many bytes as the shapes say.
        let (claimed, held) = (metadata.data_len() as u64, rest - header);
        if claimed != held {
            return Err(damaged(format!(
                "its tensors are {claimed} bytes and the file holds {held} for them"
            )));
        }
        let described = metadata.tensors().into_iter().map(|(name, info)| Described {
            name,
            numbers: numbers(info.dtype),
            shape: info.shape.clone(),
        });
        let described = described.collect();
        let data = 8 + header;
        Ok((
            Self {
                file,
                metadata,
                data,
            },
            described,
        ))
    }

    /// The numbers of a tensor of the file.
    pub(super) fn read(
        &mut self,
        path: &Path,
        name: &str,
        dtype: FileDtype,
    ) -> Result<Vec<f32>, ModelError> {
        let failed = || ModelError::io(path, "reading the weights");
        let (start, end) = self
            .metadata
            .info(name)
            .map(|info| info.data_offsets)
            .unwrap_or_default();
        let mut left = (end - start) as u64;
        let mut values = Vec::with_capacity((end - start) / dtype.size());
        let mut piece = vec![0; left.min(PIECE) as usize];
        self.file
            .seek(SeekFrom::Start(self.data + start as u64))
            .map_err(failed())?;
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE) as usize];
            self.file.read_exact(piece).map_err(failed())?;
            append(dtype, piece, &mut values);
            left -= piece.len() as u64;
        }
        Ok(values)
    }
}

fn numbers(dtype: Dtype) -> Numbers {
    match dtype {
        Dtype::F16 => Numbers::Float(FileDtype::F16),
        Dtype::BF16 => Numbers::Float(FileDtype::BF16),
        Dtype::F32 => Numbers::Float(FileDtype::F32),
        Dtype::F64 => Numbers::Float(FileDtype::F64),
        other => Numbers::Other(format!("{other:?}")),
    }
}

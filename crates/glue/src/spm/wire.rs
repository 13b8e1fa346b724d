//! The wire format of protocol buffers, as far as reading one takes it.
//!
//! A message is a row of fields, each a key (number and wire type) and a value whose length the wire type
//! tells. Reading is one pass over a slice: nothing is copied, nothing recurses, and every length is compared
//! with what is left before it is used. Source: <https://protobuf.dev/programming-guides/encoding/>.

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Four bytes: `float`, `fixed32`.
    Fixed32([u8; 4]),
    /// Eight bytes: `double`, `fixed64`. Nothing that is read here uses them.
    Fixed64,
    /// Strings, bytes, messages.
    Bytes(&'a [u8]),
}

/// A field: its number and its value.
pub(super) type Field<'a> = (u32, Value<'a>);

/// The fields of a message in the order of the file; an error ends the row.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// The fields of `message`.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<Field<'a>, String> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or_else(|| format!("field number {} does not exist", key >> 3))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Value::Fixed32(bytes)
            }
            wire_type => return Err(format!("field {number} has wire type {wire_type}")),
        };
        Ok((number, value))
    }

    /// Seven bits a byte, the lowest first; the tenth byte has room for one bit.
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(match self.rest.len() {
            0..10 => "it ends within a number".to_owned(),
            _ => "a number is longer than 64 bits".to_owned(),
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            format!(
                "a field of {length} bytes, where {} are left",
                self.rest.len()
            )
        })?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Field<'_>>, String> {
        fields(bytes).collect()
    }

    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(
            all(&[0x08, 0x96, 0x01]),
            Ok(vec![(1, Value::Varint(150))])
        );
        let text = [0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g'];
        assert_eq!(all(&text), Ok(vec![(2, Value::Bytes(b"testing"))]));
        assert_eq!(
            all(&[0x15, 0, 0, 0x80, 0x3f]),
            Ok(vec![(2, Value::Fixed32(1f32.to_le_bytes()))])
        );
        // -2 as int32: ten bytes.
        let mut negative = vec![0x08, 0xfe];
        negative.extend([0xff; 8]);
        negative.push(0x01);
        assert_eq!(all(&negative), Ok(vec![(1, Value::Varint(-2i64 as u64))]));
        assert_eq!(all(&[]), Ok(vec![]));
    }

    #[test]
    fn lies_are_errors() {
        for (bytes, message) in [
            (&[0x08][..], "ends within a number"),
            (&[0x08, 0x80], "ends within a number"),
            (&[0x12, 0x03, 1, 2], "a field of 3 bytes, where 2 are left"),
            (&[0x15, 1, 2, 3], "a field of 4 bytes, where 3"),
            (&[0x11, 1], "a field of 8 bytes"),
            (&[0x0b], "wire type 3"),
            (&[0x00, 0x00], "field number 0"),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], "64 bits"),
            (&[0x08, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1], "64 bits"),
            (&[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], "a field of"),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], "field number"),
        ] {
            let problem = all(bytes).unwrap_err();
            assert!(problem.contains(message), "{bytes:?}: {problem}");
            // Nothing follows an error.
            assert!(fields(bytes).skip_while(Result::is_ok).nth(1).is_none());
        }
    }
}

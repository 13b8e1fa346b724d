//! sha256 as lower-case hexadecimal, the form that data sets publish.

use sha2::{Digest, Sha256};

/// The sha256 of the parts, one after the other.
pub(crate) fn sha256_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of([b"abc".as_slice()]), expected);
        assert_eq!(sha256_of([b"a".as_slice(), b"bc".as_slice()]), expected);
    }
}

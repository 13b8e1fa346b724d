//! The digest that the hub promises for a file.
//!
//! The hub's entity tag is the name of the content: its SHA-256 for large files, and for small ones what git calls
//! it, the SHA-1 of `blob LENGTH\0` and the content. The cache names blobs by the same digits.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A promised digest, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Digest {
    /// Of the content.
    Sha256(String),
    /// Of the git object that holds the content.
    GitBlob(String),
}

impl Digest {
    /// Reads an entity tag, strong or weak; `None` when it is no digest.
    pub(crate) fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let lower = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match hex.len() {
            64 if lower => Some(Self::Sha256(hex.to_owned())),
            40 if lower => Some(Self::GitBlob(hex.to_owned())),
            _ => None,
        }
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// The digits that a file has in the same sense.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn hex_of(&self, path: &Path) -> io::Result<String> {
        match self {
            Self::Sha256(_) => sha256_of(path),
            Self::GitBlob(_) => {
                let length = path.metadata()?.len();
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {length}\0"));
                feed(path, |bytes| hasher.update(bytes))?;
                Ok(hex(&hasher.finalize()))
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob {hex}"),
        }
    }
}

/// SHA-256 of a file's content.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    feed(path, |bytes| hasher.update(bytes))?;
    Ok(hex(&hasher.finalize()))
}

fn feed(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        // `git hash-object` and `sha256sum` of the same five letters and a line feed.
        for etag in [
            "\"ce013625030ba8dba906f756967f9e9ca394464a\"",
            "W/\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
        ] {
            let digest = Digest::from_etag(etag).unwrap();
            assert_eq!(digest.hex_of(file.path()).unwrap(), digest.hex());
        }
    }

    #[test]
    fn other_tags_are_no_digests() {
        let upper = format!("\"{}\"", "A".repeat(40));
        for etag in [
            "",
            "\"\"",
            "\"abc\"",
            "d41d8cd98f00b204e9800998ecf8427e-5",
            "../x",
            &upper,
        ] {
            assert_eq!(Digest::from_etag(etag), None, "{etag}");
        }
    }
}

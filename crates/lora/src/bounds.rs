//! How much memory a PyTorch file may ask for before any tensor of it is wanted.
//!
//! `pytorch-reader` holds every length against the file, and bounds neither what a pickle becomes (a byte of one
//! can cost more than a hundred in memory, and pickles are parsed whole) nor what compressed storages unpack to.
//! So a file is looked through before the reader gets it. What passes has
//!
//! * in the zip form, no compressed entry, so that no storage is longer than the file, and a directory and a
//!   `data.pkl` of at most [`MOST`] bytes each. The directory is the one that the reader uses: where that could
//!   be another, or an entry may have a second name, the file is refused;
//! * in the form before torch 1.6, at most [`MOST`] bytes of pickles before the storages. They are walked through
//!   by the lengths of the opcodes, which are those of the reader: it reads no byte more.
//!
//! The TAR form, whose storages the reader would take into memory whole, is refused by its mark.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// What to do about a damaged file.
const AGAIN: &str = "the file is truncated or damaged, get it again";

/// Most bytes of pickle, and of a zip directory. DeBERTa-v2's largest checkpoint has some 100 kB of either.
const MOST: u64 = 2 << 20;

/// What to do about a file that `torch.save` can write better.
const ANEW: &str = "load it with torch and save its state_dict again";

/// The record that ends a zip archive, and the two before it in an archive that may be large.
const END: u64 = 22;
const WIDE_END: u64 = 56 + 20;

/// Why a file written by `torch.save` would cost more memory than its tensors do, and the way out; `None` where nothing
/// is wrong. To be asked before `pytorch-reader` opens it. A file that is not in a form that the reader knows is left to
/// the reader.
///
/// # Errors
/// When the file cannot be read.
pub fn torch_file_problem(file: &File) -> io::Result<Option<String>> {
    let head = part(file, 0, 262)?;
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return archive(file);
    }
    if head.get(257..262) == Some(&b"ustar"[..]) {
        let problem = format!("it is a TAR file, as torch.save wrote before 0.1.10; {ANEW}");
        return Ok(Some(problem));
    }
    let start = part(file, 0, MOST + 1)?;
    let long = start.len() as u64 > MOST && !pickles_end(&start[..MOST as usize]);
    Ok(long.then(|| {
        format!(
            "what describes its tensors takes more than {MOST} bytes, more than any model needs; {ANEW}"
        )
    }))
}

/// The bytes of a file from `start` on, at most so many.
fn part(mut file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The little-endian number of `N` bytes at a place.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(wide))
}

// The zip form

fn archive(file: &File) -> io::Result<Option<String>> {
    let damaged = || Ok(Some(format!("its zip directory cannot be read; {AGAIN}")));
    let length = file.metadata()?.len();
    let end = part(file, length.saturating_sub(END + WIDE_END), END + WIDE_END)?;
    let Some(directory) = Directory::find(&end, length) else {
        return damaged();
    };
    if directory.size > MOST {
        return Ok(Some(format!(
            "its zip directory has {} bytes, and at most {MOST} are read; {ANEW}",
            directory.size
        )));
    }
    // Where something is behind the directory (torch.save's records for large archives), the reader first tries
    // a place as much further on, and looks for another directory if one of its extra fields is wrong.
    let apart = directory.gap > 0;
    if apart && part(file, directory.start + directory.gap, 4)? == ENTRY {
        return Ok(Some(format!(
            "its zip directory can be read in two ways (as torch.save writes it under a name of 21 \
             characters before the suffix); {ANEW} under another name"
        )));
    }
    let bytes = part(file, directory.start, directory.size)?;
    let mut rest = bytes.as_slice();
    for _ in 0..directory.count {
        let Some(entry) = Entry::split(&mut rest) else {
            return damaged();
        };
        if apart && !entry.extra.is_empty() {
            return damaged();
        }
        if let Some(problem) = entry.problem() {
            return Ok(Some(problem));
        }
    }
    if rest.is_empty() { Ok(None) } else { damaged() }
}

/// Where the directory of a zip archive is.
struct Directory {
    start: u64,
    size: u64,
    count: u64,
    /// Bytes between its end and the record that ends the archive, where that record says where it is.
    gap: u64,
}

impl Directory {
    /// The directory of an archive of `length` bytes, from its last ones. None for anything that the reader
    /// could take for the end of another archive, or that `torch.save` does not write.
    fn find(end: &[u8], length: u64) -> Option<Self> {
        let (wide, record) = end.split_at_checked(end.len().checked_sub(END as usize)?)?;
        let count = number::<2>(record, 10)?;
        // One disk, and no comment.
        let plain = record.starts_with(b"PK\x05\x06\0\0\0\0") && record.ends_with(&[0, 0]);
        if !plain || number::<2>(record, 8)? != count {
            return None;
        }
        let (size, start) = (number::<4>(record, 12)?, number::<4>(record, 16)?);
        let large = u64::from(u32::MAX);
        if count == u64::from(u16::MAX) || size == large || start == large {
            return Self::find_wide(wide, length);
        }
        let gap = length.checked_sub(END)?.checked_sub(start + size)?;
        Some(Self {
            start,
            size,
            count,
            gap,
        })
    }

    /// The same where the numbers are too large for the record at the end.
    fn find_wide(wide: &[u8], length: u64) -> Option<Self> {
        let at = length.checked_sub(END + WIDE_END)?;
        let (record, locator) = wide.split_at_checked(56)?;
        let located = locator.starts_with(b"PK\x06\x07\0\0\0\0")
            && number::<8>(locator, 8)? == at
            && number::<4>(locator, 16)? == 1;
        let count = number::<8>(record, 32)?;
        let plain = record.starts_with(b"PK\x06\x06")
            && number::<8>(record, 4)? == 44
            && number::<8>(record, 16)? == 0
            && number::<8>(record, 24)? == count;
        let (size, start) = (number::<8>(record, 40)?, number::<8>(record, 48)?);
        let fits = located && plain && start.checked_add(size)? == at;
        fits.then_some(Self {
            start,
            size,
            count,
            gap: 0,
        })
    }
}

/// What an entry of a zip directory starts with.
const ENTRY: &[u8] = b"PK\x01\x02";

/// An entry of a zip directory, as far as it matters here.
struct Entry<'a> {
    stored: bool,
    /// When unpacked; all ones where `extra` has it.
    size: u64,
    name: &'a [u8],
    extra: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Takes the first entry off the rest of a directory.
    fn split(rest: &mut &'a [u8]) -> Option<Self> {
        let (header, after) = rest.split_at_checked(46)?;
        if !header.starts_with(ENTRY) {
            return None;
        }
        let (name, after) = after.split_at_checked(number::<2>(header, 28)? as usize)?;
        let (extra, after) = after.split_at_checked(number::<2>(header, 30)? as usize)?;
        let (_comment, after) = after.split_at_checked(number::<2>(header, 32)? as usize)?;
        *rest = after;
        Some(Self {
            stored: number::<2>(header, 10)? == 0,
            size: number::<4>(header, 24)?,
            name,
            extra,
        })
    }

    fn problem(&self) -> Option<String> {
        let name = String::from_utf8_lossy(self.name);
        if !self.stored {
            Some(format!(
                "its entry {name:?} is compressed, which torch.save never does; {ANEW}"
            ))
        } else if self.may_be_renamed() {
            Some(format!(
                "its entry {name:?} may have a second name, which torch.save never gives; {ANEW}"
            ))
        } else if self.name.ends_with(b"data.pkl") && self.size > MOST {
            Some(format!(
                "its entry {name:?} has {} bytes, and at most {MOST} are read, more than any model needs; \
                 {ANEW}",
                self.size
            ))
        } else {
            None
        }
    }

    /// Whether there may be a Unicode name, which the reader takes instead: field 0x7075. Only the field for large
    /// files is passed over, as `torch.save` writes no other.
    fn may_be_renamed(&self) -> bool {
        let mut extra = self.extra;
        while number::<2>(extra, 0) == Some(1) {
            let length = number::<2>(extra, 2).unwrap_or(0) as usize;
            extra = extra.get(4 + length..).unwrap_or_default();
        }
        extra.windows(2).any(|pair| pair == [0x75, 0x70])
    }
}

// The form before torch 1.6

/// Whether the pickles end within these first bytes of a file, or the reader does. Before the storages there are
/// five: a magic number, a version, the machine, the dictionary, the order of the storages.
fn pickles_end(start: &[u8]) -> bool {
    let mut rest = start;
    let mut ended = 0;
    while let Some((&opcode, after)) = rest.split_first() {
        let Some(length) = argument(opcode, after) else {
            return true;
        };
        let Some(next) = usize::try_from(length).ok().and_then(|at| after.get(at..)) else {
            return false;
        };
        rest = next;
        ended += usize::from(opcode == b'.');
        if ended == 5 {
            return true;
        }
    }
    false
}

/// The length of an opcode's argument, beyond all bounds where it does not end in these bytes. None for an opcode
/// at which the reader stops.
fn argument(opcode: u8, after: &[u8]) -> Option<u64> {
    let line = |from: u64| {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let length = after.iter().skip(from).position(|&byte| byte == b'\n');
        length.map_or(u64::MAX, |length| (from + length) as u64 + 1)
    };
    let counted = |count: Option<u64>, width: u64| {
        count.map_or(u64::MAX, |count| count.saturating_add(width))
    };
    Some(match opcode {
        b'(' | b')' | b'.' | b'0' | b'1' | b'2' | b'N' | b'Q' | b'R' | b']' | b'}' => 0,
        b'a' | b'b' | b'd' | b'e' | b'l' | b's' | b't' | b'u' => 0,
        0x81 | 0x85..=0x89 | 0x8f..=0x94 => 0,
        b'K' | b'h' | b'q' | 0x80 => 1,
        b'M' => 2,
        b'J' | b'j' | b'r' => 4,
        b'G' | 0x95 => 8,
        b'F' | b'I' | b'L' | b'P' | b'V' | b'g' | b'p' => line(0),
        b'c' => line(line(0)),
        b'C' | b'U' | 0x8a | 0x8c => counted(number::<1>(after, 0), 1),
        b'B' | b'T' | b'X' | 0x8b => counted(number::<4>(after, 0), 4),
        0x8d | 0x8e | 0x96 => counted(number::<8>(after, 0), 8),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_as_long_as_the_reader_takes_them() {
        for (bytes, length) in [
            (&b"N."[..], Some(0)),
            (b"K\x01.", Some(1)),
            (b"\x80\x02", Some(1)),
            (b"M\0\0.", Some(2)),
            (b"J\0\0\0\0.", Some(4)),
            (b"G\0\0\0\0\0\0\0\0.", Some(8)),
            (b"I12\n.", Some(3)),
            (b"I12", Some(u64::MAX)),
            (b"ca.b\nOrder\n.", Some(10)),
            (b"ca.b\nOrder", Some(u64::MAX)),
            (b"U\x02ab.", Some(3)),
            (b"X\x02\0\0\0ab.", Some(6)),
            (b"X\xff\xff\xff\xff", Some((1 << 32) + 3)),
            (b"X\x02\0", Some(u64::MAX)),
            (b"\x8d\x02\0\0\0\0\0\0\0ab.", Some(10)),
            (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", Some(u64::MAX)),
            (b"\x82\x01", None),
            (b"S'a'\n", None),
            (b"\0", None),
        ] {
            assert_eq!(argument(bytes[0], &bytes[1..]), length, "{bytes:?}");
        }
    }

    #[test]
    fn five_pickles_are_walked_through() {
        assert!(pickles_end(b"N.N.N.N.N.and then numbers"));
        assert!(!pickles_end(b"N.N.N.N.N"));
        assert!(!pickles_end(b"N.X\x09\0\0\0..........."));
        assert!(!pickles_end(b""));
        // The reader stops at what is no opcode.
        assert!(pickles_end(b"N.\0"));
    }

    #[test]
    fn the_end_of_a_large_archive() {
        let length: u64 = 5 << 32;
        let at = length - END - WIDE_END;
        let mut end = b"PK\x06\x06".to_vec();
        end.extend(44u64.to_le_bytes());
        end.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for wide in [800, 800, 70_000, at - 70_000] {
            end.extend(wide.to_le_bytes());
        }
        end.extend(b"PK\x06\x07\0\0\0\0");
        end.extend(at.to_le_bytes());
        end.extend(1u32.to_le_bytes());
        end.extend(b"PK\x05\x06\0\0\0\0");
        end.extend(800u16.to_le_bytes());
        end.extend(800u16.to_le_bytes());
        end.extend(70_000u32.to_le_bytes());
        end.extend(u32::MAX.to_le_bytes());
        end.extend([0, 0]);
        assert_eq!(end.len() as u64, END + WIDE_END);
        let found = Directory::find(&end, length).unwrap();
        assert_eq!((found.count, found.size), (800, 70_000));
        assert_eq!((found.start, found.gap), (at - 70_000, 0));
        assert!(Directory::find(&end, length + 1).is_none());
        for place in [0, 4, 16, 24, 40, 48, 56, 60, 64, 72, 76, 80, 84, 96] {
            let mut other = end.clone();
            other[place] ^= 1;
            assert!(Directory::find(&other, length).is_none(), "{place}");
        }
    }
}

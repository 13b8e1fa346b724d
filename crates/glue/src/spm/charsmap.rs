//! Whether a compiled character map holds what its reader takes for granted.
//!
//! The map is a length, a double array (a trie over bytes in 32-bit units, darts-clone's layout) and the
//! replacements, each ended by a NUL. `spm_precompiled`, which the tokenizers library reads it with, reserves
//! memory by that length, follows offsets without looking, and cuts the replacements wherever the trie points.
//! Here every node that a text can reach is visited once, so that a map that passes cannot fail later.

/// Longest replacement in bytes. NFKC's longest has 33.
const LONGEST_REPLACEMENT: usize = 1024;

/// A unit of the double array, as darts-clone packs it.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        (self.0 >> 8) & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7fff_ffff) as usize
    }

    /// The byte that leads here; a leaf's highest bit keeps it from being one.
    fn label(self) -> u32 {
        self.0 & 0x8000_00ff
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & (1 << 9)) >> 6)) as usize
    }
}

/// Checks a map. An empty one is a model without a map.
pub(super) fn check(map: &[u8]) -> Result<(), String> {
    if map.is_empty() {
        return Ok(());
    }
    let (length, rest) = map.split_first_chunk::<4>().ok_or("it is cut off")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (array, replacements) = rest
        .split_at_checked(length)
        .ok_or_else(|| format!("a trie of {length} bytes, where {} are left", rest.len()))?;
    if length == 0 || !length.is_multiple_of(4) {
        return Err(format!("a trie of {length} bytes is none"));
    }
    let replacements = std::str::from_utf8(replacements)
        .map_err(|e| format!("a replacement is not UTF-8: {e}"))?;
    let units: Vec<Unit> = array
        .chunks_exact(4)
        .map(|unit| Unit(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])))
        .collect();
    visit(&units, replacements)
}

/// Depth first from the root over all bytes. A position is visited once, so cycles end and the cost is linear.
fn visit(units: &[Unit], replacements: &str) -> Result<(), String> {
    let unit = |at: usize| {
        units
            .get(at)
            .copied()
            .ok_or_else(|| format!("the trie points to unit {at} of {}", units.len()))
    };
    let root = unit(0)?.offset();
    let mut seen = vec![false; units.len()];
    let mut open = vec![root];
    while let Some(node) = open.pop() {
        for byte in 1..=255u32 {
            let child = unit(node ^ byte as usize)?;
            if child.label() != byte {
                continue;
            }
            let next = node ^ byte as usize ^ child.offset();
            let leaf = unit(next)?;
            if child.has_leaf() {
                check_replacement(replacements, leaf.value())?;
            }
            if !std::mem::replace(&mut seen[next], true) {
                open.push(next);
            }
        }
    }
    Ok(())
}

fn check_replacement(replacements: &str, at: usize) -> Result<(), String> {
    let rest = replacements.get(at..).ok_or_else(|| {
        format!(
            "a replacement starts at byte {at} of {}, which is not the start of a character",
            replacements.len()
        )
    })?;
    let window = &rest.as_bytes()[..rest.len().min(LONGEST_REPLACEMENT + 1)];
    if window.contains(&0) {
        Ok(())
    } else {
        Err(format!(
            "the replacement at byte {at} has no end within {LONGEST_REPLACEMENT} bytes"
        ))
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::normalizers::Precompiled;

    use super::*;

    const LEAF: u32 = 1 << 8;

    /// A map of 512 units with the one key "a": the root at 256, its child at 256 ^ 97 = 353, the end at 300.
    fn map(changes: &[(usize, u32)], replacements: &str) -> Vec<u8> {
        let mut units = vec![0u32; 512];
        units[0] = 256 << 10;
        units[353] = 97 | LEAF | (353 ^ 300) << 10;
        units[300] = 1 << 31;
        for &(at, unit) in changes {
            units[at] = unit;
        }
        let mut bytes = 2048u32.to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(replacements.as_bytes());
        bytes
    }

    #[test]
    fn units_are_read_as_the_library_reads_them() {
        let good = map(&[], "b\0");
        assert_eq!(check(&good), Ok(()));
        let library = Precompiled::from(&good).unwrap();
        assert_eq!(
            (library.transform("a"), library.transform("b")),
            (Some("b"), None)
        );
        assert_eq!(check(&[]), Ok(()));
        // A way back to the root ends, since no place is visited twice.
        assert_eq!(check(&map(&[(353, 97 | (353 ^ 256) << 10)], "")), Ok(()));
    }

    #[test]
    fn lies_are_errors() {
        let whole = map(&[], "b\0");
        let long = "b".repeat(LONGEST_REPLACEMENT + 1) + "\0";
        let mut latin1 = map(&[], "");
        latin1.push(0xe9);
        for (bytes, message) in [
            (whole[..3].to_vec(), "cut off"),
            (
                whole[..2000].to_vec(),
                "a trie of 2048 bytes, where 1996 are left",
            ),
            (vec![0; 4], "a trie of 0 bytes is none"),
            (vec![3, 0, 0, 0, 1, 2, 3], "a trie of 3 bytes is none"),
            (latin1, "not UTF-8"),
            (map(&[(0, 512 << 10)], "b\0"), "points to unit 513 of 512"),
            (
                map(&[(353, 97 | 1 << 9 | 4 << 10)], "b\0"),
                "points to unit 1377 of 512",
            ),
            (map(&[(300, 1 << 31 | 5)], "b\0"), "starts at byte 5 of 2"),
            (
                map(&[(300, 1 << 31 | 1)], "é\0"),
                "not the start of a character",
            ),
            (map(&[], "b"), "has no end"),
            (map(&[], &long), "has no end"),
        ] {
            let problem = check(&bytes).unwrap_err();
            assert!(problem.contains(message), "{problem}");
        }
    }
}

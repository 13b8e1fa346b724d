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
    let replacements =
        std::str::from_utf8(replacements).map_err(|e| format!("a replacement is not UTF-8: {e}"))?;
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

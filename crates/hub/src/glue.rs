//! The files of `nyu-mll/glue` as they are known: a copy that differs is another data set.
//!
//! The hub's own digest proves that a file arrived as it was sent; this table proves that it is the file whose scores
//! can be compared with published ones.

/// The data set that is meant when `--data-dir` is left out.
pub const GLUE: &str = "nyu-mll/glue";

/// One file of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlueFile {
    /// The task's folder.
    pub task: &'static str,
    /// The split.
    pub split: &'static str,
    /// Rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: &'static str,
}

/// All 30 files.
#[rustfmt::skip]
pub const GLUE_FILES: [GlueFile; 30] = [
    file("cola", "train", 8551, 251_124, "2e7538afa2000e63f5343f16a758d75c452661a384208399d2035cd2fce45c33"),
    file("cola", "validation", 1043, 37_551, "c14b7219a7d9f9fe3dd291fd000f6623ee413805eb108c9c49578ed50873e4ba"),
    file("cola", "test", 1063, 37_719, "3c4d526b6f49f432621de43569f9ecf6af41f639baaf4a9d821b95d745def61d"),
    file("sst2", "train", 67_349, 3_110_468, "66a253e67968acfabcbe49dbe9da964b42ac1c851c40ab760e8c8942efdb3229"),
    file("sst2", "validation", 872, 72_819, "a1371f3b3a7b0bcefa8388799a9359dc3ce76c349cc0079507a7991364fd2a9b"),
    file("sst2", "test", 1821, 147_793, "e9d23cf0067211d2baf018328b507f5153fb6704d75117295a8bda47c7adccb1"),
    file("mrpc", "train", 3668, 649_281, "61fd41301e0e244b0420c4350a170c8e7cf64740335fc875a4af2d79af0df0af"),
    file("mrpc", "validation", 408, 75_678, "33c007dbf5bfa8463d87a13e6226df8c0fcf2596c2cd39d0f3bb79754e00f50f"),
    file("mrpc", "test", 1725, 308_441, "a623ed1cbdf445b11f8e249acbf649d7d3a5ee58c918554c40cbd8307e488693"),
    file("qqp", "train", 363_846, 33_558_839, "4d6f02e643f7c36e9a4f7d4971a5ee9bd74063a319452fe6c87850c739774cd7"),
    file("qqp", "validation", 40_430, 3_729_274, "efd86a539c412d74874ee451573d7bd142f56c47fe36de033b9f367d8bb0fa71"),
    file("qqp", "test", 390_965, 36_694_152, "95d5d1efcfa3ff7e090565e98085770b3497aad8dbcf12996412b23d2fb669e8"),
    file("stsb", "train", 5749, 502_065, "bbd93bbb988fd18437e02185fe3b2bd9a18350376c392e7820de9df1b247ed1f"),
    file("stsb", "validation", 1500, 150_622, "152de7cf1fa34ee4df1c243bd209b02ade21a1d5c4fb3b7da5240f78e4000aa9"),
    file("stsb", "test", 1379, 114_296, "04fa2561f1ff3c395cf8980e3eed5d133c194abf636d5e1870d765c861087bd9"),
    file("mnli", "validation_matched", 9815, 1_214_936, "7f918c09d9c35446b8e8f06a5672f8ab704e2897fecbf52e2e154141f3d7c421"),
    file("mnli", "train", 392_702, 52_224_361, "49a4a5508b89b8fed2c6e81d2c47d00f4759050a7048c6cc5d95d31122ced3c1"),
    file("mnli", "validation_mismatched", 9832, 1_251_152, "04aba92823a954be36fe1b69b61eed334c9eb1009daba0dd79f69d77b87c535c"),
    file("mnli", "test_matched", 9796, 1_220_119, "a330c4f2aeb0bc92f1b4b133fbbaf51bf9c7d0f5cac3d06f49ef63af47dbb822"),
    file("mnli", "test_mismatched", 9847, 1_257_857, "e5078398d5c83d183578b1bdafe94e4491ed28ad1cf8d98ee8846afcec651f16"),
    file("qnli", "validation", 5463, 872_062, "e69311b81dc65589286091d9905a27617a90436dd215c7a59832fa8f4f336169"),
    file("qnli", "test", 5463, 877_345, "f39520cd07925c9784e4a7f1f7aed8f17f136039b8498f7ad07c7bf13d65ba83"),
    file("qnli", "train", 104_743, 17_528_917, "ebc7cb70a5bbde0b0336c3d51f31bb4df4673e908e8874b090b52169b1365c6c"),
    file("rte", "train", 2490, 583_976, "a6252ab17015d718f6de1effe0980f7b158df63e3d16207cd8bd396b608e5147"),
    file("rte", "validation", 277, 69_020, "fb2aa2e04f551133ba663617a15ae133dc22b0f6a969bc0629b5ea6003ee9cf8"),
    file("rte", "test", 3000, 621_413, "3f44aadbfb8bbb7a64ba0674bd26ff77b66e88fdf7a6d64255a5ba6ae9057383"),
    file("wnli", "train", 635, 38_835, "40f4c0c60db68addeda8e9cbe25e6344cd99d5bbb80125535994a9a3141ee0a9"),
    file("wnli", "validation", 71, 11_067, "880037e45e03df868d5799ca21dc03f3a6378f0adf3c01c7bfc46b94fa61f1cb"),
    file("wnli", "test", 146, 13_620, "766d3754c46a80f3275cb81a32ee6b7b49176fa8c1ef85ea92a4a3676510b902"),
    file("ax", "test", 1104, 80_767, "a07b802fe2d4968a1f7ccce9406826dc77e0d1dc53fea9491664bd8ebba8571a"),
];

const fn file(
    task: &'static str,
    split: &'static str,
    rows: u64,
    bytes: u64,
    sha256: &'static str,
) -> GlueFile {
    GlueFile {
        task,
        split,
        rows,
        bytes,
        sha256,
    }
}

/// What is known of a file of the data set, by its path there. The set's old name, without owner, means the same.
pub(crate) fn known(repo: &str, path: &str) -> Option<&'static GlueFile> {
    let (task, file) = path.split_once('/')?;
    let split = file.strip_suffix("-00000-of-00001.parquet")?;
    [GLUE, "glue"].contains(&repo).then_some(())?;
    GLUE_FILES
        .iter()
        .find(|file| file.task == task && file.split == split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_thirty_different_files() {
        let digests: std::collections::BTreeSet<_> =
            GLUE_FILES.iter().map(|file| file.sha256).collect();
        assert_eq!(digests.len(), 30);
        assert!(digests.iter().all(|digest| digest.len() == 64));
    }

    #[test]
    fn files_are_known_by_their_path() {
        let found = known("nyu-mll/glue", "rte/train-00000-of-00001.parquet").unwrap();
        assert_eq!((found.rows, found.bytes), (2490, 583_976));
        assert_eq!(
            known("someone/glue", "rte/train-00000-of-00001.parquet"),
            None
        );
        assert_eq!(
            known("nyu-mll/glue", "rte/train-00000-of-00002.parquet"),
            None
        );
        assert_eq!(known("nyu-mll/glue", "README.md"), None);
    }
}

//! The embedded `mini` assets: a small pretrained RoBERTa and three small tasks, made by this project.
//!
//! They are part of the program (see `build.rs`) and not looked up relative to a checkout, so that a copied binary
//! can show what it does on any machine. Readers of models and data want files, so the assets are unpacked once, into
//! a folder whose name carries their digest: two versions of the program never share or fight over a folder.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::HubError;

/// The name of the embedded model and of the embedded data.
pub const MINI: &str = "mini";

/// Relative path and content of every embedded file, sorted by path.
static ASSETS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/mini_assets.rs"));

/// Where the unpacked assets lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mini {
    /// The checkpoint folder.
    pub model: PathBuf,
    /// The data folder: one folder per task.
    pub data: PathBuf,
}

/// Unpacks the embedded assets below `cache` unless they are there already, and says where they are.
///
/// Files are compared with what the program holds and written anew (temporary sibling, then rename) where they
/// differ, so a damaged cache mends itself and two processes may do this at once.
///
/// # Errors
/// [`HubError::NoMiniAssets`] for a build without assets, [`HubError::Io`] when `cache` cannot be written.
pub fn unpack_mini(cache: &Path) -> Result<Mini, HubError> {
    if ASSETS.is_empty() {
        return Err(HubError::NoMiniAssets);
    }
    let root = cache.join(format!("{MINI}-{}", &mini_digest()[..12]));
    for (name, content) in ASSETS {
        let path = root.join(name);
        if fs::read(&path).is_ok_and(|found| found == *content) {
            continue;
        }
        write(&path, content)?;
    }
    Ok(Mini {
        model: root.join("model"),
        data: root.join("glue"),
    })
}

/// SHA-256 over the names and contents of all embedded files, in hexadecimal.
pub fn mini_digest() -> String {
    let mut hasher = Sha256::new();
    for (name, content) in ASSETS {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The folder for unpacked assets: `LOWBURN_CACHE`, else `$XDG_CACHE_HOME/lowburn`, else `~/.cache/lowburn`
/// (`%LOCALAPPDATA%\lowburn` on Windows).
///
/// # Errors
/// [`HubError::NoCacheFolder`] when none of these variables is set.
pub fn cache_dir() -> Result<PathBuf, HubError> {
    let set = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("LOWBURN_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("lowburn")))
        .or_else(|| set("LOCALAPPDATA").map(|base| base.join("lowburn")))
        .or_else(|| set("HOME").map(|home| home.join(".cache").join("lowburn")))
        .ok_or(HubError::NoCacheFolder)
}

fn write(path: &Path, content: &[u8]) -> Result<(), HubError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| HubError::Io {
            action,
            path,
            source,
        }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write", folder))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.persist(path).map_err(|error| HubError::Io {
        action: "write",
        path: path.to_owned(),
        source: error.error,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_twice_gives_the_same_files_and_mends_a_damaged_one() {
        let scratch = tempfile::tempdir().unwrap();
        let first = unpack_mini(scratch.path()).unwrap();
        assert!(first.model.join("config.json").is_file());
        let config = fs::read(first.model.join("config.json")).unwrap();
        fs::write(first.model.join("config.json"), "damaged").unwrap();
        let second = unpack_mini(scratch.path()).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read(second.model.join("config.json")).unwrap(), config);
    }

    #[test]
    fn the_assets_hold_three_tasks_with_train_and_validation() {
        let scratch = tempfile::tempdir().unwrap();
        let mini = unpack_mini(scratch.path()).unwrap();
        for task in ["sst2", "mrpc", "rte"] {
            for split in ["train", "validation"] {
                let file = mini
                    .data
                    .join(task)
                    .join(format!("{split}-00000-of-00001.parquet"));
                assert!(file.is_file(), "{}", file.display());
            }
        }
    }
}

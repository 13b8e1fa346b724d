//! One process at a time in an output folder.
//!
//! The lock is the system's, on a file in the folder: it goes with the process that holds it, however
//! that ends, so that a file left by a killed one locks nobody out.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::TrainError;

/// An output folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    _file: File,
}

impl Lock {
    /// Name of the file in the folder.
    pub(crate) const FILE: &'static str = ".lock";

    /// Takes a folder that exists.
    ///
    /// # Errors
    /// When another process has it, or the system refuses.
    pub(crate) fn take(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(Self::FILE);
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(TrainError::io("lock", folder))?;
            match file.try_lock() {
                Ok(()) => {}
                // A file system without locks is no reason not to train.
                Err(TryLockError::Error(error))
                    if error.kind() == std::io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => {
                    return Err(TrainError::io("lock", folder)(error));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(TrainError::Output {
                        path: folder.to_path_buf(),
                        state: "is in use by another process".to_owned(),
                        way_out: "wait until its run is done, or give another --output".to_owned(),
                    });
                }
            }
            // The holder before us removes the file, perhaps after we have opened it.
            if is_at(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether an open file is the one that has that name now.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_once_and_given_back() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lock = Lock::take(dir.path()).expect("free");
        let error = Lock::take(dir.path()).expect_err("taken").to_string();
        assert!(error.contains("in use"), "{error}");
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
        // A file that a killed process left behind locks nobody out.
        fs::write(dir.path().join(Lock::FILE), "").expect("written");
        drop(Lock::take(dir.path()).expect("free"));
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
    }
}

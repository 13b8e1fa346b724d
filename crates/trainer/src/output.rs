//! Files on disk: whole or absent, never half-written.
//!
//! Single files are written to a sibling, flushed to the disk and renamed. Folders are built as
//! a sibling and swapped in. The two logs are only ever appended to, a line at a time, and cut
//! back to the length the saved state remembers when a run goes on.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::TrainError;

/// `path` with `suffix` appended to its last component.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

/// Writes a whole file, or leaves what was there.
///
/// # Errors
/// When the system refuses; the sibling is removed again.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let temporary = sibling(path, ".tmp");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        TrainError::io("write", path)(error)
    })?;
    sync_parent(path);
    Ok(())
}

/// [`write_atomic`] of pretty-printed JSON with a final newline.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), TrainError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| TrainError::State {
        path: path.to_path_buf(),
        reason: format!("cannot be put in JSON ({error})"),
    })?;
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

/// Builds a folder as a sibling with `build`, then puts it in the place of `path`.
///
/// Between the two renames of a replacement `path` is absent for a moment: [`recover_folder`]
/// brings back what was there when the process was killed just then.
///
/// # Errors
/// Those of `build`, and when the system refuses; what was at `path` stays.
pub fn replace_folder(
    path: &Path,
    build: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (temporary, old) = (sibling(path, ".tmp"), sibling(path, ".old"));
    remove_folder(&temporary)?;
    remove_folder(&old)?;
    build(&temporary).inspect_err(|_| {
        let _ = fs::remove_dir_all(&temporary);
    })?;
    if path.exists() {
        fs::rename(path, &old).map_err(TrainError::io("replace", path))?;
    }
    fs::rename(&temporary, path).map_err(TrainError::io("write", path))?;
    sync_parent(path);
    remove_folder(&old)
}

/// Undoes a [`replace_folder`] that was killed between its two renames.
///
/// # Errors
/// When the system refuses.
pub fn recover_folder(path: &Path) -> Result<(), TrainError> {
    let old = sibling(path, ".old");
    if !path.exists() && old.is_dir() {
        fs::rename(&old, path).map_err(TrainError::io("bring back", path))?;
    }
    Ok(())
}

/// Removes a folder and all in it, if it is there.
///
/// # Errors
/// When the system refuses.
pub(crate) fn remove_folder(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a rename durable; a file system without that promise is no reason to fail.
fn sync_parent(path: &Path) {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(folder) = File::open(parent.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

/// A file of one JSON object a line.
#[derive(Debug)]
pub(crate) struct LineLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LineLog {
    /// Opens the log and cuts it to `length` bytes (0 for a new one).
    ///
    /// # Errors
    /// When the system refuses, or the file is shorter than that.
    pub(crate) fn open(path: &Path, length: u64) -> Result<Self, TrainError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        let found = file.metadata().map_err(TrainError::io("read", path))?.len();
        if found < length {
            return Err(TrainError::State {
                path: path.to_path_buf(),
                reason: format!(
                    "has {found} bytes where the saved state expects {length}: it was changed \
                     since; start again with --overwrite"
                ),
            });
        }
        file.set_len(length)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(TrainError::io("write", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            length,
        })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When the system refuses; what was written of the line is taken back.
    pub(crate) fn append<T: Serialize>(&mut self, value: &T) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(value).map_err(|error| TrainError::State {
            path: self.path.clone(),
            reason: format!("cannot be put in JSON ({error})"),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| {
            let _ = self.file.set_len(self.length);
            TrainError::io("write", &self.path)(error)
        })?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Puts all lines on the disk and tells the length up to here.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn sync(&self) -> Result<u64, TrainError> {
        self.file
            .sync_data()
            .map_err(TrainError::io("write", &self.path))?;
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_no_sibling() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.json");
        write_atomic(&path, b"1").expect("written");
        write_atomic(&path, b"2").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"2");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn a_failed_build_keeps_the_old_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("adapter");
        let build = |text: &'static str| {
            move |folder: &Path| {
                fs::create_dir(folder).map_err(TrainError::io("create", folder))?;
                fs::write(folder.join("f"), text).map_err(TrainError::io("write", folder))
            }
        };
        replace_folder(&path, build("one")).expect("built");
        replace_folder(&path, build("two")).expect("replaced");
        let failed = replace_folder(&path, |folder| {
            build("three")(folder)?;
            Err(TrainError::config("x", 1, "no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(path.join("f")).expect("there"), b"two");
        fs::rename(&path, sibling(&path, ".old")).expect("killed in between");
        recover_folder(&path).expect("brought back");
        recover_folder(&path).expect("nothing to do");
        assert_eq!(fs::read(path.join("f")).expect("there"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn a_log_is_cut_back_and_refuses_to_be_short() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("log.jsonl");
        let mut log = LineLog::open(&path, 0).expect("new");
        log.append(&1).expect("written");
        let length = log.sync().expect("on disk");
        log.append(&2).expect("written");
        drop(log);
        let mut log = LineLog::open(&path, length).expect("cut");
        log.append(&3).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "1\n3\n");
        assert!(LineLog::open(&path, 100).is_err());
    }
}

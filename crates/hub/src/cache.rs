//! The cache that Python's `huggingface_hub` has, one repository of it.
//!
//! ```text
//! models--owner--name/blobs/DIGEST                     a content, once
//! models--owner--name/refs/REVISION                    the commit that a revision was when it was last looked up
//! models--owner--name/snapshots/COMMIT/FILE            a link to its blob
//! .locks/models--owner--name/DIGEST.lock               held while a blob is fetched
//! ```
//!
//! A name in `blobs` or `snapshots` appears only when its content is complete: files grow under `DIGEST.incomplete`
//! and are renamed when they have the digest. What a killed process leaves there is gone on with, and its lock is
//! released by the system. On file systems that grant a lock to everybody, two processes write the same bytes to the
//! same places: a file is never shortened, only replaced by a new one.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::HubError;
use crate::event::{Event, Hear};
use crate::name::{RepoName, is_commit};
use crate::settings::Settings;

/// A repository's place in the cache.
#[derive(Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
    symlinks: bool,
}

impl RepoCache {
    pub(crate) fn new(settings: &Settings, name: &RepoName) -> Self {
        Self {
            root: settings.cache.join(name.folder()),
            locks: settings.cache.join(".locks").join(name.folder()),
            symlinks: settings.symlinks,
        }
    }

    /// The commit that a revision is, as far as the cache knows.
    pub(crate) fn commit(&self, name: &RepoName) -> Option<String> {
        if let Some(commit) = name.commit() {
            return Some(commit.to_owned());
        }
        let text = fs::read_to_string(self.reference(name)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers which commit a revision is. A cache that cannot be written is good enough to read from.
    pub(crate) fn remember(&self, name: &RepoName, commit: &str) -> Result<(), HubError> {
        if self.commit(name).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(name);
        let written = parent(&path).and_then(|folder| {
            let temporary = tempfile::NamedTempFile::new_in(folder)?;
            fs::write(temporary.path(), commit)?;
            readable(temporary.path())?;
            temporary.persist(&path).map(drop).map_err(|e| e.error)
        });
        match written {
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(())
            }
            other => other.map_err(io_error("write", &path)),
        }
    }

    /// The folder of a commit, laid out as the repository is.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Where the blob with that digest lies or would lie.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Where that blob grows.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(format!("{}.incomplete", digest.hex()))
    }

    fn reference(&self, name: &RepoName) -> PathBuf {
        self.root.join("refs").join(name.revision())
    }

    /// Waits until no other process fetches that blob.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub(crate) fn lock(
        &self,
        digest: &Digest,
        file: &str,
        hear: Hear<'_>,
    ) -> Result<Lock, HubError> {
        let path = self.locks.join(format!("{}.lock", digest.hex()));
        let failed = || io_error("lock", &path);
        parent(&path).map_err(failed())?;
        loop {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path);
            let lock = lock.map_err(failed())?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    hear(&Event::Waiting { file });
                    lock.lock().map_err(failed())?;
                }
                // A file system without locks: see the head of this file.
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(failed()(error)),
            }
            // Python may have removed the file since it was opened.
            if is_at(&lock, &path) {
                return Ok(Lock { _file: lock });
            }
        }
    }

    /// Gives a file that grew and has its digest its name in `blobs`.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn publish(&self, grown: &File, digest: &Digest) -> Result<(), HubError> {
        let (from, to) = (self.partial(digest), self.blob(digest));
        // Without this a power cut could leave the name without the content.
        grown.sync_all().map_err(io_error("write", &from))?;
        if !is_at(grown, &from) {
            // Another process had the file too, on a file system whose locks are none, and was faster.
            return match to.is_file() {
                true => Ok(()),
                false => Err(io_error("write", &from)(ErrorKind::NotFound.into())),
            };
        }
        fs::rename(&from, &to).map_err(io_error("write", &to))
    }

    /// Shows a blob in a snapshot: as a link, and where there are none as the file itself.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn point(
        &self,
        commit: &str,
        file: &str,
        digest: &Digest,
        new: bool,
    ) -> Result<PathBuf, HubError> {
        let pointer = self.snapshot(commit).join(file);
        let blob = self.blob(digest);
        self.try_point(&pointer, file, &blob, new)
            .map_err(io_error("write", &pointer))?;
        Ok(pointer)
    }

    fn try_point(&self, pointer: &Path, file: &str, blob: &Path, new: bool) -> io::Result<()> {
        parent(pointer)?;
        let temporary = tempfile::Builder::new()
            .prefix(".lowburn-")
            .tempdir_in(&self.root)?;
        let made = temporary.path().join("file");
        let up = "../".repeat(2 + file.matches('/').count());
        let target = format!(
            "{up}blobs/{}",
            blob.file_name().unwrap_or_default().to_string_lossy()
        );
        let linked = self.symlinks && symlink(&target, &made).is_ok();
        if linked {
            return fs::rename(&made, pointer);
        }
        // As Python does it: a new blob is moved, one that other snapshots may need is copied.
        if new {
            return fs::rename(blob, pointer);
        }
        fs::copy(blob, &made)?;
        fs::rename(&made, pointer)
    }
}

/// Held while a blob is fetched; the system releases it however the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Creates the folder of a file.
fn parent(path: &Path) -> io::Result<&Path> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(folder)
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io {
        action,
        path,
        source,
    }
}

#[cfg(unix)]
fn symlink(target: &str, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn symlink(target: &str, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), at)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &str, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Temporary files are private; the cache is for all who may read its folder.
#[cfg(unix)]
fn readable(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether an open file is the one that has that name now.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

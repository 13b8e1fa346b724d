//! Where things lie in the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout that this program was built from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// `results/<grid>`.
pub(crate) fn results(grid: &str) -> PathBuf {
    root().join("results").join(grid)
}

/// The build folder: what is in it can be made again.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// This very program, even when the file was replaced by a newer build since it was started.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn this_program() -> Result<PathBuf> {
    let own = Path::new("/proc/self/exe");
    if own.exists() {
        return Ok(own.to_owned());
    }
    std::env::current_exe().context("cannot find this program's own file")
}

/// Writes a whole file through a temporary sibling, with the folders above it.
///
/// # Errors
/// When the system refuses.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = tempfile::NamedTempFile::new_in(folder)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()).map(|()| file))
        .with_context(|| format!("cannot write {}", path.display()))?;
    readable(file.path())?;
    file.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Temporary files are private; results are for everybody.
#[cfg(unix)]
fn readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("cannot set the permissions of {}", path.display()))
}

#[cfg(not(unix))]
fn readable(_: &Path) -> Result<()> {
    Ok(())
}

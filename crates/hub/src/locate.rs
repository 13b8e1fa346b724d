//! From an argument to a folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{HubError, Kind};
use crate::mini::{MINI, cache_dir, unpack_mini};

/// A folder on disk and the name to show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The folder, as it was given.
    pub path: PathBuf,
    /// The name without its place: `mini`, or the folder's own name. Records carry this, never the place.
    pub name: String,
}

/// Resolves `--model`: a checkpoint folder, or `mini`.
///
/// # Errors
/// [`HubError`] when the folder is missing, is a file, or holds no `config.json`, and for names that would have to be
/// downloaded. Whether the configuration and the weights are sound is for the loader to say.
pub fn model(argument: &str) -> Result<Located, HubError> {
    if argument == MINI && !Path::new(MINI).is_dir() {
        return Ok(Located {
            path: unpack_mini(&cache_dir()?)?.model,
            name: MINI.to_owned(),
        });
    }
    let located = folder(argument, Kind::Model)?;
    if !located.path.join("config.json").is_file() {
        return Err(HubError::MissingFile {
            hint: single_model_below(&located.path)?
                .map(|path| format!("; did you mean `{}`?", path.display())),
            folder: located.path,
            file: "config.json",
        });
    }
    Ok(located)
}

/// Resolves `--data-dir`: a folder with one folder per task, or `mini`.
///
/// # Errors
/// [`HubError`] when the folder is missing, is a file, or is itself a task's folder, and for names that would have to
/// be downloaded. Which tasks and splits it holds is for the reader to say.
pub fn data(argument: &str) -> Result<Located, HubError> {
    if argument == MINI && !Path::new(MINI).is_dir() {
        return Ok(Located {
            path: unpack_mini(&cache_dir()?)?.data,
            name: MINI.to_owned(),
        });
    }
    let located = folder(argument, Kind::Data)?;
    let holds_parquet = entries(&located.path)?
        .iter()
        .any(|path| path.extension().is_some_and(|e| e == "parquet"));
    if holds_parquet {
        return Err(HubError::TaskFolder {
            folder: located.path,
        });
    }
    Ok(located)
}

fn folder(argument: &str, kind: Kind) -> Result<Located, HubError> {
    if argument.trim().is_empty() {
        return Err(HubError::Empty { kind });
    }
    let path = PathBuf::from(argument);
    if path.is_dir() {
        let name = folder_name(&path)?;
        return Ok(Located { path, name });
    }
    if path.exists() {
        return Err(HubError::NotAFolder { kind, path });
    }
    Err(if looks_like_name(argument) {
        HubError::UnknownName {
            kind,
            argument: argument.to_owned(),
        }
    } else {
        HubError::Missing { kind, path }
    })
}

/// `roberta-base` and `owner/name` (with an optional `@revision`) are names; everything else is meant as a path.
fn looks_like_name(argument: &str) -> bool {
    let parts: Vec<&str> = argument.split('/').collect();
    parts.len() <= 2
        && parts.iter().all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c))
        })
}

fn folder_name(path: &Path) -> Result<String, HubError> {
    let whole = path.canonicalize().map_err(|source| HubError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(whole.file_name().map_or_else(
        || "root".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    ))
}

/// The only folder directly below that does hold a configuration, for the hint in the error.
fn single_model_below(folder: &Path) -> Result<Option<PathBuf>, HubError> {
    let mut found = entries(folder)?
        .into_iter()
        .filter(|path| path.join("config.json").is_file());
    Ok(match (found.next(), found.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, HubError> {
    let failed = |source| HubError::Io {
        action: "read",
        path: folder.to_owned(),
        source,
    };
    let mut paths = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect::<Result<Vec<_>, HubError>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_checkpoint_folder_is_taken_and_named_by_its_last_part() {
        let scratch = scratch();
        let folder = scratch.path().join("my-model");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        let located = model(&format!("{}/.", folder.display())).unwrap();
        assert_eq!(located.name, "my-model");
        assert!(located.path.join("config.json").is_file());
    }

    #[test]
    fn a_name_says_that_downloads_are_not_built_in_and_how_to_go_on() {
        for name in ["roberta-base", "microsoft/deberta-v2-xlarge@abc"] {
            let message = model(name).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            assert!(
                message.contains("downloads by name are not built in yet"),
                "{message}"
            );
            assert!(message.contains("config.json"), "{message}");
        }
        assert!(matches!(
            data("nyu-mll/glue"),
            Err(HubError::UnknownName {
                kind: Kind::Data,
                ..
            })
        ));
    }

    #[test]
    fn a_path_that_is_not_there_is_called_a_missing_folder() {
        for path in ["/no/such/folder", "./nothing-here", "../a/b/c", "a/b/c"] {
            assert!(
                matches!(model(path), Err(HubError::Missing { .. })),
                "{path}"
            );
            assert!(
                matches!(data(path), Err(HubError::Missing { .. })),
                "{path}"
            );
        }
    }

    #[test]
    fn a_folder_without_configuration_is_refused_with_the_likely_one() {
        let scratch = scratch();
        let inner = scratch.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("config.json"), "{}").unwrap();
        let message = model(scratch.path().to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(message.contains("has no config.json"), "{message}");
        assert!(message.contains("did you mean"), "{message}");
        assert!(message.contains("inner"), "{message}");
    }

    #[test]
    fn files_and_empty_arguments_are_refused() {
        let scratch = scratch();
        let file = scratch.path().join("model.safetensors");
        fs::write(&file, "x").unwrap();
        assert!(matches!(
            model(file.to_str().unwrap()),
            Err(HubError::NotAFolder { .. })
        ));
        assert!(matches!(
            model(" "),
            Err(HubError::Empty { kind: Kind::Model })
        ));
        assert!(matches!(
            data(""),
            Err(HubError::Empty { kind: Kind::Data })
        ));
    }

    #[test]
    fn the_folder_of_one_task_is_refused_in_favour_of_its_parent() {
        let scratch = scratch();
        let task = scratch.path().join("rte");
        fs::create_dir(&task).unwrap();
        fs::write(task.join("train-00000-of-00001.parquet"), "x").unwrap();
        assert!(matches!(
            data(task.to_str().unwrap()),
            Err(HubError::TaskFolder { .. })
        ));
        assert!(data(scratch.path().to_str().unwrap()).is_ok());
    }
}

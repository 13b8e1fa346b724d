//! From an argument to a folder.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{HubError, Kind};
use crate::event::Hear;
use crate::mini::{MINI, Mini, cache_dir, unpack_mini};
use crate::name::RepoName;
use crate::repo::{Hub, Snapshot};
use crate::select::Split;
use crate::settings::Settings;

/// A folder on disk and the name to show for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The folder: as it was given, or the snapshot of a commit in the cache.
    pub path: PathBuf,
    /// The name without its place: `mini`, the folder's own name, or the repository's. Records carry this, never the
    /// place.
    pub name: String,
    /// The commit of what came from the hub.
    pub commit: Option<String>,
}

impl Located {
    fn from_hub(name: &RepoName, snapshot: Snapshot) -> Self {
        Self {
            path: snapshot.path,
            name: name.id().to_owned(),
            commit: Some(snapshot.commit),
        }
    }
}

/// Resolves `--model`: a checkpoint folder, `mini`, or the name of a repository on the hub, which is fetched as far as
/// it is not in the cache.
///
/// # Errors
/// [`HubError`] when the folder is a file or holds no `config.json`, and for names that cannot be fetched. Whether the
/// configuration and the weights are sound is for the loader to say.
pub fn model(argument: &str, hear: Hear<'_>) -> Result<Located, HubError> {
    match folder_or_name(argument, Kind::Model)? {
        Found::Folder(located) => with_config(located),
        Found::Mini(mini) => Ok(at(mini.model, MINI)),
        Found::Name(name) => {
            let snapshot = Hub::new(Settings::from_env()?)?.model(&name, hear)?;
            Ok(Located::from_hub(&name, snapshot))
        }
    }
}

/// Resolves `--data-dir`: a folder with one folder per task, `mini`, or the name of a data set on the hub such as
/// [`crate::GLUE`], of which the files of these splits are fetched as far as they are not in the cache.
///
/// # Errors
/// [`HubError`] when the folder is a file, or is itself a task's folder, and for names that cannot be fetched. Which
/// tasks and splits a folder holds is for the reader to say.
pub fn data(argument: &str, splits: &[Split<'_>], hear: Hear<'_>) -> Result<Located, HubError> {
    match folder_or_name(argument, Kind::Data)? {
        Found::Folder(located) => with_tasks(located),
        Found::Mini(mini) => Ok(at(mini.data, MINI)),
        Found::Name(name) => {
            let snapshot = Hub::new(Settings::from_env()?)?.data(&name, splits, hear)?;
            Ok(Located::from_hub(&name, snapshot))
        }
    }
}

/// As [`model`], without opening a connection: `None` for what would have to be fetched first.
///
/// # Errors
/// As [`model`], for a folder that is no checkpoint.
pub fn model_here(argument: &str) -> Result<Option<Located>, HubError> {
    match folder_or_name(argument, Kind::Model)? {
        Found::Name(name) => {
            let found = offline()?.model(&name, &mut |_| {});
            Ok(found
                .ok()
                .map(|snapshot| Located::from_hub(&name, snapshot)))
        }
        _ => model(argument, &mut |_| {}).map(Some),
    }
}

/// As [`data`], without opening a connection: `None` for what would have to be fetched first.
///
/// # Errors
/// As [`data`], for a folder that holds no task.
pub fn data_here(argument: &str, splits: &[Split<'_>]) -> Result<Option<Located>, HubError> {
    match folder_or_name(argument, Kind::Data)? {
        Found::Name(name) => {
            let found = offline()?.data(&name, splits, &mut |_| {});
            Ok(found
                .ok()
                .map(|snapshot| Located::from_hub(&name, snapshot)))
        }
        _ => data(argument, splits, &mut |_| {}).map(Some),
    }
}

fn offline() -> Result<Hub, HubError> {
    let mut settings = Settings::from_env()?;
    settings.offline = true;
    Hub::new(settings)
}

enum Found {
    Folder(Located),
    Mini(Mini),
    Name(RepoName),
}

/// A folder that exists wins over every name.
fn folder_or_name(argument: &str, kind: Kind) -> Result<Found, HubError> {
    if argument.trim().is_empty() {
        return Err(HubError::Empty { kind });
    }
    let path = PathBuf::from(argument);
    if path.is_dir() {
        let name = folder_name(&path)?;
        return Ok(Found::Folder(at(path, &name)));
    }
    if argument == MINI {
        return Ok(Found::Mini(unpack_mini(&cache_dir()?)?));
    }
    if path.exists() {
        return Err(HubError::NotAFolder { kind, path });
    }
    RepoName::parse(argument, kind)
        .map(Found::Name)
        .ok_or(HubError::Missing { kind, path })
}

fn at(path: PathBuf, name: &str) -> Located {
    Located {
        path,
        name: name.to_owned(),
        commit: None,
    }
}

fn with_config(located: Located) -> Result<Located, HubError> {
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

fn with_tasks(located: Located) -> Result<Located, HubError> {
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

    fn model(argument: &str) -> Result<Located, HubError> {
        super::model(argument, &mut |_| {})
    }

    fn data(argument: &str) -> Result<Located, HubError> {
        super::data(argument, &[], &mut |_| {})
    }

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
    fn what_is_no_folder_and_could_be_a_name_is_looked_for_on_the_hub() {
        for name in ["roberta-base", "microsoft/deberta-v2-xlarge@abc"] {
            let found = folder_or_name(name, Kind::Model).unwrap();
            assert!(matches!(found, Found::Name(found) if found.to_string() == name));
        }
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

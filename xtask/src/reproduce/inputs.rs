//! The folders that a grid reads: its models and its data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lowburn_glue::Task;
use lowburn_hub::Split;

use crate::grid::Grid;
use crate::workspace;

/// The models' and the data's folders of a grid.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    /// The checkpoints, by the names that the grid has for them; those that are not here are not in it.
    pub(crate) models: BTreeMap<String, PathBuf>,
    /// One folder a task; `None` if it is not here.
    pub(crate) data: Option<PathBuf>,
}

/// Where to look, and whether what is not there is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// Folder that may hold the models as folders.
    pub(crate) models: Option<&'a Path>,
    /// Folder of the data.
    pub(crate) data: Option<&'a Path>,
    /// Whether the hub is asked for what is not here.
    pub(crate) fetch: bool,
}

impl Inputs {
    /// Finds what a grid names: the embedded `mini` assets, folders that the user gave, or what is on the hub, which is
    /// fetched as far as it is not in the cache.
    ///
    /// # Errors
    /// When it is none of these, cannot be fetched, or does not hold what it should.
    pub(crate) fn find(grid: &Grid, places: Places<'_>) -> Result<Self> {
        let mut models = BTreeMap::new();
        for name in grid.models() {
            if let Some(path) = model(grid, name, places)? {
                models.insert(name.to_owned(), path);
            }
        }
        let data = data(grid, places)?;
        Ok(Self { models, data })
    }

    /// The folder of a model.
    pub(crate) fn model(&self, name: &str) -> Option<&Path> {
        self.models.get(name).map(PathBuf::as_path)
    }
}

fn unpacked() -> Result<lowburn_hub::Mini> {
    Ok(lowburn_hub::unpack_mini(
        &workspace::target().join("lowburn").join("assets"),
    )?)
}

fn model(grid: &Grid, name: &str, places: Places<'_>) -> Result<Option<PathBuf>> {
    if name == lowburn_hub::MINI {
        return Ok(Some(unpacked()?.model));
    }
    // By its whole name, or by the last part of it: `microsoft/deberta-v2-xlarge` and `deberta-v2-xlarge`.
    let plain = name.split('@').next().unwrap_or(name);
    let last = plain.rsplit('/').next().unwrap_or(plain);
    let below = places
        .models
        .into_iter()
        .flat_map(|models| [models.join(plain), models.join(last)]);
    let folder = below.into_iter().find(|folder| folder.is_dir());
    let argument = folder.map_or(name.to_owned(), |folder| {
        folder.to_string_lossy().into_owned()
    });
    let found = if places.fetch {
        lowburn::model(&argument, false).map(Some)
    } else {
        lowburn_hub::model_here(&argument).map_err(anyhow::Error::from)
    };
    let found = found.with_context(|| {
        format!(
            "the grid {} needs the checkpoint {name}: give the folder that holds it with --models, or check its name \
             on the hub",
            grid.name
        )
    })?;
    Ok(found.map(|located| located.path))
}

fn data(grid: &Grid, places: Places<'_>) -> Result<Option<PathBuf>> {
    if grid.data == lowburn_hub::MINI {
        return Ok(Some(unpacked()?.data));
    }
    let given = places.data.map(|data| data.to_string_lossy().into_owned());
    let argument = given.as_ref().unwrap_or(&grid.data);
    let found = if places.fetch {
        lowburn::training_data(argument, &grid.tasks(), false).map(Some)
    } else {
        lowburn_hub::data_here(argument, &splits(&grid.tasks())).map_err(anyhow::Error::from)
    };
    let found = found.with_context(|| {
        format!(
            "the grid {} needs the data {}: give its folder, with one folder a task, with --data",
            grid.name, grid.data
        )
    })?;
    Ok(found.map(|located| located.path))
}

fn splits(tasks: &[Task]) -> Vec<Split<'static>> {
    let of = |task: &Task| {
        let task = task.name();
        move |name| Split { task, name }
    };
    tasks
        .iter()
        .flat_map(|task| {
            let names = std::iter::once("train").chain(task.evaluation_splits().iter().copied());
            names.map(of(task))
        })
        .collect()
}

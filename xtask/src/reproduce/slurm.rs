//! Runs on a cluster with Slurm: one array task a run.
//!
//! Runs that nothing waits for and that wait for nothing are one array. Runs that others start from are another, and
//! the runs that start from them are arrays with the same numbers, whose tasks wait for the task of their number
//! (`aftercorr`). A task is `reproduce --only RUN` in the very same folders, so a task that is put back into the queue goes on
//! where it was, two tasks never do one run, and what is finished is not submitted. Rendering is a job at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::picks::Pick;
use super::runs::Run;
use crate::estimate::{Machine, Shape};
use crate::grid::Grid;
use crate::workspace;

/// Memory beyond the estimate, for what it leaves out.
const MARGIN: u64 = 1 << 30;

/// What is to be submitted, and with what.
pub(crate) struct Cluster<'a> {
    /// The grid.
    pub(crate) grid: &'a Grid,
    /// Arguments that make another `reproduce` do the same, the grid's name first.
    pub(crate) again: Vec<String>,
    /// Folder of adapters and states; scripts and output go to `slurm` in it.
    pub(crate) work: &'a Path,
    /// Folder of records.
    pub(crate) results: &'a Path,
    /// Tasks at a time.
    pub(crate) jobs: Option<usize>,
    /// Threads of a task.
    pub(crate) threads: usize,
    /// Further options of sbatch.
    pub(crate) options: &'a [String],
}

/// An array of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    /// `starts`: part of file names.
    pub(crate) name: String,
    /// The run of each task; an empty name is a task that does nothing.
    pub(crate) runs: Vec<String>,
    /// The array whose tasks must be done first.
    pub(crate) after: Option<&'static str>,
    /// Bytes that a task needs, if that is known.
    pub(crate) memory: Option<u64>,
}

/// A run that is to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// The run.
    name: String,
    /// The run that it starts from.
    parent: Option<String>,
    /// Bytes that it needs, if that is known.
    memory: Option<u64>,
}

/// The runs that are not done. Those whose model is not here yet are among them.
///
/// # Errors
/// When a model's configuration cannot be read.
pub(crate) fn tasks(picks: &[Pick<'_>], runs: &[Run], machine: Machine) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for pick in picks {
        let (cell, name) = (pick.cell, pick.name());
        let run = runs.iter().find(|run| run.name == name);
        if run.is_some_and(Run::is_done) {
            continue;
        }
        let shape = Shape::of(cell, run.map(|run| run.config.model.as_path()))?;
        let rows = match run {
            Some(run) => run.config.batch_size,
            None => machine.rows_at_once(cell, shape.as_ref())?,
        };
        tasks.push(Task {
            parent: pick.start_name(),
            name,
            memory: shape
                .map(|shape| shape.memory(cell, rows, machine.checkpoint_activations))
                .transpose()?,
        });
    }
    Ok(tasks)
}

/// Splits tasks into arrays.
pub(crate) fn arrays(tasks: &[Task]) -> Vec<Array> {
    // A start that is done is nothing to wait for.
    let parent = |task: &Task| -> Option<&Task> {
        let name = task.parent.as_ref()?;
        tasks.iter().find(|other| other.name == *name)
    };
    let children = |start: &Task| -> Vec<&Task> {
        tasks
            .iter()
            .filter(|task| parent(task).is_some_and(|found| found.name == start.name))
            .collect()
    };
    let starts: Vec<&Task> = tasks
        .iter()
        .filter(|task| !children(task).is_empty())
        .collect();
    let alone = tasks
        .iter()
        .filter(|task| parent(task).is_none() && children(task).is_empty());
    let mut arrays = vec![
        array("runs", alone.map(Some).collect(), None),
        array("starts", starts.iter().copied().map(Some).collect(), None),
    ];
    let most = starts
        .iter()
        .map(|start| children(start).len())
        .max()
        .unwrap_or(0);
    for number in 0..most {
        let row = starts
            .iter()
            .map(|start| children(start).get(number).copied())
            .collect();
        arrays.push(array(&format!("after-{}", number + 1), row, Some("starts")));
    }
    arrays.retain(|array| !array.runs.is_empty());
    arrays
}

fn array(name: &str, tasks: Vec<Option<&Task>>, after: Option<&'static str>) -> Array {
    Array {
        name: name.to_owned(),
        memory: tasks
            .iter()
            .flatten()
            .map(|task| task.memory)
            .max()
            .flatten(),
        runs: tasks
            .iter()
            .map(|task| task.map(|task| task.name.clone()).unwrap_or_default())
            .collect(),
        after,
    }
}

impl Cluster<'_> {
    fn folder(&self) -> PathBuf {
        self.work.join("slurm")
    }

    /// The copy of this program that tasks run: a later build does not change what was submitted.
    fn program(&self) -> PathBuf {
        self.folder().join("xtask")
    }

    /// The names of the runs of an array, a line a task.
    fn list(&self, array: &Array) -> PathBuf {
        self.folder().join(format!("{}.txt", array.name))
    }

    /// The batch script of an array.
    pub(crate) fn script(&self, array: &Array) -> String {
        let limit = self.jobs.map_or(String::new(), |jobs| format!("%{jobs}"));
        let memory = array.memory.map_or(String::new(), |bytes| {
            format!("#SBATCH --mem={}M\n", (bytes + MARGIN).div_ceil(1 << 20))
        });
        format!(
            "{}#SBATCH --array=0-{}{limit}\n#SBATCH --cpus-per-task={}\n{memory}#SBATCH --requeue\n#SBATCH \
             --open-mode=append\n#SBATCH --output={}\n{}\nset -euo pipefail\nrun=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" \
             {})\n[ -n \"$run\" ] || exit 0\nexec {} --only \"$run\"\n",
            self.head(&array.name),
            array.runs.len() - 1,
            self.threads,
            quoted(&self.folder().join("%x-%a.out").display().to_string()),
            self.further(),
            quoted(&self.list(array).display().to_string()),
            self.command("reproduce"),
        )
    }

    /// The batch script that renders what came out.
    pub(crate) fn report(&self) -> String {
        format!(
            "{}#SBATCH --open-mode=append\n#SBATCH --output={}\n{}\nset -euo pipefail\nexec {}\n",
            self.head("report"),
            quoted(&self.folder().join("%x.out").display().to_string()),
            self.further(),
            self.command("report"),
        )
    }

    fn head(&self, name: &str) -> String {
        format!(
            "#!/bin/bash\n#SBATCH --job-name={}-{name}\n",
            self.grid.name
        )
    }

    fn further(&self) -> String {
        self.options
            .iter()
            .map(|option| format!("#SBATCH {option}\n"))
            .collect()
    }

    fn command(&self, task: &str) -> String {
        let program = self.program().display().to_string();
        let results = self.results.display().to_string();
        let words: Vec<String> = match task {
            "report" => {
                let mut words = vec![self.again[0].clone(), "--output".to_owned(), results];
                let sets = self
                    .again
                    .windows(2)
                    .filter(|pair| pair[0] == "--set" || pair[0] == "--seeds");
                words.extend(sets.flatten().cloned());
                words
            }
            _ => {
                let work = self.work.display().to_string();
                let places = ["--work".to_owned(), work, "--output".to_owned(), results];
                let threads = ["--threads".to_owned(), self.threads.to_string()];
                self.again
                    .iter()
                    .cloned()
                    .chain(places)
                    .chain(threads)
                    .collect()
            }
        };
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!("{} {task} {}", quoted(&program), words.join(" "))
    }

    /// Everything that would be written and submitted, for reading.
    pub(crate) fn outline(&self, arrays: &[Array]) -> String {
        let mut text = String::new();
        for array in arrays {
            let runs: Vec<String> = array
                .runs
                .iter()
                .enumerate()
                .map(|(task, run)| {
                    format!(
                        "#   {task}: {}",
                        if run.is_empty() { "nothing" } else { run }
                    )
                })
                .collect();
            text += &format!(
                "# sbatch --parsable{} {}\n# tasks, from {}:\n{}\n{}\n",
                array.after.map_or(String::new(), |after| format!(
                    " --dependency=aftercorr:<{after}> --kill-on-invalid-dep=yes"
                )),
                self.folder().join(format!("{}.sh", array.name)).display(),
                self.list(array).display(),
                runs.join("\n"),
                self.script(array)
            );
        }
        text += &format!(
            "# sbatch --dependency=afterany:<all of them> {}\n{}",
            self.folder().join("report.sh").display(),
            self.report()
        );
        text
    }

    /// Writes the scripts and submits them; gives the numbers of the jobs.
    ///
    /// # Errors
    /// When a file cannot be written, or sbatch is not there or refuses.
    pub(crate) fn submit(&self, arrays: &[Array]) -> Result<Vec<(String, String)>> {
        let folder = self.folder();
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        // By a new file under another name: tasks of an earlier call may run the old one.
        let (program, fresh) = (
            self.program(),
            folder.join(format!("xtask.{}", std::process::id())),
        );
        fs::copy(workspace::this_program()?, &fresh)
            .and_then(|_| fs::rename(&fresh, &program))
            .with_context(|| format!("cannot write {}", program.display()))?;
        let mut submitted: Vec<(String, String)> = Vec::new();
        for array in arrays {
            workspace::write(&self.list(array), &(array.runs.join("\n") + "\n"))?;
            let mut options = Vec::new();
            if let Some(after) = array.after {
                let first = submitted.iter().find(|(name, _)| name == after);
                let job = first.map(|(_, job)| job.clone()).unwrap_or_default();
                options.push(format!("--dependency=aftercorr:{job}"));
                options.push("--kill-on-invalid-dep=yes".to_owned());
            }
            let job = sbatch(
                &folder.join(format!("{}.sh", array.name)),
                &self.script(array),
                &options,
            )?;
            submitted.push((array.name.clone(), job));
        }
        let all: Vec<&str> = submitted.iter().map(|(_, job)| job.as_str()).collect();
        let after = format!("--dependency=afterany:{}", all.join(":"));
        let job = sbatch(&folder.join("report.sh"), &self.report(), &[after])?;
        submitted.push(("report".to_owned(), job));
        Ok(submitted)
    }
}

fn sbatch(path: &Path, script: &str, options: &[String]) -> Result<String> {
    workspace::write(path, script)?;
    let output = Command::new("sbatch")
        .arg("--parsable")
        .args(options)
        .arg(path)
        .output()
        .context("cannot start sbatch; run this where Slurm's commands are, or see --launcher slurm --dry-run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("sbatch {} failed: {}", path.display(), said.trim());
    }
    // `JOB` or `JOB;CLUSTER`.
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.trim().split(';').next().unwrap_or_default().to_owned())
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,:%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, parent: Option<&str>) -> Task {
        Task {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            memory: Some(name.len() as u64),
        }
    }

    #[test]
    fn what_waits_has_the_number_of_what_it_waits_for() {
        let tasks = [
            task("cola-0", None),
            task("mnli-0", None),
            task("rte-0", Some("mnli-0")),
            task("mrpc-0", Some("mnli-0")),
            task("mnli-1", None),
            task("rte-1", Some("mnli-1")),
            // Its start is done.
            task("rte-2", Some("mnli-2")),
        ];
        let arrays = arrays(&tasks);
        let found: Vec<(&str, Vec<&str>, Option<&str>)> = arrays
            .iter()
            .map(|array| {
                (
                    array.name.as_str(),
                    array.runs.iter().map(String::as_str).collect(),
                    array.after,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("runs", vec!["cola-0", "rte-2"], None),
                ("starts", vec!["mnli-0", "mnli-1"], None),
                ("after-1", vec!["rte-0", "rte-1"], Some("starts")),
                ("after-2", vec!["mrpc-0", ""], Some("starts")),
            ]
        );
        assert_eq!(arrays[3].memory, Some(6));
        assert!(super::arrays(&[]).is_empty());
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quoted("a/b-c.txt"), "a/b-c.txt");
        assert_eq!(quoted("it's so"), "'it'\\''s so'");
        assert_eq!(quoted(""), "''");
    }
}

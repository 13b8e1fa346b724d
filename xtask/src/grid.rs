//! Grids of experiments: TOML files with one recipe per cell of the table that they make.
//!
//! A file is read as a whole into checked types before anything runs. No hyperparameter has a default in code: what a
//! cell does not say, and the file's `[common]` table neither, is an error, and so is any key that nobody reads.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lowburn_glue::Task;
use lowburn_trainer::EvalEvery;
use serde::Deserialize;

/// Grids that ship with the project, by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("mini", include_str!("../grids/mini.toml")),
    ("minilm", include_str!("../grids/minilm.toml")),
    (
        "minilm-deberta",
        include_str!("../grids/minilm-deberta.toml"),
    ),
];

/// A checked grid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    /// `mini`: names the folders of records and results.
    pub(crate) name: String,
    /// Heading of the report.
    pub(crate) title: String,
    /// What it shows and what not, a paragraph of the report.
    pub(crate) about: String,
    /// Name of the model: `mini`, a folder below `--models`, or a name on the hub.
    pub(crate) model: String,
    /// Name of the data: `mini`, what `--data` gives, or a name on the hub.
    pub(crate) data: String,
    /// Seeds of every cell.
    pub(crate) seeds: Vec<u64>,
    /// The recipes, in the order of the file.
    pub(crate) cells: Vec<Cell>,
}

/// One recipe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// The task.
    pub(crate) task: Task,
    /// What is trained.
    pub(crate) approach: Approach,
    /// Peak learning rate.
    pub(crate) lr: f64,
    /// Passes over the training rows.
    pub(crate) epochs: usize,
    /// Rows of a forward pass.
    pub(crate) batch_size: usize,
    /// Forward passes of an optimiser step.
    pub(crate) accumulate: usize,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Share of the steps that warm up.
    pub(crate) warmup_ratio: f64,
    /// Tokens of a row.
    pub(crate) max_length: usize,
    /// Batches of like length.
    pub(crate) group_by_length: bool,
    /// When the dev set is evaluated.
    pub(crate) eval_every: EvalEvery,
}

/// What is trained, with what only that method needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Approach {
    /// Adapters and the head.
    Lora {
        /// Rank r.
        rank: usize,
        /// Numerator of the scale.
        alpha: f64,
        /// Layers that get an adapter, as on the command line.
        targets: String,
        /// Dropout of the adapter's input.
        dropout: f64,
    },
    /// All parameters.
    Full,
    /// The head on the frozen encoder.
    Head,
    /// Biases and the head.
    Bitfit,
}

impl Approach {
    /// `lora-r8`, `full`, `head`, `bitfit`: part of file names.
    pub(crate) fn slug(&self) -> String {
        match self {
            Approach::Lora { rank, .. } => format!("lora-r{rank}"),
            Approach::Full => "full".to_owned(),
            Approach::Head => "head".to_owned(),
            Approach::Bitfit => "bitfit".to_owned(),
        }
    }

    /// `LoRA r 8`, `full`, `head`: part of tables and figures.
    pub(crate) fn label(&self) -> String {
        match self {
            Approach::Lora { rank, .. } => format!("LoRA r {rank}"),
            Approach::Full => "full".to_owned(),
            Approach::Head => "head".to_owned(),
            Approach::Bitfit => "BitFit".to_owned(),
        }
    }

    /// The word in run records: `lora`, `full`, `head`.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Approach::Lora { .. } => "lora",
            Approach::Full => "full",
            Approach::Head => "head",
            Approach::Bitfit => "bitfit",
        }
    }

    /// The rank, for LoRA.
    pub(crate) fn rank(&self) -> Option<usize> {
        match self {
            Approach::Lora { rank, .. } => Some(*rank),
            _ => None,
        }
    }
}

impl Cell {
    /// `mrpc-lora-r8`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.task, self.approach.slug())
    }

    /// `mrpc-lora-r8-seed0`: the folder of one run.
    pub(crate) fn run_name(&self, seed: u64) -> String {
        format!("{}-seed{seed}", self.name())
    }
}

impl Grid {
    /// A grid by name, or from a `.toml` file, whose stem is then its name.
    ///
    /// # Errors
    /// For an unknown name, an unreadable file, and anything wrong in it.
    pub(crate) fn load(argument: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == argument) {
            return Self::parse(name, text).with_context(|| format!("in xtask/grids/{name}.toml"));
        }
        let path = Path::new(argument);
        if path.extension().is_none_or(|extension| extension != "toml") {
            let names = Self::names().join(", ");
            bail!(
                "there is no grid `{argument}`; give one of {names}, or a .toml file like xtask/grids/mini.toml"
            );
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the grid `{argument}`"))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, &text).with_context(|| format!("in the grid `{argument}`"))
    }

    /// Names of the grids that ship with the project.
    pub(crate) fn names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|(name, _)| *name).collect()
    }

    /// The tasks, in the order of their first cell.
    pub(crate) fn tasks(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for cell in &self.cells {
            if !tasks.contains(&cell.task) {
                tasks.push(cell.task);
            }
        }
        tasks
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let file: RawGrid = toml::from_str(text)?;
        ensure!(
            !file.seeds.is_empty(),
            "`seeds` is empty: give at least one"
        );
        let distinct: BTreeSet<u64> = file.seeds.iter().copied().collect();
        ensure!(
            distinct.len() == file.seeds.len(),
            "`seeds` names a seed twice"
        );
        ensure!(
            !file.cell.is_empty(),
            "there is no [[cell]]: give at least one recipe"
        );
        let mut cells = Vec::new();
        for (index, table) in file.cell.into_iter().enumerate() {
            let cell = checked(table, &file.common)
                .with_context(|| format!("[[cell]] number {}", index + 1))?;
            if cells.iter().any(|other: &Cell| other.name() == cell.name()) {
                bail!(
                    "[[cell]] number {}: `{}` is there already",
                    index + 1,
                    cell.name()
                );
            }
            cells.push(cell);
        }
        Ok(Self {
            name: name.to_owned(),
            title: file.title,
            about: file.about.trim().to_owned(),
            model: file.model,
            data: file.data,
            seeds: file.seeds,
            cells,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrid {
    title: String,
    about: String,
    model: String,
    data: String,
    seeds: Vec<u64>,
    #[serde(default)]
    common: toml::Table,
    #[serde(default)]
    cell: Vec<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCell {
    task: String,
    method: RawMethod,
    rank: Option<usize>,
    alpha: Option<f64>,
    targets: Option<String>,
    lora_dropout: Option<f64>,
    lr: f64,
    epochs: usize,
    batch_size: usize,
    accumulate: usize,
    weight_decay: f64,
    warmup_ratio: f64,
    max_length: usize,
    group_by_length: bool,
    eval_every: toml::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawMethod {
    Lora,
    Full,
    Head,
    Bitfit,
}

fn checked(cell: toml::Table, common: &toml::Table) -> Result<Cell> {
    let mut whole = common.clone();
    whole.extend(cell);
    let raw: RawCell = whole.try_into()?;
    let approach = match raw.method {
        RawMethod::Lora => Approach::Lora {
            rank: raw
                .rank
                .context("`rank` is missing, which the method lora needs")?,
            alpha: raw
                .alpha
                .context("`alpha` is missing, which the method lora needs")?,
            targets: raw
                .targets
                .context("`targets` is missing, which the method lora needs")?,
            dropout: raw
                .lora_dropout
                .context("`lora_dropout` is missing, which the method lora needs")?,
        },
        other => {
            let given = [
                ("rank", raw.rank.is_some()),
                ("alpha", raw.alpha.is_some()),
                ("targets", raw.targets.is_some()),
                ("lora_dropout", raw.lora_dropout.is_some()),
            ];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                bail!("`{key}` belongs to the method lora only");
            }
            match other {
                RawMethod::Bitfit => Approach::Bitfit,
                RawMethod::Full => Approach::Full,
                _ => Approach::Head,
            }
        }
    };
    let eval_every = match &raw.eval_every {
        toml::Value::String(word) => word.parse()?,
        number => number.to_string().parse()?,
    };
    Ok(Cell {
        task: raw.task.parse()?,
        approach,
        lr: raw.lr,
        epochs: raw.epochs,
        batch_size: raw.batch_size,
        accumulate: raw.accumulate,
        weight_decay: raw.weight_decay,
        warmup_ratio: raw.warmup_ratio,
        max_length: raw.max_length,
        group_by_length: raw.group_by_length,
        eval_every,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        title = "t"
        about = "a"
        model = "mini"
        data = "mini"
        seeds = [0, 1]
        [common]
        epochs = 1
        batch_size = 2
        accumulate = 1
        weight_decay = 0.0
        warmup_ratio = 0.0
        max_length = 16
        group_by_length = false
        eval_every = "epoch"
        [[cell]]
        task = "rte"
        method = "full"
        lr = 1e-3
    "#;

    #[test]
    fn the_grids_that_ship_are_sound() {
        for name in Grid::names() {
            let grid = Grid::load(name).unwrap();
            assert_eq!(grid.name, name);
            assert!(!grid.cells.is_empty());
        }
    }

    #[test]
    fn a_cell_says_more_than_the_common_table() {
        let grid = Grid::parse("small", &format!("{SMALL}epochs = 7")).unwrap();
        assert_eq!(grid.cells[0].epochs, 7);
        assert_eq!(grid.cells[0].run_name(1), "rte-full-seed1");
    }

    #[test]
    fn evaluations_come_after_epochs_or_after_steps() {
        let every = |value: &str| {
            let text = SMALL.replace("\"epoch\"", value);
            Grid::parse("small", &text).map(|grid| grid.cells[0].eval_every)
        };
        assert_eq!(every("\"epoch\"").unwrap(), EvalEvery::Epoch);
        assert_eq!(every("500").unwrap(), EvalEvery::Steps(500));
        for wrong in ["\"step\"", "-1", "0.5", "true"] {
            let message = format!("{:#}", every(wrong).unwrap_err());
            assert!(message.contains("`epoch` or a number"), "{message}");
        }
    }

    #[test]
    fn each_mistake_has_its_message() {
        let cases = [
            (SMALL.replace("lr = 1e-3", ""), "lr"),
            (
                SMALL.replace("lr = 1e-3", "lr = 1e-3\nrank = 8"),
                "`rank` belongs to the method lora only",
            ),
            (SMALL.replace("\"full\"", "\"lora\""), "`rank` is missing"),
            (SMALL.replace("\"rte\"", "\"ret\""), "ret"),
            (
                SMALL.replace("lr = 1e-3", "lr = 1e-3\nlearning_rate = 1"),
                "learning_rate",
            ),
            (SMALL.replace("[0, 1]", "[]"), "`seeds` is empty"),
            (SMALL.replace("[0, 1]", "[1, 1]"), "names a seed twice"),
            (
                format!("{SMALL}[[cell]]\ntask = \"rte\"\nmethod = \"full\"\nlr = 1.0"),
                "is there already",
            ),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", Grid::parse("small", &text).unwrap_err());
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
        let message = Grid::load("maxi").unwrap_err().to_string();
        assert!(
            message.contains("mini, minilm, minilm-deberta"),
            "{message}"
        );
    }
}

//! Grids of experiments: TOML files with one recipe per cell of the table that they make.
//!
//! A file is read as a whole into checked types before anything runs. No hyperparameter has a default in code: what a
//! cell does not say, and neither the `[shared.NAME]` table that it names nor the file's `[common]` table, is an error,
//! and so is any key that nobody reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lowburn_glue::Task;
use lowburn_lora::{LoraConfig, LoraInit};
use lowburn_models::LoraPositionBranch;
use lowburn_trainer::{Dtype, EvalEvery, Method, Warmup};
use serde::Deserialize;

/// Grids that ship with the project, by name.
const BUILT_IN: [(&str, &str); 7] = [
    ("mini", include_str!("../grids/mini.toml")),
    ("minilm", include_str!("../grids/minilm.toml")),
    (
        "minilm-deberta",
        include_str!("../grids/minilm-deberta.toml"),
    ),
    ("rank-study", include_str!("../grids/rank-study.toml")),
    ("authors", include_str!("../grids/authors.toml")),
    ("paper", include_str!("../grids/paper.toml")),
    ("student", include_str!("../grids/student.toml")),
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
    /// Name of the model: `mini`, a folder below `--models`, or a name on the hub.
    pub(crate) model: String,
    /// The model's part of the names of runs, where the grid has several models.
    prefix: Option<String>,
    /// The task.
    pub(crate) task: Task,
    /// What is trained.
    pub(crate) approach: Approach,
    /// Peak learning rate.
    pub(crate) lr: f64,
    /// Passes over the training rows.
    pub(crate) epochs: usize,
    /// Rows of an optimiser step, over however many forward passes.
    pub(crate) batch_size: usize,
    /// Decoupled weight decay.
    pub(crate) weight_decay: f64,
    /// Steps that warm up.
    pub(crate) warmup: Warmup,
    /// Tokens of a row.
    pub(crate) max_length: usize,
    /// Batches of like length.
    pub(crate) group_by_length: bool,
    /// When the dev set is evaluated.
    pub(crate) eval_every: EvalEvery,
    /// Dropout in the head, where it is not the checkpoint's own.
    pub(crate) head_dropout: Option<f64>,
    /// Whether it starts from what the MNLI run of the same model, method and seed left.
    pub(crate) from_mnli: bool,
    /// Only so many training rows.
    pub(crate) train_rows: Option<usize>,
    /// Only so many steps.
    pub(crate) max_steps: Option<u64>,
    /// How a frozen base is stored.
    pub(crate) dtype: Dtype,
    /// What others published for it.
    pub(crate) published: Option<Published>,
}

/// A number that others published, in points of the task's first metric.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Published {
    /// The value.
    pub(crate) value: f64,
    /// The spread over seeds that stands beside it.
    pub(crate) spread: Option<f64>,
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
        /// How A starts.
        init: LoraInit,
        /// What the adapter does to DeBERTa-v2's positions.
        position_branch: Option<LoraPositionBranch>,
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
            other => other.method().name().to_owned(),
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

    /// The trainer's method.
    pub(crate) fn method(&self) -> Method {
        match self {
            Approach::Lora { .. } => Method::Lora,
            Approach::Full => Method::Full,
            Approach::Head => Method::Head,
            Approach::Bitfit => Method::Bitfit,
        }
    }

    /// The adapter, for LoRA.
    ///
    /// # Errors
    /// When the targets are no targets.
    pub(crate) fn lora(&self) -> Result<Option<LoraConfig>> {
        let Approach::Lora {
            rank,
            alpha,
            targets,
            dropout,
            init,
            ..
        } = self
        else {
            return Ok(None);
        };
        Ok(Some(LoraConfig {
            dropout: *dropout,
            init: *init,
            ..LoraConfig::new(*rank, *alpha, targets.parse()?)
        }))
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
    /// `mrpc-lora-r8`, with the model in front where the grid has several.
    pub(crate) fn name(&self) -> String {
        let name = format!("{}-{}", self.task, self.approach.slug());
        match &self.prefix {
            Some(prefix) => format!("{prefix}-{name}"),
            None => name,
        }
    }

    /// The last part of the model's name.
    pub(crate) fn short_model(&self) -> &str {
        short(&self.model)
    }

    /// `mrpc-lora-r8-seed0`: the folder of one run.
    pub(crate) fn run_name(&self, seed: u64) -> String {
        format!("{}-seed{seed}", self.name())
    }
}

/// The last part of a model's name, without a revision: `roberta-base` of `FacebookAI/roberta-base@main`.
fn short(model: &str) -> &str {
    let name = model.split('@').next().unwrap_or(model);
    name.rsplit('/').next().unwrap_or(name)
}

impl Grid {
    /// The models, in the order of their first cell.
    pub(crate) fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !models.contains(&cell.model.as_str()) {
                models.push(&cell.model);
            }
        }
        models
    }

    /// The methods, in the order of their first cell.
    pub(crate) fn approaches(&self) -> Vec<Approach> {
        let mut approaches: Vec<Approach> = Vec::new();
        for Cell { approach, .. } in &self.cells {
            if !approaches
                .iter()
                .any(|known| known.slug() == approach.slug())
            {
                approaches.push(approach.clone());
            }
        }
        approaches
    }

    /// The cells of one model, as a grid.
    pub(crate) fn of_model(&self, model: &str) -> Self {
        let cells = self.cells.iter().filter(|cell| cell.model == model);
        Self {
            cells: cells.cloned().collect(),
            ..self.clone()
        }
    }

    /// The cell whose runs a cell starts from.
    pub(crate) fn start_of(&self, cell: &Cell) -> Option<&Cell> {
        let same = |other: &&Cell| {
            other.model == cell.model
                && other.task == Task::Mnli
                && other.approach.slug() == cell.approach.slug()
        };
        self.cells.iter().filter(|_| cell.from_mnli).find(same)
    }

    /// A grid by name, or from a `.toml` file, whose stem is then its name.
    ///
    /// # Errors
    /// For an unknown name, an unreadable file, and anything wrong in it.
    pub(crate) fn load(argument: &str) -> Result<Self> {
        Self::load_with(argument, &[])
    }

    /// A grid with some keys of every cell replaced, `key=value` with a value as in TOML. It is then another grid, with
    /// a name of its own, so that its records never lie among the original's.
    ///
    /// # Errors
    /// As [`Grid::load`], and for a change that is none.
    pub(crate) fn load_with(argument: &str, changes: &[String]) -> Result<Self> {
        let (name, text, place) = Self::source(argument)?;
        let mut changed = toml::Table::new();
        for change in changes {
            let parsed = change
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let Some((key, value)) = parsed else {
                bail!("--set {change}: give KEY=VALUE, such as epochs=1");
            };
            // A word is a string even without quotes.
            let value = format!("value = {value}").parse::<toml::Table>();
            let value = value.ok().and_then(|mut table| table.remove("value"));
            let text = || {
                toml::Value::String(
                    change[change.find('=').map_or(0, |at| at + 1)..]
                        .trim()
                        .to_owned(),
                )
            };
            changed.insert(key.to_owned(), value.unwrap_or_else(text));
        }
        let name = changes.iter().fold(name, |name, change| {
            let word = change.replace(
                |c: char| !(c.is_ascii_alphanumeric() || "=._-".contains(c)),
                "_",
            );
            format!("{name}+{word}")
        });
        Self::parse_with(&name, &text, &changed).with_context(|| format!("in {place}"))
    }

    /// Name, text and place of a grid.
    fn source(argument: &str) -> Result<(String, String, String)> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == argument) {
            let place = format!("xtask/grids/{name}.toml");
            return Ok(((*name).to_owned(), (*text).to_owned(), place));
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
        Ok((name.into_owned(), text, format!("the grid `{argument}`")))
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

    #[cfg(test)]
    fn parse(name: &str, text: &str) -> Result<Self> {
        Self::parse_with(name, text, &toml::Table::new())
    }

    fn parse_with(name: &str, text: &str, changed: &toml::Table) -> Result<Self> {
        let file: RawGrid = toml::from_str(text)?;
        ensure!(
            !file.cell.is_empty(),
            "there is no [[cell]]: give at least one recipe"
        );
        let mut cells = Vec::new();
        for (index, table) in file.cell.iter().enumerate() {
            let cell = whole(table, &file, changed)
                .and_then(checked)
                .with_context(|| format!("[[cell]] number {}", index + 1))?;
            cells.push(cell);
        }
        let mut grid = Self {
            name: name.to_owned(),
            title: file.title,
            about: file.about.trim().to_owned(),
            data: file.data,
            seeds: Vec::new(),
            cells,
        };
        grid.set_seeds(file.seeds)?;
        grid.name_models();
        grid.check_cells()?;
        Ok(grid)
    }

    /// Other seeds for every cell.
    ///
    /// # Errors
    /// For none, and for one twice.
    pub(crate) fn set_seeds(&mut self, seeds: Vec<u64>) -> Result<()> {
        ensure!(!seeds.is_empty(), "`seeds` is empty: give at least one");
        let distinct: BTreeSet<u64> = seeds.iter().copied().collect();
        ensure!(distinct.len() == seeds.len(), "`seeds` names a seed twice");
        self.seeds = seeds;
        Ok(())
    }

    /// Puts the model into the names of runs where there are several.
    fn name_models(&mut self) {
        if self.models().len() > 1 {
            for cell in &mut self.cells {
                cell.prefix = Some(short(&cell.model).to_owned());
            }
        }
    }

    /// Cells that differ, and starts that exist.
    fn check_cells(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for (index, cell) in self.cells.iter().enumerate() {
            let number = index + 1;
            if !names.insert(cell.name()) {
                bail!(
                    "[[cell]] number {number}: `{}` is there already",
                    cell.name()
                );
            }
            if !cell.from_mnli {
                continue;
            }
            ensure!(
                cell.task != Task::Mnli
                    && matches!(cell.approach, Approach::Lora { .. } | Approach::Full),
                "[[cell]] number {number}: `start` is for the methods lora and full, and for other tasks than mnli"
            );
            ensure!(
                self.start_of(cell).is_some(),
                "[[cell]] number {number}: `{}` starts from the mnli run of {} with {}, which the grid does not have",
                cell.name(),
                cell.model,
                cell.approach.label()
            );
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrid {
    title: String,
    about: String,
    model: Option<String>,
    data: String,
    seeds: Vec<u64>,
    #[serde(default)]
    common: toml::Table,
    #[serde(default)]
    shared: BTreeMap<String, toml::Table>,
    #[serde(default)]
    cell: Vec<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCell {
    model: String,
    task: String,
    method: RawMethod,
    rank: Option<usize>,
    alpha: Option<f64>,
    targets: Option<String>,
    lora_dropout: Option<f64>,
    lora_init: Option<String>,
    lora_position_branch: Option<String>,
    lr: f64,
    epochs: usize,
    batch_size: usize,
    weight_decay: f64,
    warmup_ratio: Option<f64>,
    warmup_steps: Option<u64>,
    max_length: usize,
    group_by_length: bool,
    eval_every: toml::Value,
    head_dropout: Option<f64>,
    start: Option<RawStart>,
    train_rows: Option<usize>,
    max_steps: Option<u64>,
    #[serde(default)]
    dtype: Dtype,
    published: Option<Published>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawStart {
    Pretrained,
    Mnli,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawMethod {
    Lora,
    Full,
    Head,
    Bitfit,
}

/// What the file says of a cell: of its own, then what it shares with others, then what is common to all.
fn whole(cell: &toml::Table, file: &RawGrid, changed: &toml::Table) -> Result<toml::Table> {
    let mut whole = toml::Table::new();
    if let Some(model) = &file.model {
        whole.insert("model".to_owned(), toml::Value::String(model.clone()));
    }
    let mut layers = vec![&file.common];
    if let Some(name) = cell.get("shared") {
        let shared = name.as_str().and_then(|name| file.shared.get(name));
        layers.push(
            shared.with_context(|| format!("there is no [shared] table of the name {name}"))?,
        );
    }
    layers.extend([cell, changed]);
    for layer in layers {
        // One of the two says how long the warm-up is; the nearer word counts.
        for (one, other) in [
            ("warmup_ratio", "warmup_steps"),
            ("warmup_steps", "warmup_ratio"),
        ] {
            if layer.contains_key(one) && !layer.contains_key(other) {
                whole.remove(other);
            }
        }
        whole.extend(layer.clone());
    }
    whole.remove("shared");
    // What is replaced in every cell does nothing where the method has no such thing.
    let foreign: &[&str] = match whole.get("method").and_then(toml::Value::as_str) {
        Some("lora") => &[],
        Some("full") => &FROZEN_KEYS,
        _ => &LORA_KEYS,
    };
    let replaced = foreign.iter().filter(|key| changed.contains_key(**key));
    for key in replaced.filter(|key| !cell.contains_key(**key)) {
        whole.remove(*key);
    }
    Ok(whole)
}

/// Keys of a cell that belong to the method lora.
const LORA_KEYS: [&str; 6] = [
    "rank",
    "alpha",
    "targets",
    "lora_dropout",
    "lora_init",
    "lora_position_branch",
];

/// Keys of a cell that mean nothing to the method full.
const FROZEN_KEYS: [&str; 7] = {
    let [rank, alpha, targets, dropout, init, branch] = LORA_KEYS;
    [rank, alpha, targets, dropout, init, branch, "dtype"]
};

fn checked(whole: toml::Table) -> Result<Cell> {
    let given = LORA_KEYS.iter().find(|key| whole.contains_key(**key));
    let raw: RawCell = whole.clone().try_into()?;
    let approach = match raw.method {
        RawMethod::Lora => lora(&raw)?,
        other => {
            if let Some(key) = given {
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
    let warmup = match (raw.warmup_ratio, raw.warmup_steps) {
        (Some(ratio), None) => Warmup::Ratio(ratio),
        (None, Some(steps)) => Warmup::Steps(steps),
        _ => bail!("give one of `warmup_ratio` and `warmup_steps`"),
    };
    let cell = Cell {
        model: raw.model,
        prefix: None,
        task: raw.task.parse()?,
        approach,
        lr: raw.lr,
        epochs: raw.epochs,
        batch_size: raw.batch_size,
        weight_decay: raw.weight_decay,
        warmup,
        max_length: raw.max_length,
        group_by_length: raw.group_by_length,
        eval_every,
        head_dropout: raw.head_dropout,
        from_mnli: matches!(raw.start, Some(RawStart::Mnli)),
        train_rows: raw.train_rows,
        max_steps: raw.max_steps,
        dtype: raw.dtype,
        published: raw.published,
    };
    sound(&cell)?;
    Ok(cell)
}

/// Refuses numbers that no model could be trained with. What depends on the model is checked when it is there.
fn sound(cell: &Cell) -> Result<()> {
    let share = |value: f64| (0.0..1.0).contains(&value);
    let rate = |value: f64| value.is_finite() && value >= 0.0;
    let (lr, decay) = (cell.lr, cell.weight_decay);
    ensure!(rate(lr), "`lr` is {lr}: give 0 or more, such as 5e-4");
    ensure!(rate(decay), "`weight_decay` is {decay}: give 0 or more");
    for (key, value) in [
        ("epochs", cell.epochs),
        ("batch_size", cell.batch_size),
        ("max_length", cell.max_length),
        ("train_rows", cell.train_rows.unwrap_or(1)),
    ] {
        ensure!(value > 0, "`{key}` is 0: give 1 or more");
    }
    if let Warmup::Ratio(ratio) = cell.warmup {
        ensure!(
            (0.0..=1.0).contains(&ratio),
            "`warmup_ratio` is {ratio}: give 0 to 1"
        );
    }
    if let Some(dropout) = cell.head_dropout {
        ensure!(
            share(dropout),
            "`head_dropout` is {dropout}: give 0 or more and below 1"
        );
    }
    ensure!(
        !cell.dtype.is_half() || cell.approach.method() != Method::Full,
        "`dtype` is {}: it is for a base that stays frozen, and `method` full trains all of it; give f32",
        cell.dtype
    );
    if let Some(lora) = cell.approach.lora()? {
        lora.validate()?;
    }
    Ok(())
}

fn lora(raw: &RawCell) -> Result<Approach> {
    let missing = |key: &str| format!("`{key}` is missing, which the method lora needs");
    Ok(Approach::Lora {
        rank: raw.rank.with_context(|| missing("rank"))?,
        alpha: raw.alpha.with_context(|| missing("alpha"))?,
        targets: raw.targets.clone().with_context(|| missing("targets"))?,
        dropout: raw.lora_dropout.with_context(|| missing("lora_dropout"))?,
        init: match &raw.lora_init {
            Some(init) => init.parse()?,
            None => LoraInit::default(),
        },
        position_branch: match &raw.lora_position_branch {
            Some(branch) => Some(branch.parse()?),
            None => None,
        },
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
            (
                SMALL.replace("lr = 1e-3", "lr = 1e-3\ndtype = \"f16\""),
                "`dtype` is f16: it is for a base that stays frozen",
            ),
            (SMALL.replace("\"full\"", "\"lora\""), "`rank` is missing"),
            (SMALL.replace("\"rte\"", "\"ret\""), "ret"),
            (
                SMALL.replace("lr = 1e-3", "lr = 1e-3\nlearning_rate = 1"),
                "learning_rate",
            ),
            (SMALL.replace("1e-3", "-1e-3"), "`lr` is -0.001"),
            (SMALL.replace("1e-3", "nan"), "`lr` is NaN"),
            (
                SMALL.replace("batch_size = 2", "batch_size = 0"),
                "`batch_size` is 0",
            ),
            (
                SMALL.replace("warmup_ratio = 0.0", "warmup_ratio = 6.0"),
                "`warmup_ratio` is 6",
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

    #[test]
    fn a_cell_takes_what_it_shares() {
        let text = format!("{SMALL}shared = \"long\"\n[shared.long]\nepochs = 9\nwarmup_steps = 5");
        let cell = &Grid::parse("small", &text).unwrap().cells[0];
        assert_eq!(cell.epochs, 9);
        let text = text.replace("[shared.long]", "[shared.other]");
        let message = format!("{:#}", Grid::parse("small", &text).unwrap_err());
        assert!(message.contains("long"), "{message}");
    }

    #[test]
    fn a_changed_grid_has_a_name_of_its_own() {
        let changes = ["epochs=7", "lr = 0.5", "rank=2", "dtype=bf16"].map(str::to_owned);
        let grid = Grid::load_with("mini", &changes).unwrap();
        assert_eq!(grid.name, "mini+epochs=7+lr_=_0.5+rank=2+dtype=bf16");
        let plain = Grid::load("mini").unwrap();
        for (changed, cell) in grid.cells.iter().zip(&plain.cells) {
            assert_eq!((changed.epochs, changed.lr), (7, 0.5));
            assert_eq!(changed.batch_size, cell.batch_size);
            assert_eq!(changed.approach.rank(), cell.approach.rank().map(|_| 2));
            let is_full = cell.approach.method() == Method::Full;
            let dtype = if is_full { Dtype::F32 } else { Dtype::Bf16 };
            assert_eq!((changed.dtype, cell.dtype), (dtype, Dtype::F32));
        }
        for (change, expected) in [
            ("epochs", "KEY=VALUE"),
            ("epoch=3", "epoch"),
            ("epochs=x", "epochs"),
        ] {
            let error = Grid::load_with("mini", &[change.to_owned()]).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }

    #[test]
    fn a_start_needs_its_mnli_run() {
        let with = |more: &str| Grid::parse("small", &format!("{SMALL}start = \"mnli\"\n{more}"));
        let message = with("").unwrap_err().to_string();
        assert!(
            message.contains("which the grid does not have"),
            "{message}"
        );
        let mnli = "[[cell]]\ntask = \"mnli\"\nmethod = \"full\"\nlr = 1e-3\n";
        let grid = with(mnli).unwrap();
        assert_eq!(grid.start_of(&grid.cells[0]), Some(&grid.cells[1]));
        assert_eq!(grid.start_of(&grid.cells[1]), None);
        let other = mnli.replace("lr =", "model = \"other\"\nlr =");
        assert!(with(&other).is_err());
        let head = SMALL.replace("\"full\"", "\"head\"") + "start = \"mnli\"\n";
        assert!(Grid::parse("small", &head).is_err());
    }

    #[test]
    fn several_models_stand_in_the_names() {
        let text = format!(
            "{SMALL}[[cell]]\nmodel = \"a/b@c\"\ntask = \"rte\"\nmethod = \"full\"\nlr = 1e-3"
        );
        let grid = Grid::parse("small", &text).unwrap();
        let names: Vec<String> = grid.cells.iter().map(|cell| cell.run_name(0)).collect();
        assert_eq!(names, ["mini-rte-full-seed0", "b-rte-full-seed0"]);
        assert_eq!(grid.models(), ["mini", "a/b@c"]);
        assert_eq!(grid.of_model("a/b@c").cells.len(), 1);
    }
}

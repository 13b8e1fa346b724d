//! `cargo xtask reproduce`: trains what a grid lists and renders what came out.
//!
//! A run is known by the digest of its full configuration and of every file that goes in. One that is finished in the
//! work folder is not trained again, one that was interrupted goes on. What a clone brings along in `results` is no
//! reason to skip a run, because reproducing means to do it here, unless `--skip-recorded` says that a grid is to be
//! finished in several sittings or on several machines.

mod board;
mod collect;
mod devices;
mod inputs;
mod outline;
mod picks;
mod queue;
mod runs;
mod slurm;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lowburn_trainer::DeviceName;

use crate::estimate::Machine;
use crate::grid::Grid;
use crate::report;
use crate::workspace;
use board::Board;
use collect::{Agreement, Timing, collect};
use devices::Devices;
use outline::{Asked, planned};
use picks::{cells_of, picks};
use queue::{Next, Queue};
use runs::{Run, Todo};

pub(crate) use inputs::{Inputs, Places};
pub(crate) use worker::work;

/// Arguments of `cargo xtask reproduce`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReproduceArgs {
    /// Grid to run: mini, minilm, minilm-deberta, rank-study, authors, paper, student, or a .toml file
    #[arg(default_value = "mini")]
    grid: String,
    /// Folder that holds the grid's checkpoint as a folder (not needed for mini and what is on the hub)
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Folder of the data, with one folder a task (not needed for mini and what is on the hub)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only runs whose name holds this text, such as `rte-lora`; may be given again
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Other seeds than the grid's, such as 0,1,2
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Replace a key of every recipe, such as epochs=1; may be given again. The results are then no longer the grid's:
    /// they go to target/lowburn/GRID+KEY=VALUE/results unless --output says otherwise
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Say what would be run, with an estimate of time and memory, and stop; nothing is fetched
    #[arg(long)]
    dry_run: bool,
    /// Do not train a run whose finished record, with the same digest, is in the results folder already
    ///
    /// For a grid that is finished in several sittings or on several machines: commit or copy the records, and go on
    /// elsewhere with nothing else. A record of another recipe, other inputs or an older digest format does not count.
    /// Without this option only the work folder counts.
    #[arg(long)]
    skip_recorded: bool,
    /// Only the run of this very name, without rendering; what a task of a cluster does
    #[arg(long, value_name = "RUN", hide = true)]
    only: Option<String>,
    /// Where runs are done: processes of this machine (local), or tasks of a Slurm cluster whose nodes see the same folders
    /// (slurm: writes batch scripts and submits them; with --dry-run prints them)
    #[arg(long, value_enum, default_value_t = Launcher::Local)]
    launcher: Launcher,
    /// Option for Slurm's sbatch, such as --partition=gpu; may be given again
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    sbatch: Vec<String>,
    /// Devices to train on, all of one kind: each run takes the one with the fewest runs at the moment. cuda:0,cuda:1
    /// are two cards, flex,flex two runs at a time on the processor. On a cluster one name, for every task [default:
    /// auto, the best graphics card that is there, else flex]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    device: Vec<DeviceName>,
    /// Runs at a time [default: as many as devices; on a cluster as many as it allows]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Threads of each run [default: the cores divided by --jobs]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Rows of a forward pass at most; what a recipe's batch has more is accumulated [default: as many as the free
    /// memory allows, which is this machine's, also where the runs are on a graphics card]
    #[arg(long, value_name = "N")]
    micro_batch: Option<usize>,
    /// Keep only what goes into each layer and compute the rest again in the backward pass: much less memory, about half
    /// more time, the same bits. More rows may fit into a forward pass then, which is another run unless --micro-batch says
    /// how many
    #[arg(long)]
    checkpoint_activations: bool,
    /// The machine does other work meanwhile: mark the times of these runs as not comparable
    #[arg(long)]
    shared_machine: bool,
    /// Folder for records, table and figures [default: results/GRID]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder for adapters, checkpoints and state [default: target/lowburn/GRID]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

/// Who does the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Launcher {
    /// Processes on this machine.
    Local,
    /// Tasks of a Slurm cluster.
    Slurm,
}

/// Runs the command.
///
/// # Errors
/// For a bad grid or bad inputs before anything runs; at the end when a run failed.
pub(crate) fn run(args: &ReproduceArgs) -> Result<()> {
    let devices = Devices::new(&args.device)?;
    let jobs = args.jobs.unwrap_or(devices.names().len());
    ensure!(
        (1..=1024).contains(&jobs),
        "--jobs is {jobs}: give 1 or more"
    );
    ensure!(
        args.sbatch.is_empty() || args.launcher == Launcher::Slurm,
        "--sbatch belongs to --launcher slurm"
    );
    ensure!(
        args.micro_batch != Some(0),
        "--micro-batch is 0: give 1 or more"
    );
    check_devices(&devices, args.launcher)?;
    let mut grid = Grid::load_with(&args.grid, &args.set)?;
    if !args.seeds.is_empty() {
        grid.set_seeds(args.seeds.clone()).context("--seeds")?;
    }
    let whole = || workspace::target().join("lowburn").join(&grid.name);
    let work = args.work.clone().unwrap_or_else(whole);
    let results = args.output.clone().unwrap_or_else(|| {
        if args.set.is_empty() {
            workspace::results(&grid.name)
        } else {
            whole().join("results")
        }
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let machine = Machine {
        jobs,
        threads: args.threads.unwrap_or((cores / jobs).max(1)),
        micro_batch: args.micro_batch,
        checkpoint_activations: args.checkpoint_activations,
    };
    let places = Places {
        models: args.models.as_deref(),
        data: args.data.as_deref(),
        fetch: !args.dry_run,
    };
    // Whatever is wrong with a filter or a recipe is said before anything is fetched.
    let filters = args
        .only
        .as_ref()
        .map_or(args.filter.clone(), |only| vec![only.clone()]);
    let picks = picks(&grid, &filters)?;
    let inputs = Inputs::find(&cells_of(&grid, &picks), places)?;
    let asked = Asked {
        picks: &picks,
        work: &work,
        results: &results,
        machine,
        device: devices.first(),
        skip_recorded: args.skip_recorded,
    };
    if args.launcher == Launcher::Slurm {
        return launch(args, &grid, &inputs, asked);
    }
    if args.dry_run {
        let (table, sum) = outline::dry_run(&inputs, asked)?;
        print!("{table}");
        eprintln!("{sum}");
        return Ok(());
    }
    let mut runs = planned(&inputs, asked)?;
    if let Some(only) = &args.only {
        // The run it starts from is a task of its own.
        runs.retain(|run| run.name == *only);
        ensure!(
            !runs.is_empty(),
            "no run of the grid {} is called {only}",
            grid.name
        );
    }
    let training = Training {
        grid: &grid,
        results: &results,
        jobs,
        devices: &devices,
        threads: machine.threads,
        timing: if args.shared_machine {
            Timing::Shared
        } else {
            Timing::Alone
        },
    };
    let (failed, agreements) = train_all(&runs, &training)?;
    if args.only.is_none() {
        println!("{}", report::write(&grid, &results)?);
    }
    eprintln!("records, table and figures: {}", results.display());
    tell_agreement(&agreements);
    if !failed.is_empty() {
        bail!(
            "{} of {} runs failed: {}",
            failed.len(),
            runs.len(),
            failed.join(", ")
        );
    }
    Ok(())
}

/// The devices are here, or there is one for the tasks of a cluster, whose nodes may have what is not here.
fn check_devices(devices: &Devices, launcher: Launcher) -> Result<()> {
    match launcher {
        Launcher::Local => {
            for name in devices.names() {
                name.open()?;
            }
        }
        Launcher::Slurm => {
            let count = devices.names().len();
            ensure!(
                count == 1,
                "--device names {count} devices: Slurm gives each task its own card; give one name, such as cuda:0"
            );
        }
    }
    Ok(())
}

/// Writes and submits what a cluster needs, or prints it.
fn launch(args: &ReproduceArgs, grid: &Grid, inputs: &Inputs, asked: Asked<'_>) -> Result<()> {
    let absolute = |path: &Path| std::path::absolute(path).context("this folder cannot be named");
    let (work, results) = (absolute(asked.work)?, absolute(asked.results)?);
    let mut again = vec![args.grid.clone()];
    if args.grid.ends_with(".toml") {
        again[0] = absolute(Path::new(&args.grid))?.display().to_string();
    }
    for (option, folder) in [("--models", &args.models), ("--data", &args.data)] {
        if let Some(folder) = folder {
            again.extend([option.to_owned(), absolute(folder)?.display().to_string()]);
        }
    }
    if !args.seeds.is_empty() {
        let seeds: Vec<String> = args.seeds.iter().map(u64::to_string).collect();
        again.extend(["--seeds".to_owned(), seeds.join(",")]);
    }
    for change in &args.set {
        again.extend(["--set".to_owned(), change.clone()]);
    }
    again.extend(["--device".to_owned(), asked.device.to_string()]);
    if let Some(rows) = args.micro_batch {
        again.extend(["--micro-batch".to_owned(), rows.to_string()]);
    }
    if args.checkpoint_activations {
        again.push("--checkpoint-activations".to_owned());
    }
    if args.shared_machine {
        again.push("--shared-machine".to_owned());
    }
    let cluster = slurm::Cluster {
        grid,
        again,
        work: &work,
        results: &results,
        jobs: args.jobs,
        threads: asked.machine.threads,
        options: &args.sbatch,
    };
    let runs = planned(inputs, asked)?;
    let arrays = slurm::arrays(&slurm::tasks(asked.picks, &runs, asked.machine)?);
    if arrays.is_empty() {
        eprintln!("all {} runs are done already", runs.len());
        return Ok(());
    }
    if args.dry_run {
        print!("{}", cluster.outline(&arrays));
        return Ok(());
    }
    for (name, job) in cluster.submit(&arrays)? {
        println!("{name}: job {job}");
    }
    eprintln!(
        "scripts and output of the tasks: {}",
        work.join("slurm").display()
    );
    Ok(())
}

/// How runs are trained and where their records go.
struct Training<'a> {
    grid: &'a Grid,
    results: &'a Path,
    jobs: usize,
    devices: &'a Devices,
    threads: usize,
    timing: Timing,
}

/// Trains what is to do, `jobs` at a time; gives the names of failed runs, and how records compare with older ones.
fn train_all(runs: &[Run], training: &Training<'_>) -> Result<(Vec<String>, Vec<Agreement>)> {
    let (done, todo): (Vec<&Run>, Vec<&Run>) = runs
        .iter()
        .filter(|run| run.todo != Todo::Recorded)
        .partition(|run| run.todo == Todo::Nothing);
    for run in &done {
        collect(run, &training.grid.data, training.results, Timing::AsBefore)?;
    }
    let recorded = runs.len() - done.len() - todo.len();
    for (count, words) in [(done.len(), "done"), (recorded, "recorded")] {
        if count > 0 {
            eprintln!("{count} of {} runs are {words} already", runs.len());
        }
    }
    let trained = todo.len();
    let board = Board::new(runs.len(), runs.len() - trained);
    let queue = Queue::new(todo.into_iter().cloned().collect());
    let outcomes: Mutex<Vec<(String, Result<Agreement>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..training.jobs {
            scope.spawn(|| {
                while let Some(next) = queue.next() {
                    let (run, outcome) = match next {
                        Next::Train(mut run) => {
                            let outcome = one(&mut run, training, &board);
                            (run, outcome)
                        }
                        Next::Hopeless(run) => {
                            let start = run.parent.as_ref().map(|parent| parent.name.as_str());
                            let start = start.unwrap_or_default().to_owned();
                            (run, Err(anyhow!("{start}, which it starts from, failed")))
                        }
                    };
                    queue.over(&run.name, outcome.is_ok());
                    if let Err(error) = &outcome {
                        board.say(&format!(
                            "{} failed: {}",
                            run.name,
                            lowburn::one_line(error)
                        ));
                    }
                    outcomes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((run.name.clone(), outcome));
                }
            });
        }
    });
    board.close();
    let (mut failed, mut agreements) = (Vec::new(), Vec::new());
    for (name, outcome) in outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        match outcome {
            Ok(agreement) => agreements.push(agreement),
            Err(_) => failed.push(name),
        }
    }
    if trained > 0 {
        eprintln!(
            "{trained} run{} in {}",
            if trained == 1 { "" } else { "s" },
            board.elapsed()
        );
    }
    Ok((failed, agreements))
}

fn one(run: &mut Run, training: &Training<'_>, board: &Board) -> Result<Agreement> {
    let device = training.devices.take();
    run.config.device = device.name();
    if training.devices.names().len() > 1 {
        board.say(&format!("{} on {}", run.name, device.name()));
    }
    if run.todo == Todo::Waits {
        run.settle()?;
    }
    if run.todo == Todo::Replace {
        board.say(&format!(
            "{}: its configuration or its inputs changed; it is trained again",
            run.name
        ));
    }
    let mut lane = board.lane(&run.name);
    worker::train(run, training.threads, |message| lane.hear(&message))?;
    collect(run, &training.grid.data, training.results, training.timing)
}

/// Says whether this machine came to the same bits as the records that were there.
fn tell_agreement(agreements: &[Agreement]) {
    let count = |wanted: Agreement| agreements.iter().filter(|found| **found == wanted).count();
    let (same, different) = (count(Agreement::Same), count(Agreement::Different));
    if same + different > 0 {
        eprintln!(
            "{same} of {} runs that had a record gave the same log as that record, byte for byte",
            same + different
        );
    }
}

//! A checkpoint, with or without something trained on top, ready to compute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lowburn_glue::{Dataset, Task, Tokenizer};
use lowburn_lora::{AdapterFile, HostTensor, read_peft};
use lowburn_models::{
    Dtype, HeadOrigin, HeadPolicy, LoadOptions, LoadReport, LoraPositionBranch, Method,
    ModelConfig, SequenceClassifier, is_head, load_classifier,
};

use crate::about::About;
use crate::config::DeviceName;
use crate::error::TrainError;
use crate::parts;
use crate::plan::{check_dtype, check_max_length, check_position_branch};
use crate::progress::{Event, Observer};
use crate::rows::{Rows, check_vocabulary};

/// Seed of a head that nothing trained; it only has to be the same every time.
const HEAD_SEED: u64 = 0;

/// A model on disk.
#[derive(Debug, Clone)]
pub struct Source {
    /// Folder of the checkpoint.
    pub model: PathBuf,
    /// A PEFT folder, or the head or bitfit folder of a run.
    pub adapter: Option<PathBuf>,
    /// Use the adapter even if it was trained upon other weights.
    pub any_base: bool,
    /// What the adapter does to positions; `None`: as its folder says, else as in PEFT.
    pub position_branch: Option<LoraPositionBranch>,
    /// How the matrices of the encoder are stored.
    pub dtype: Dtype,
}

/// A model in memory.
pub(crate) struct Loaded {
    pub(crate) model: SequenceClassifier,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) about: Option<About>,
    /// Class names in the order of the logits, where they are known.
    pub(crate) labels: Option<Vec<String>>,
    /// Whether the head is neither the checkpoint's nor the adapter's.
    pub(crate) head_is_random: bool,
    /// Whether an adapter brings a classifier that was trained upon a pooler nobody has.
    pub(crate) pooler_is_random: bool,
    /// What the adapter does to positions.
    pub(crate) position_branch: LoraPositionBranch,
}

impl Loaded {
    /// Tokens of a row at most: as asked for, else as fine-tuned, else as pretrained.
    pub(crate) fn max_length(&self, asked: Option<usize>) -> Result<usize, TrainError> {
        let longest = self.config.max_length();
        let trained = self
            .about
            .as_ref()
            .map(|about| about.max_length.min(longest));
        let length = asked
            .or(trained)
            .unwrap_or_else(|| self.config.trained_length());
        check_max_length(length, &self.config)?;
        Ok(length)
    }

    /// The rows of a data set, tokenised for this model.
    pub(crate) fn rows(&self, dataset: Dataset, max_length: usize) -> Result<Rows, TrainError> {
        Rows::new(dataset, &self.tokenizer, max_length, &self.config)
    }
}

/// What a folder given as an adapter holds.
enum OnTop {
    Lora(Box<AdapterFile>),
    Head(BTreeMap<String, HostTensor>),
    Bitfit(BTreeMap<String, HostTensor>),
}

impl OnTop {
    fn read(folder: &Path) -> Result<Self, TrainError> {
        if folder.join(parts::HEAD).is_file() {
            return Ok(Self::Head(parts::read(folder, parts::HEAD)?));
        }
        if folder.join(parts::BITFIT).is_file() {
            return Ok(Self::Bitfit(parts::read(folder, parts::BITFIT)?));
        }
        if !folder.join("adapter_config.json").is_file() {
            let found = if folder.join("config.json").is_file() {
                "is a checkpoint, not an adapter: give it as --model"
            } else if folder.is_dir() {
                "holds none of adapter_config.json, head.safetensors and bitfit.safetensors: it is no \
                 adapter folder"
            } else {
                "there is no such folder"
            };
            return Err(TrainError::Mismatch {
                path: folder.to_path_buf(),
                reason: found.to_owned(),
            });
        }
        Ok(Self::Lora(Box::new(read_peft(folder)?)))
    }

    fn as_adapter(&self) -> Option<&AdapterFile> {
        match self {
            Self::Lora(adapter) => Some(adapter),
            Self::Head(_) | Self::Bitfit(_) => None,
        }
    }

    fn head(&self) -> &BTreeMap<String, HostTensor> {
        match self {
            Self::Lora(adapter) => &adapter.saved,
            Self::Head(tensors) | Self::Bitfit(tensors) => tensors,
        }
    }
}

/// The number of labels of a head: the rows of its last weight.
pub(crate) fn head_labels(tensors: &BTreeMap<String, HostTensor>) -> Option<usize> {
    let last = ["classifier.out_proj.weight", "classifier.weight"];
    last.iter()
        .find_map(|name| tensors.get(*name))
        .and_then(|weight| weight.shape.first().copied())
}

/// Loads a model for evaluation, prediction or merging, everything checked against everything.
pub(crate) fn load(
    source: &Source,
    task: Option<Task>,
    device: DeviceName,
    observer: &mut dyn Observer,
) -> Result<Loaded, TrainError> {
    check_dtype(source.dtype, device)?;
    let device = device.start()?;
    let config = ModelConfig::from_dir(&source.model)?;
    let tokenizer = Tokenizer::from_dir(&source.model)?;
    check_vocabulary(&source.model, &tokenizer, &config)?;
    let on_top = source.adapter.as_deref().map(OnTop::read).transpose()?;
    let folder = source.adapter.as_deref().unwrap_or(&source.model);
    let about = About::read(folder)?;
    if let (Some(about), Some(task)) = (&about, task) {
        about.check_labels(folder, task)?;
    }
    if let (Some(about), false) = (&about, source.any_base) {
        about.check_base(folder, &source.model)?;
    }
    let options = LoadOptions {
        num_labels: labels_wanted(&on_top, task, &config, folder)?,
        head_seed: HEAD_SEED,
        dtype: source.dtype,
    };
    let (mut model, config, report) = load_classifier(&source.model, &options, &device)?;
    if let (HeadOrigin::OutputFresh { found }, None, Some(task)) = (report.head, &on_top, task) {
        return Err(other_labels(&source.model, found, task));
    }
    let position_branch = position_branch(source, &on_top, about.as_ref(), &config, observer)?;
    model.set_position_branch(position_branch);
    let mut pooler_is_random = false;
    let head_is_random = report.head != HeadOrigin::Loaded && on_top.is_none();
    if let Some(on_top) = &on_top {
        pooler_is_random = report.pooler_is_new && model.lacks_pooler(on_top.head());
        if let Some(text) = no_pooler(
            &model,
            on_top.as_adapter(),
            &source.model.display(),
            &report,
        ) {
            observer.event(&Event::Warning(&format!("{}: {text}", folder.display())));
        }
        model = put_on(model, on_top, &report)?;
        warn_of_headless(source, on_top, observer);
    }
    if head_is_random {
        observer.event(&Event::Warning(&format!(
            "neither {} nor an adapter brings a classification head: the head is new and random, \
             its predictions mean nothing",
            source.model.display()
        )));
    }
    Ok(Loaded {
        labels: label_names(task, about.as_ref(), &config, model.num_labels()),
        model,
        config,
        tokenizer,
        about,
        head_is_random,
        pooler_is_random,
        position_branch,
    })
}

/// What the adapter does to positions: as asked for, else as the folder says it was trained.
fn position_branch(
    source: &Source,
    on_top: &Option<OnTop>,
    about: Option<&About>,
    config: &ModelConfig,
    observer: &mut dyn Observer,
) -> Result<LoraPositionBranch, TrainError> {
    let trained = about.map(|about| about.position_branch);
    let Some(asked) = source.position_branch else {
        return Ok(trained.unwrap_or_default());
    };
    if let (Some(trained), Some(folder)) = (trained.filter(|t| *t != asked), &source.adapter) {
        observer.event(&Event::Warning(&format!(
            "{} was trained with --lora-position-branch {trained}: with {asked} it is another function",
            folder.display()
        )));
    }
    let method = match on_top {
        Some(OnTop::Lora(_)) => Method::Lora,
        Some(OnTop::Head(_)) => Method::Head,
        Some(OnTop::Bitfit(_)) => Method::Bitfit,
        None => Method::Full,
    };
    check_position_branch(asked, method, config)?;
    Ok(asked)
}

/// The warning for an adapter of DeBERTa-v2 that brings a classifier and no pooler; `None` where all
/// is well.
pub(crate) fn no_pooler(
    model: &SequenceClassifier,
    adapter: Option<&AdapterFile>,
    base: &dyn std::fmt::Display,
    report: &LoadReport,
) -> Option<String> {
    let adapter = adapter.filter(|adapter| model.lacks_pooler(&adapter.saved))?;
    // An update of the pooler says that the base's own was meant.
    let meant = adapter.factors.keys().any(|module| is_head(module));
    let instead = match report.pooler_is_new {
        true => format!("{base} has none either, so it starts from RANDOM numbers"),
        false if meant || adapter.saved.is_empty() => return None,
        false => {
            format!("the one of {base} is used, which need not be the one it was trained with")
        }
    };
    Some(format!(
        "the adapter has no pooler, which DeBERTa-v2 applies before its classifier: {instead}; \
         train it again with modules_to_save = [\"classifier\", \"pooler\"]"
    ))
}

/// Labels of the head to build: the task's, which must be the adapter's.
fn labels_wanted(
    on_top: &Option<OnTop>,
    task: Option<Task>,
    config: &ModelConfig,
    folder: &Path,
) -> Result<usize, TrainError> {
    let found = on_top
        .as_ref()
        .and_then(|on_top| head_labels(on_top.head()));
    match (found, task) {
        (Some(found), Some(task)) if found != task.num_labels() => {
            Err(other_labels(folder, found, task))
        }
        (Some(found), _) => Ok(found),
        (None, Some(task)) => Ok(task.num_labels()),
        (None, None) => Ok(config.num_labels.unwrap_or(2)),
    }
}

/// The error for a head of another number of labels than the task's.
fn other_labels(folder: &Path, found: usize, task: Task) -> TrainError {
    TrainError::Mismatch {
        path: folder.to_path_buf(),
        reason: format!(
            "its head has {found} labels and {task} has {}; give the task it was trained on",
            task.num_labels()
        ),
    }
}

/// An adapter that was trained with a head and comes without it works upon the base's own head,
/// which need not be the one it was trained with.
fn warn_of_headless(source: &Source, on_top: &OnTop, observer: &mut dyn Observer) {
    let (OnTop::Lora(adapter), Some(folder)) = (on_top, &source.adapter) else {
        return;
    };
    if adapter.saved.is_empty() && !adapter.config.modules_to_save.is_empty() {
        observer.event(&Event::Warning(&format!(
            "{}: its configuration saves {} in full (modules_to_save) but it holds no such \
             tensors: the head of {} is used",
            folder.display(),
            adapter.config.modules_to_save.join(", "),
            source.model.display()
        )));
    }
}

/// Class names: the task's, those the adapter was trained with, or the checkpoint's own.
fn label_names(
    task: Option<Task>,
    about: Option<&About>,
    config: &ModelConfig,
    count: usize,
) -> Option<Vec<String>> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let names: Vec<String> = match (task, about) {
        (Some(task), _) => owned(task.labels()),
        (None, Some(about)) => about.labels.clone(),
        (None, None) => config.labels.as_deref().unwrap_or_default().to_vec(),
    };
    (names.len() == count).then_some(names)
}

/// Puts an adapter or a head on a loaded checkpoint. The head must come from one of the two.
fn put_on(
    model: SequenceClassifier,
    on_top: &OnTop,
    report: &LoadReport,
) -> Result<SequenceClassifier, TrainError> {
    let own_head = report.head == HeadOrigin::Loaded && on_top.head().is_empty();
    let policy = if own_head {
        HeadPolicy::WhereShapesAgree
    } else {
        HeadPolicy::Required
    };
    Ok(match on_top {
        OnTop::Lora(adapter) => model.apply_adapter(adapter, policy)?,
        OnTop::Head(tensors) => model.apply_head(tensors, HeadPolicy::Required)?,
        OnTop::Bitfit(tensors) => model.apply_trained(tensors, Method::Bitfit)?,
    })
}

/// A batch must have rows.
pub(crate) fn check_batch(batch_size: usize) -> Result<(), TrainError> {
    if batch_size == 0 {
        return Err(TrainError::config("batch-size", 0, "it must be at least 1"));
    }
    Ok(())
}

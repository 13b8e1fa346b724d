//! A checkpoint folder becomes a classifier, with a report checked both ways: every tensor of the
//! model comes from the file, and every tensor of the file is used or ignored by a named rule.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, TensorData};

use crate::ModelError;
use crate::architecture::Architecture;
use crate::build::{TensorSource, classifier};
use crate::checkpoint::Checkpoint;
use crate::classifier::SequenceClassifier;
use crate::config::{Family, ModelConfig};
use crate::dtype::Dtype;
use crate::manifest::{TensorSpec, manifest};
use crate::random::RandomSource;

/// What a caller wants of the head.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Number of labels of the task; 1 for regression.
    pub num_labels: usize,
    /// Seed of whatever is newly drawn.
    pub head_seed: u64,
    /// How the matrices of the encoder are stored; halves are for a base that stays frozen.
    pub dtype: Dtype,
}

/// Where the head came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOrigin {
    /// The checkpoint has a head for this number of labels.
    Loaded,
    /// The checkpoint has a head for another number of labels: its dense layer is kept, the output
    /// layer is new.
    OutputFresh {
        /// Number of labels in the file.
        found: usize,
    },
    /// The checkpoint has no head: all of it is new.
    Fresh,
}

/// What was loaded, what was new, and what was left in the file.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Number of tensors taken from the file.
    pub loaded: usize,
    /// Where the head came from.
    pub head: HeadOrigin,
    /// Whether DeBERTa-v2's pooler is new although the model has one.
    pub pooler_is_new: bool,
    /// Tensors of the file that no classifier needs, each matched by a named rule.
    pub ignored: Vec<String>,
}

/// Tensors that a file may hold beyond a classifier's: heads of pretraining, the pooler that
/// RoBERTa's classifier does not use, and position ids that older versions stored. A name with a
/// dot at its end stands for everything below it.
const IGNORED_ROBERTA: [&str; 5] = [
    "lm_head.",
    "roberta.pooler.",
    "pooler.",
    "roberta.embeddings.position_ids",
    "embeddings.position_ids",
];
const IGNORED_DEBERTA: [&str; 6] = [
    "lm_predictions.",
    "mask_predictions.",
    "cls.predictions.",
    "lm_head.",
    "deberta.embeddings.position_ids",
    "embeddings.position_ids",
];
/// The published DeBERTa-v2 files hold absolute positions that `position_biased_input` switches off.
const POSITIONS_DEBERTA: [&str; 2] = [
    "deberta.embeddings.position_embeddings.",
    "embeddings.position_embeddings.",
];
/// The LayerNorm that transformers builds for `norm_rel_ebd` also where `relative_attention` is false.
const IDLE_NORM_DEBERTA: [&str; 2] = ["deberta.encoder.LayerNorm.", "encoder.LayerNorm."];

/// The names of a file that are ignored for this configuration.
fn ignored(config: &ModelConfig) -> Vec<&'static str> {
    let own = match &config.family {
        Family::Roberta(_) => return IGNORED_ROBERTA.to_vec(),
        Family::DebertaV2(own) => own,
    };
    let mut rules = IGNORED_DEBERTA.to_vec();
    if !own.position_biased_input {
        rules.extend(POSITIONS_DEBERTA);
    }
    if own.idle_norm {
        rules.extend(IDLE_NORM_DEBERTA);
    }
    rules
}

/// Loads a model folder for a task.
///
/// # Errors
/// The configuration or a weight file is wrong, or the two do not fit: the message lists missing,
/// unexpected and misshapen tensors.
pub fn load_classifier(
    dir: &Path,
    options: &LoadOptions,
    device: &Device,
) -> Result<(SequenceClassifier, ModelConfig, LoadReport), ModelError> {
    let config = ModelConfig::from_dir(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let specs = manifest(&config, options.num_labels);
    let (names, report) = match_names(&checkpoint, &specs, &config)?;
    let random = RandomSource::new(&specs, options.head_seed, config.initializer_range);
    let mut source = FileSource {
        checkpoint,
        names,
        random,
    };
    let model = classifier(&config, &mut source, options.dtype, device)?;
    Ok((model, config, report))
}

/// A classifier with random weights, drawn as transformers draws them.
///
/// # Errors
/// None at present; the signature leaves room for architectures that can fail.
pub fn random_classifier(
    config: &ModelConfig,
    num_labels: usize,
    seed: u64,
    device: &Device,
) -> Result<SequenceClassifier, ModelError> {
    let specs = manifest(config, num_labels);
    let mut source = RandomSource::new(&specs, seed, config.initializer_range);
    classifier(config, &mut source, Dtype::F32, device)
}

/// The name in the file of every tensor of the manifest that the file has.
fn match_names(
    checkpoint: &Checkpoint,
    specs: &[TensorSpec],
    config: &ModelConfig,
) -> Result<(BTreeMap<String, String>, LoadReport), ModelError> {
    let architecture = config.architecture();
    let rules = ignored(config);
    let mut canonical: BTreeMap<String, &str> = BTreeMap::new();
    let mut problems = Problems::default();
    let mut ignored = Vec::new();
    for name in checkpoint.tensors().keys() {
        if is_ignored(name, &rules) {
            ignored.push(name.clone());
            continue;
        }
        let ours = canonical_name(name, architecture);
        if let Some(other) = canonical.insert(ours, name) {
            problems.push(
                "ambiguous",
                format!("{other} and {name} mean the same tensor"),
            );
        }
    }
    let has_head = canonical.keys().any(|name| name.starts_with("classifier."));
    let mut head = if has_head {
        HeadOrigin::Loaded
    } else {
        HeadOrigin::Fresh
    };
    let mut names = BTreeMap::new();
    let mut other_labels: BTreeMap<usize, &str> = BTreeMap::new();
    for spec in specs {
        let Some(name) = canonical.remove(&spec.name) else {
            if !spec.in_head() || has_head {
                problems.push("missing", spec.name.clone());
            }
            continue;
        };
        let found = &checkpoint.tensors()[name].shape;
        if *found == spec.shape {
            names.insert(spec.name.clone(), name.to_owned());
        } else if is_output(&spec.name, architecture) && same_width(found, &spec.shape) {
            other_labels.insert(found[0], name);
            head = HeadOrigin::OutputFresh { found: found[0] };
        } else {
            problems.push(
                "misshapen",
                format!("{name} is {found:?}, expected {:?}", spec.shape),
            );
        }
    }
    // Weight and bias of the output layer are of one number of labels, and so both are new.
    let outputs = names
        .keys()
        .filter(|name| is_output(name, architecture))
        .count();
    if other_labels.len() > 1 || (other_labels.len() == 1 && outputs > 0) {
        for (found, name) in other_labels {
            problems.push(
                "misshapen",
                format!("{name} is of {found} labels, the rest of its layer is not"),
            );
        }
    }
    let untaken: Vec<&str> = specs
        .iter()
        .map(|spec| spec.name.as_str())
        .filter(|name| !names.contains_key(*name))
        .collect();
    for (i, (ours, name)) in canonical.iter().enumerate() {
        let hint = if i < SHOWN {
            near_miss(ours, &untaken)
        } else {
            None
        };
        let hint = hint.map_or_else(String::new, |near| format!(" (did it mean {near}?)"));
        problems.push("unexpected", format!("{name}{hint}"));
    }
    problems.into_result(checkpoint.dir())?;
    let report = LoadReport {
        loaded: names.len(),
        head,
        pooler_is_new: untaken.iter().any(|name| name.starts_with("pooler.")),
        ignored,
    };
    Ok((names, report))
}

fn is_ignored(name: &str, rules: &[&str]) -> bool {
    rules
        .iter()
        .any(|rule| name == *rule || (rule.ends_with('.') && name.starts_with(rule)))
}

/// True for the tensors whose first extent is the number of labels.
fn is_output(name: &str, architecture: Architecture) -> bool {
    let rest = name.strip_prefix(architecture.output_layer());
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// Same but for the number of labels.
fn same_width(found: &[usize], wanted: &[usize]) -> bool {
    found.len() == wanted.len() && found[0] > 0 && found[1..] == wanted[1..]
}

/// The manifest's name of a tensor: old LayerNorm names and files of the bare encoder included.
fn canonical_name(name: &str, architecture: Architecture) -> String {
    let name = match name.strip_suffix("LayerNorm.gamma") {
        Some(stem) => format!("{stem}LayerNorm.weight"),
        None => match name.strip_suffix("LayerNorm.beta") {
            Some(stem) => format!("{stem}LayerNorm.bias"),
            None => name.to_owned(),
        },
    };
    if name.starts_with("encoder.") || name.starts_with("embeddings.") {
        format!("{}.{name}", architecture.prefix())
    } else {
        name
    }
}

/// The candidate that has the most in common with a name at its start and its end, if that is most
/// of the shorter of the two: a slip of the pen, or another prefix.
fn near_miss<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let common = |other: &str| {
        let most = name.len().min(other.len());
        let start = name
            .bytes()
            .zip(other.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let ends = name.bytes().rev().zip(other.bytes().rev());
        let end = ends.take_while(|(a, b)| a == b).count();
        (start + end).min(most)
    };
    // The first of equally good ones.
    let best = candidates.iter().rev().max_by_key(|other| common(other))?;
    (5 * common(best) >= 4 * name.len().min(best.len())).then_some(*best)
}

/// How many problems of one kind a message spells out.
const SHOWN: usize = 4;

/// Problems by kind, the first few of each spelt out.
#[derive(Default)]
struct Problems(BTreeMap<&'static str, Vec<String>>);

impl Problems {
    fn push(&mut self, kind: &'static str, problem: String) {
        self.0.entry(kind).or_default().push(problem);
    }

    fn into_result(self, dir: &Path) -> Result<(), ModelError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut parts = Vec::new();
        for (kind, list) in &self.0 {
            let shown: Vec<&str> = list.iter().take(SHOWN).map(String::as_str).collect();
            let more = list.len() - shown.len();
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            parts.push(format!("{} {kind}: {}{more}", list.len(), shown.join(", ")));
        }
        Err(ModelError::Mismatch {
            path: dir.to_owned(),
            problem: format!(
                "{}; take config.json and the weights from one checkpoint",
                parts.join("; ")
            ),
        })
    }
}

/// Tensors of the file, and new ones where the file has none.
struct FileSource {
    checkpoint: Checkpoint,
    names: BTreeMap<String, String>,
    random: RandomSource,
}

impl TensorSource for FileSource {
    fn take(&mut self, name: &str) -> Result<TensorData, ModelError> {
        match self.names.get(name) {
            Some(name) => self.checkpoint.read(name),
            None => self.random.take(name),
        }
    }
}

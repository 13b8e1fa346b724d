//! Everything a run needs in memory, loaded and checked against each other before anything is
//! written.

use burn::tensor::Device;
use lowburn_glue::{Order, Tokenizer};
use lowburn_lora::AdapterFile;
use lowburn_models::{
    HeadOrigin, HeadPolicy, LoadOptions, LoadReport, ModelConfig, SequenceClassifier,
    load_classifier,
};

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::load::{head_labels, no_pooler};
use crate::parameters::{self, Slot};
use crate::plan::RunPlan;
use crate::progress::{Event, Observer};
use crate::record::ParameterCounts;
use crate::rows::{Rows, check_vocabulary};
use crate::schedule::{Schedule, Warmup};
use crate::state::NamedTensor;
use crate::step::dropout_seed;

/// Evaluation needs no activations kept, so its batches may be larger than training's.
pub(crate) const EVALUATION_BATCH: usize = 32;

/// Loaded model and data.
pub(crate) struct Prepared {
    pub(crate) model: Slot,
    pub(crate) train: Rows,
    pub(crate) evaluation: Vec<Rows>,
    pub(crate) evaluation_batch: usize,
    pub(crate) order: Order,
    pub(crate) schedule: Schedule,
    pub(crate) steps_per_epoch: u64,
    pub(crate) parameters: ParameterCounts,
}

impl Prepared {
    /// The model without anything that records gradients.
    pub(crate) fn evaluation_model(&self) -> SequenceClassifier {
        parameters::without_gradients(self.model.get())
    }

    /// The trainable tensors as they are now.
    pub(crate) fn trainable_values(&self) -> Vec<NamedTensor> {
        parameters::values(self.model.get())
    }
}

/// Loads what the plan names.
pub(crate) fn prepare(plan: &RunPlan, observer: &mut dyn Observer) -> Result<Prepared, TrainError> {
    let config = plan.config();
    let device = config.device.start()?.autodiff();
    let tokenizer = Tokenizer::from_dir(&config.model)?;
    let model_config = ModelConfig::from_dir(&config.model)?;
    check_vocabulary(&config.model, &tokenizer, &model_config)?;
    let (train, evaluation) = load_rows(config, &tokenizer, &model_config)?;
    let order = Order {
        shuffle: config.shuffle,
        group_by_length: config.group_by_length,
        seed: config.seed,
        batch_size: config.batch_size,
    };
    let batches = train.len().div_ceil(config.batch_size);
    let steps_per_epoch = batches.div_ceil(config.accumulate) as u64;
    let schedule = schedule(config, steps_per_epoch)?;
    let model = load_model(plan, &device, observer)?;
    let parameters = parameters::count(&model);
    tracing::info!(
        rows = train.len(),
        steps = schedule.total,
        warmup = schedule.warmup,
        trainable = parameters.trainable,
        "ready to train"
    );
    Ok(Prepared {
        model: Slot::new(model),
        train,
        evaluation,
        evaluation_batch: config.batch_size.max(EVALUATION_BATCH),
        order,
        schedule,
        steps_per_epoch,
        parameters,
    })
}

fn load_rows(
    config: &RunConfig,
    tokenizer: &Tokenizer,
    model: &ModelConfig,
) -> Result<(Rows, Vec<Rows>), TrainError> {
    let mut train = Rows::dataset(&config.data_dir, config.task, "train")?;
    if let Some(rows) = config.train_rows {
        train = train.take(rows);
    }
    let mut evaluation = Vec::new();
    for split in config.task.evaluation_splits() {
        evaluation.push(Rows::dataset(&config.data_dir, config.task, split)?);
    }
    let tokenise = |dataset| Rows::new(dataset, tokenizer, config.max_length, model);
    Ok((
        tokenise(train)?,
        evaluation
            .into_iter()
            .map(tokenise)
            .collect::<Result<_, _>>()?,
    ))
}

/// The schedule over all steps; a warm-up longer than the run is a mistake.
fn schedule(config: &RunConfig, steps_per_epoch: u64) -> Result<Schedule, TrainError> {
    let all = steps_per_epoch.saturating_mul(config.epochs as u64);
    let total = config.max_steps.map_or(all, |most| most.min(all));
    let warmup = config.warmup.steps(total);
    if let (Warmup::Steps(steps), true) = (config.warmup, warmup > total) {
        let reason = format!(
            "the whole run has {total} steps; give fewer, or a --warmup-ratio such as 0.06"
        );
        return Err(TrainError::config("warmup-steps", steps, reason));
    }
    Ok(Schedule {
        lr: config.lr,
        warmup,
        total,
    })
}

/// The model as it stands before the first step.
fn load_model(
    plan: &RunPlan,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<SequenceClassifier, TrainError> {
    let config = plan.config();
    let options = LoadOptions {
        num_labels: config.task.num_labels(),
        head_seed: config.seed,
        dtype: config.dtype,
    };
    let (mut model, _, report) = load_classifier(&config.model, &options, device)?;
    tracing::debug!(?report, "checkpoint loaded");
    tell_head(&report, config, observer);
    match (&config.lora, plan.init()) {
        (Some(_), Some(init)) => model = apply_init(model, init, config, &report, observer)?,
        (Some(lora), None) => {
            let targets = lora.plan(&model.linear_names())?;
            // A stream of its own: the head is drawn from the seed itself.
            let seed = dropout_seed(config.seed, u64::MAX, 0);
            model.attach(&targets, lora.init, seed);
        }
        (None, _) => {}
    }
    if let Some(dropout) = config.head_dropout {
        model.set_head_dropout(dropout);
    }
    model.set_position_branch(config.position_branch.unwrap_or_default());
    Ok(model.set_trainable(config.method))
}

/// Says where the head came from, unless it is simply the checkpoint's.
fn tell_head(report: &LoadReport, config: &RunConfig, observer: &mut dyn Observer) {
    let (name, seed) = (&config.model_name, config.seed);
    let text = match report.head {
        HeadOrigin::Loaded => return,
        HeadOrigin::Fresh => {
            format!("{name} has no classification head: a new one starts from random (seed {seed})")
        }
        HeadOrigin::OutputFresh { found } => format!(
            "the head of {name} has {found} labels and {} has {}: its last layer starts from \
             random (seed {seed})",
            config.task,
            config.task.num_labels()
        ),
    };
    observer.event(&Event::Note(&text));
}

/// Starts from an adapter: its factors, and its head where it has the task's number of labels.
fn apply_init(
    model: SequenceClassifier,
    init: &AdapterFile,
    config: &RunConfig,
    report: &LoadReport,
    observer: &mut dyn Observer,
) -> Result<SequenceClassifier, TrainError> {
    let mut init = init.clone();
    if let Some(lora) = &config.lora {
        init.config.dropout = lora.dropout;
    }
    if let Some(labels) = head_labels(&init.saved)
        && labels != config.task.num_labels()
    {
        observer.event(&Event::Note(&format!(
            "the adapter's head has {labels} labels and {} has {}: its last layer starts from random",
            config.task,
            config.task.num_labels()
        )));
    }
    if let Some(text) = no_pooler(&model, Some(&init), &config.model_name, report) {
        observer.event(&Event::Warning(&text));
    }
    Ok(model.apply_adapter(&init, HeadPolicy::WhereShapesAgree)?)
}

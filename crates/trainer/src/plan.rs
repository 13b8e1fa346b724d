//! From a configuration as typed to one that can train: every bad value is found here, before
//! anything is loaded or written, and each gives one message.

use lowburn_lora::{AdapterFile, LoraConfig, PatternMap};
use lowburn_models::{Dtype, LoraPositionBranch, Method, ModelConfig};

use crate::about::About;
use crate::config::{DeviceName, EvalEvery, RunConfig};
use crate::error::TrainError;
use crate::schedule::Warmup;

/// The shortest row that leaves room for a word beside the special tokens of a pair.
const MIN_LENGTH: usize = 5;

/// Rows of one batch beyond which a number is taken for a slip.
const MAX_BATCH: usize = 1 << 20;

/// A checked configuration: the only thing that trains.
#[derive(Debug, Clone)]
pub struct RunPlan {
    config: RunConfig,
    init: Option<AdapterFile>,
}

impl RunPlan {
    /// The full resolved configuration.
    #[must_use]
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The same run on another device, which is not looked for: for a plan that another process carries out, perhaps on
    /// another machine, and checks again there.
    #[must_use]
    pub fn on(mut self, device: DeviceName) -> Self {
        self.config.device = device;
        self
    }

    /// The adapter to start from.
    pub(crate) fn init(&self) -> Option<&AdapterFile> {
        self.init.as_ref()
    }
}

impl RunConfig {
    /// Checks every value and every combination.
    ///
    /// Reads the checkpoint's config.json and the adapter to start from, nothing more; what
    /// depends on the rows of the data set is checked by [`crate::train()`] before it writes.
    ///
    /// # Errors
    /// One for the first value that cannot be, with the way out.
    pub fn check(mut self) -> Result<RunPlan, TrainError> {
        check_counts(&self)?;
        check_rates(&self)?;
        check_order(&self)?;
        check_dtype(self.dtype, self.device)?;
        check_frozen(self.dtype, self.method)?;
        let model = ModelConfig::from_dir(&self.model)?;
        let init = resolve_adapter(&mut self, &model)?;
        let branch = position_branch(&self)?;
        check_position_branch(branch, self.method, &model)?;
        self.position_branch = Some(branch);
        check_max_length(self.max_length, &model)?;
        Ok(RunPlan { config: self, init })
    }
}

/// The device is there and can store such numbers.
pub(crate) fn check_dtype(dtype: Dtype, device: DeviceName) -> Result<(), TrainError> {
    device.open()?;
    if dtype.is_half() && !device.supports(dtype) {
        let reason =
            format!("the device {device} cannot compute with it; give another, f32 is everywhere");
        return Err(TrainError::config("dtype", dtype, reason));
    }
    Ok(())
}

/// Halves need a base that the method leaves frozen.
pub(crate) fn check_frozen(dtype: Dtype, method: Method) -> Result<(), TrainError> {
    if !dtype.is_half() || method != Method::Full {
        return Ok(());
    }
    Err(TrainError::config(
        "dtype",
        dtype,
        "it is for a base that stays frozen, and --method full trains all of it; give f32, or another method",
    ))
}

fn check_counts(config: &RunConfig) -> Result<(), TrainError> {
    let at_least_one = |field, value: usize| {
        if value == 0 {
            return Err(TrainError::config(field, value, "it must be at least 1"));
        }
        Ok(())
    };
    at_least_one("epochs", config.epochs)?;
    at_least_one("batch-size", config.batch_size)?;
    at_least_one("accumulate", config.accumulate)?;
    if let Some(rows) = config.train_rows {
        at_least_one("train-rows", rows)?;
    }
    if let Some(threads) = config.threads {
        at_least_one("threads", threads)?;
    }
    if config.max_steps == Some(0) {
        return Err(TrainError::config("max-steps", 0, "it must be at least 1"));
    }
    if config.eval_every == EvalEvery::Steps(0) {
        return Err(TrainError::config(
            "eval-every",
            0,
            "give `epoch` or at least 1 step",
        ));
    }
    for (field, value) in [
        ("batch-size", config.batch_size),
        ("accumulate", config.accumulate),
        ("epochs", config.epochs),
    ] {
        if value > MAX_BATCH {
            let reason = format!("more than {MAX_BATCH} is taken for a slip");
            return Err(TrainError::config(field, value, reason));
        }
    }
    Ok(())
}

fn check_rates(config: &RunConfig) -> Result<(), TrainError> {
    for (field, value) in [("lr", config.lr), ("weight-decay", config.weight_decay)] {
        if !(value.is_finite() && value >= 0.0) {
            let reason = "it must be a number that is 0 or more, such as 5e-4";
            return Err(TrainError::config(field, value, reason));
        }
    }
    if let Some(dropout) = config.head_dropout
        && !(0.0..1.0).contains(&dropout)
    {
        let reason = "it must be 0 or more and below 1, such as 0.1";
        return Err(TrainError::config("head-dropout", dropout, reason));
    }
    match config.warmup {
        Warmup::Ratio(ratio) if !(0.0..=1.0).contains(&ratio) => Err(TrainError::config(
            "warmup-ratio",
            ratio,
            "it must be between 0 and 1, such as 0.06",
        )),
        _ => Ok(()),
    }
}

fn check_order(config: &RunConfig) -> Result<(), TrainError> {
    if config.group_by_length && !config.shuffle {
        return Err(TrainError::config(
            "group-by-length",
            "on with shuffle false",
            "batches of like length are drawn in random order; leave one of the two out",
        ));
    }
    Ok(())
}

/// Settles `config.lora` and reads the adapter to start from.
fn resolve_adapter(
    config: &mut RunConfig,
    model: &ModelConfig,
) -> Result<Option<AdapterFile>, TrainError> {
    if config.method != Method::Lora {
        let what = [
            ("lora", config.lora.is_some()),
            ("init-adapter", config.init_adapter.is_some()),
        ];
        if let Some((field, _)) = what.into_iter().find(|(_, given)| *given) {
            let reason = format!(
                "an adapter belongs to --method lora, and the method is {}; leave the adapter's \
                 options out or change the method",
                config.method
            );
            return Err(TrainError::config(field, "given", reason));
        }
        return Ok(None);
    }
    let init = match &config.init_adapter {
        None => None,
        Some(folder) => Some(lowburn_lora::read_peft(folder)?),
    };
    let own = |lora: LoraConfig| model.architecture().lora_config(lora);
    config.lora = config.lora.take().map(own);
    match (&mut config.lora, &init) {
        (None, None) => {
            return Err(TrainError::config(
                "lora",
                "missing",
                "--method lora needs a rank, an alpha and targets, or --init-adapter",
            ));
        }
        (lora @ None, Some(init)) => *lora = Some(own(init.config.clone())),
        (Some(lora), Some(init)) => same_adapter(lora, &init.config)?,
        (Some(_), None) => {}
    }
    if let Some(lora) = &config.lora {
        lora.validate()?;
    }
    Ok(init)
}

/// What was named must be what the folder to start from holds.
fn same_adapter(named: &LoraConfig, folder: &LoraConfig) -> Result<(), TrainError> {
    let fields = |config: &LoraConfig| {
        [
            ("rank", config.rank.to_string()),
            ("alpha", config.alpha.to_string()),
            ("target", config.targets.to_string()),
            ("rslora", config.use_rslora.to_string()),
            ("rank pattern", pattern(&config.rank_pattern)),
            ("alpha pattern", pattern(&config.alpha_pattern)),
        ]
    };
    let mut pairs = fields(named).into_iter().zip(fields(folder));
    match pairs.find(|(named, folder)| named != folder) {
        None => Ok(()),
        Some(((field, named), (_, folder))) => Err(TrainError::config(
            field,
            named,
            format!("the adapter to start from has {folder}; leave the option out"),
        )),
    }
}

/// A pattern on one line, `none` where it is empty.
fn pattern<T: std::fmt::Display>(values: &PatternMap<T>) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if values.is_empty() {
        return "none".to_owned();
    }
    values.join(",")
}

/// What the adapter does to positions: as asked, which must be as the adapter to start from was trained.
fn position_branch(config: &RunConfig) -> Result<LoraPositionBranch, TrainError> {
    let about = match &config.init_adapter {
        Some(folder) => About::read(folder)?,
        None => None,
    };
    let trained = about.map(|about| about.position_branch);
    match (config.position_branch, trained) {
        (Some(asked), Some(trained)) if asked != trained => Err(TrainError::config(
            "lora-position-branch",
            asked,
            format!("the adapter to start from was trained with {trained}; leave the option out"),
        )),
        (asked, trained) => Ok(asked.or(trained).unwrap_or_default()),
    }
}

/// The authors' way is a way only where an adapter could act on positions.
pub(crate) fn check_position_branch(
    branch: LoraPositionBranch,
    method: Method,
    model: &ModelConfig,
) -> Result<(), TrainError> {
    let reason = match branch {
        LoraPositionBranch::Peft => return Ok(()),
        LoraPositionBranch::Authors if method != Method::Lora => {
            format!("it belongs to --method lora, and the method is {method}; leave it out")
        }
        LoraPositionBranch::Authors if model.shares_position_projections() => return Ok(()),
        LoraPositionBranch::Authors => format!(
            "it says what adapters do to positions that share the projections of keys and queries \
             (share_att_key of DeBERTa-v2), and this {} model has none; leave it out",
            model.architecture()
        ),
    };
    Err(TrainError::config("lora-position-branch", branch, reason))
}

/// Whether a model takes rows of `max_length` tokens.
pub(crate) fn check_max_length(max_length: usize, model: &ModelConfig) -> Result<(), TrainError> {
    if max_length < MIN_LENGTH {
        let reason = format!("it must be at least {MIN_LENGTH}: special tokens take up to 4");
        return Err(TrainError::config("max-length", max_length, reason));
    }
    let longest = model.max_length();
    if max_length > longest {
        let reason = format!("the model takes up to {longest} positions; give at most that");
        return Err(TrainError::config("max-length", max_length, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_end_where_a_table_of_positions_does() {
        for (biased, fits, too_long) in [(true, 64, 65), (false, 65_536, 65_537)] {
            let config = serde_json::json!({
                "model_type": "deberta-v2", "vocab_size": 99, "max_position_embeddings": 64, "hidden_size": 8,
                "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
                "position_biased_input": biased,
            });
            let text = config.to_string();
            let model =
                ModelConfig::parse(text.as_bytes(), Path::new("config.json")).expect("read");
            check_max_length(MIN_LENGTH, &model).expect("fits");
            check_max_length(fits, &model).expect("fits");
            for (length, expected) in [(too_long, fits), (MIN_LENGTH - 1, MIN_LENGTH)] {
                let error = check_max_length(length, &model).expect_err("refused");
                let message = error.to_string();
                assert!(message.contains(&expected.to_string()), "{message}");
            }
        }
    }
}

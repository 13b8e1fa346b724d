//! An adapter folded into its base, as a plain checkpoint.

use std::fs;
use std::path::Path;

use lowburn_models::{LoraPositionBranch, save_checkpoint};

use crate::about::About;
use crate::config::DeviceName;
use crate::error::TrainError;
use crate::load::{Loaded, Source, load};
use crate::progress::Observer;

/// A merged model, to be saved.
pub struct Merged {
    loaded: Loaded,
}

/// Loads a checkpoint and folds the adapter in.
///
/// # Errors
/// When either cannot be loaded, they do not belong together, or neither brings a head.
pub fn merge(
    source: &Source,
    device: DeviceName,
    observer: &mut dyn Observer,
) -> Result<Merged, TrainError> {
    let mut loaded = load(source, None, device, observer)?;
    if loaded.head_is_random {
        let folder = source.adapter.as_ref().unwrap_or(&source.model);
        return Err(TrainError::Mismatch {
            path: folder.clone(),
            reason: "neither it nor the base brings a classification head: the merged checkpoint \
                     would classify at random; merge the adapter together with its head"
                .to_owned(),
        });
    }
    if loaded.pooler_is_random {
        return Err(TrainError::Mismatch {
            path: source.adapter.as_ref().unwrap_or(&source.model).clone(),
            reason: "neither it nor the base brings the pooler that its classifier was trained upon: the merged \
                     checkpoint would classify at random; train it again with modules_to_save = \
                     [\"classifier\", \"pooler\"]"
                .to_owned(),
        });
    }
    let trained = loaded.about.as_ref().map(|about| about.position_branch);
    let branches = [Some(loaded.position_branch), trained];
    if branches.contains(&Some(LoraPositionBranch::Authors)) {
        return Err(TrainError::config(
            "lora-position-branch",
            LoraPositionBranch::Authors,
            "such an adapter cannot be merged: the matrix serves words with the update and positions \
             without it, and a merged one could only do the same to both; keep base and adapter apart",
        ));
    }
    loaded.model.merge();
    Ok(Merged { loaded })
}

impl Merged {
    /// Writes config.json, model.safetensors and the tokenizer's files into a folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let loaded = &self.loaded;
        fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
        save_checkpoint(
            &loaded.model,
            &loaded.config,
            loaded.labels.as_deref(),
            folder,
        )?;
        loaded.tokenizer.save(folder)?;
        if let Some(about) = &loaded.about {
            let about = About {
                position_branch: Default::default(),
                base_weights: Default::default(),
                ..about.clone()
            };
            about.write(folder)?;
        }
        Ok(())
    }
}

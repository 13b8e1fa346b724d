//! A run from a checked plan to a finished record.
//!
//! Everything that can be wrong is found before the output folder is touched. Then the loop goes
//! step by step; after every evaluation, and every few seconds, the state is saved, so that a
//! process killed at any moment loses a few seconds and not a bit of the result.

use std::path::Path;
use std::time::Instant;

use crate::claim::{Claim, Start, claim, clear, clear_leftovers, make_and_take};
use crate::digest::identity;
use crate::error::TrainError;
use crate::keep::Keeper;
use crate::lock::Lock;
use crate::output::remove_folder;
use crate::plan::RunPlan;
use crate::prepare::prepare;
use crate::progress::{Event, Observer};
use crate::record::RunRecord;
use crate::run::Run;
use crate::state::{self, Restored};
use crate::system;

/// Trains, and leaves in `output` what the crate's header lists.
///
/// # Errors
/// For a folder that is in the way, inputs that do not fit, a loss that is not a number, and
/// whatever the system refuses. The last saved state is kept and [`Start::Resume`] goes on there.
pub fn train(
    plan: &RunPlan,
    output: &Path,
    start: Start,
    observer: &mut dyn Observer,
) -> Result<RunRecord, TrainError> {
    let clock = Instant::now();
    let identity = identity(plan)?;
    // The folder is looked at once more when it is ours: another run may have ended just now.
    let mut claimed = claim(output, start, plan, &identity)?;
    let mut lock = None;
    if !matches!(claimed, Claim::New) {
        lock = Some(Lock::take(output)?);
        claimed = claim(output, start, plan, &identity)?;
    }
    if let Claim::Done(record) = claimed {
        remove_folder(&state::folder(output))?;
        observer.event(&Event::Note("the run is already finished"));
        return Ok(*record);
    }
    let mut prepared = prepare(plan, observer)?;
    let _lock = match lock {
        Some(lock) => lock,
        None => make_and_take(output)?,
    };
    let restored = open_output(&claimed, output, start, plan, observer)?;
    let run = Run::new(plan, output, identity, clock, &mut prepared, restored)?;
    run.go(&mut prepared, observer)
}

/// Makes the folder what the claim says, and reads the state to go on from.
fn open_output(
    claim: &Claim,
    output: &Path,
    start: Start,
    plan: &RunPlan,
    observer: &mut dyn Observer,
) -> Result<Option<Restored>, TrainError> {
    let restored = match claim {
        Claim::Continue(record) => {
            let threads = system::threads();
            if record.threads != threads {
                observer.event(&Event::Note(&format!(
                    "the run was started with {} threads and goes on with {threads}",
                    record.threads
                )));
            }
            state::load(output)?
        }
        Claim::Replace => {
            clear(output)?;
            None
        }
        _ => None,
    };
    match &restored {
        Some(restored) => {
            Keeper::check_kept(
                plan.config().method,
                output,
                restored.progress.best.as_ref(),
            )?;
            clear_leftovers(output)?;
            let step = restored.progress.step;
            observer.event(&Event::Note(&format!("going on after step {step}")));
        }
        None if start == Start::Resume => {
            observer.event(&Event::Note(
                "there is no saved state: starting at the beginning",
            ));
        }
        None => {}
    }
    Ok(restored)
}

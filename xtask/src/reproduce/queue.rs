//! Who trains what next: a run waits for the run that it starts from, and for nothing else.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::runs::Run;

/// Runs that are still to be done.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: Vec<Run>,
    /// Names of runs that are being trained or that wait.
    open: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// What a worker gets.
pub(crate) enum Next {
    /// A run to train.
    Train(Box<Run>),
    /// A run whose start failed.
    Hopeless(Box<Run>),
}

impl Queue {
    /// These runs, in this order as far as starts allow it.
    pub(crate) fn new(runs: Vec<Run>) -> Self {
        let open = runs.iter().map(|run| run.name.clone()).collect();
        Self {
            state: Mutex::new(State {
                waiting: runs,
                open,
                failed: BTreeSet::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// The next run; waits while all that are left wait themselves. `None` when there is nothing left.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        loop {
            if state.waiting.is_empty() {
                return None;
            }
            if let Some(next) = state.take() {
                return Some(next);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells that a run is over.
    pub(crate) fn over(&self, name: &str, good: bool) {
        let mut state = self.lock();
        state.open.remove(name);
        if !good {
            state.failed.insert(name.to_owned());
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Next> {
        let parent = |run: &Run| run.parent.as_ref().map(|parent| parent.name.clone());
        let failed = |run: &Run| parent(run).is_some_and(|name| self.failed.contains(&name));
        if let Some(place) = self.waiting.iter().position(failed) {
            return Some(Next::Hopeless(Box::new(self.waiting.remove(place))));
        }
        let ready = |run: &Run| parent(run).is_none_or(|name| !self.open.contains(&name));
        let place = self.waiting.iter().position(ready)?;
        Some(Next::Train(Box::new(self.waiting.remove(place))))
    }
}

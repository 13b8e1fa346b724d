//! Which device a run computes on: of those that were named, the one that has the fewest runs at the moment.
//!
//! All are of one kind, because the kind is a part of what a run is: on another kind a run rounds differently and
//! has another digest. Which card of the kind it was, its record says.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use lowburn_trainer::DeviceName;

/// The devices that the runs of a grid share.
#[derive(Debug)]
pub(crate) struct Devices {
    names: Vec<DeviceName>,
    /// Runs on each of them at the moment.
    running: Mutex<Vec<usize>>,
}

impl Devices {
    /// The devices as they were named, the best one there is if none was. One that is named twice is two places for
    /// runs.
    ///
    /// # Errors
    /// For devices of several kinds.
    pub(crate) fn new(named: &[DeviceName]) -> Result<Self> {
        let names = match named {
            [] => vec![DeviceName::best()],
            named => named.to_vec(),
        };
        let first = names[0];
        if let Some(other) = names.iter().find(|name| name.kind() != first.kind()) {
            bail!(
                "--device names {first} and {other}: a run is another run on another kind of device; give devices of \
                 one kind, and the other kind to a call of its own, with --filter"
            );
        }
        let running = Mutex::new(vec![0; names.len()]);
        Ok(Self { names, running })
    }

    /// As named.
    pub(crate) fn names(&self) -> &[DeviceName] {
        &self.names
    }

    /// The first, which stands for all where only the kind counts.
    pub(crate) fn first(&self) -> DeviceName {
        self.names[0]
    }

    /// The device for a run that begins; it is the run's until what is returned is dropped.
    pub(crate) fn take(&self) -> Taken<'_> {
        let mut running = self.running();
        let places = 0..self.names.len();
        let place = places.min_by_key(|place| running[*place]).unwrap_or(0);
        running[place] += 1;
        Taken {
            devices: self,
            place,
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device while a run has it.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    devices: &'a Devices,
    place: usize,
}

impl Taken<'_> {
    /// Its name.
    pub(crate) fn name(&self) -> DeviceName {
        self.devices.names[self.place]
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.devices.running()[self.place] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(names: &str) -> Result<Devices> {
        let names: Vec<DeviceName> = names.split(',').map(|name| name.parse().unwrap()).collect();
        Devices::new(&names)
    }

    #[test]
    fn a_run_gets_the_device_with_the_fewest_runs() {
        let devices = devices("cuda:2,cuda:0,cuda:1").unwrap();
        let name = |taken: &Taken<'_>| taken.name().to_string();
        let mut taken: Vec<Taken<'_>> = (0..4).map(|_| devices.take()).collect();
        let names: Vec<String> = taken.iter().map(name).collect();
        assert_eq!(names, ["cuda:2", "cuda:0", "cuda:1", "cuda:2"]);
        // Two runs on cuda:2 and one on each other; the one on cuda:1 ends.
        drop(taken.remove(2));
        taken.push(devices.take());
        assert_eq!(name(&taken[3]), "cuda:1");
        taken.push(devices.take());
        assert_eq!(name(&taken[4]), "cuda:0");
        drop(taken);
        assert_eq!(*devices.running(), [0, 0, 0]);
    }

    #[test]
    fn a_device_that_is_named_twice_is_two_places() {
        let devices = devices("flex,flex").unwrap();
        assert_eq!(devices.names().len(), 2);
        let (one, other) = (devices.take(), devices.take());
        assert_eq!(*devices.running(), [1, 1]);
        assert_eq!(one.name(), other.name());
    }

    #[test]
    fn kinds_are_not_mixed_and_none_means_the_best() {
        let message = devices("cuda:0,cuda:1,wgpu:0").unwrap_err().to_string();
        assert!(message.contains("cuda:0 and wgpu:0"), "{message}");
        let devices = Devices::new(&[]).unwrap();
        assert_eq!(devices.names(), [DeviceName::best()]);
        assert_eq!(devices.first(), DeviceName::best());
    }
}

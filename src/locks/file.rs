//! Locks by name in a directory.

use std::path::Path;

use super::Backend;
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::Result;
use crate::fs::fifo::FifoLock;
use crate::fs::named::{LockDir, LockName, Place};
use crate::fs::rwlock::FifoRwLock;
use crate::fs::semaphore::FifoSemaphore;
use crate::lock::Capabilities;

pub(super) struct FileLocks {
    directory: LockDir,
    label: Option<String>,
}

/// Sets the label on the options, if there is one.
macro_rules! labelled {
    ($options:expr, $label:expr) => {
        match $label {
            Some(label) => $options.label(label),
            None => $options,
        }
    };
}

impl FileLocks {
    pub(super) fn open(path: &Path, label: Option<String>) -> Result<Self> {
        let directory = LockDir::open(path)?;
        Ok(Self { directory, label })
    }

    fn place(&self, name: &str) -> Result<(LockName, Place)> {
        let name = LockName::new(None, name);
        let place = self.directory.recorded_place(&name)?;
        Ok((name, place))
    }

    fn place_of_lock(&self, name: &str) -> Result<Place> {
        let (_, place) = self.place(name)?;
        place.refuse_others().map(|()| place)
    }
}

impl Backend for FileLocks {
    fn lock(&self, name: &str) -> Result<AnyLock> {
        let place = self.place_of_lock(name)?;
        let options = labelled!(FifoLock::options(), &self.label);
        options.open(place.lock()).map(AnyLock::from)
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        let place = self.place_of_lock(name)?;
        let options = labelled!(FifoRwLock::options(), &self.label);
        options.open(place.lock()).map(AnySharedLock::from)
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        let (name, place) = self.place(name)?;
        place.refuse_lock()?;
        let options = labelled!(FifoSemaphore::options(), &self.label).limit(permits);
        let semaphore = options.open(self.directory.path(), name.stem())?;
        Ok(AnySemaphore::from(semaphore))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of_fair_file_lock(self.directory.has_events())
    }
}

//! `PidLock`, with events and with polling, as subjects.

use std::marker::PhantomData;
use std::time::Duration;

use stanchion::{PidLock, PidOptions};

use crate::subject::Subject;
use crate::support::Place;
use crate::way::Way;

pub(crate) struct Pid<W>(Place, PhantomData<W>);

impl<W: Way> Pid<W> {
    fn options() -> PidOptions {
        PidLock::options().wait(W::wait())
    }
}

impl<W: Way> Subject for Pid<W> {
    type Lock = PidLock;

    const FAIR: bool = false;
    const NAMES: bool = true;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> PidLock {
        Self::options().open(self.0.path()).expect("a lock")
    }

    fn open_without_polling(&self) -> PidLock {
        let options = Self::options().poll_interval(Duration::MAX);
        options.open(self.0.path()).expect("a lock")
    }

    fn open_by_other_names(&self) -> Vec<PidLock> {
        let open = |name| Self::options().open(name).expect("the same lock");
        self.0.other_names().map(open).into()
    }

    fn open_another(&self) -> PidLock {
        let path = self.0.directory().join("b.lock");
        Self::options().open(path).expect("another lock")
    }

    fn places(&self) -> usize {
        0
    }

    fn footprint(&self) -> String {
        format!("{:?}", self.0.footprint())
    }

    fn resources(&self) -> usize {
        self.0.descriptors()
    }
}

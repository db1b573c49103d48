//! `FileLock` with its three ways to wait, as subjects.

use std::marker::PhantomData;
use std::time::Duration;

use stanchion::{FileLock, FileOptions};

use crate::subject::Subject;
use crate::support::Place;
use crate::way::Way;

pub(crate) struct Plain<W>(Place, PhantomData<W>);

impl<W: Way> Plain<W> {
    fn options() -> FileOptions {
        FileLock::options().wait(W::wait())
    }
}

impl<W: Way> Subject for Plain<W> {
    type Lock = FileLock;

    const FAIR: bool = false;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> FileLock {
        Self::options().open(self.0.path()).expect("a lock")
    }

    fn open_without_polling(&self) -> FileLock {
        let options = Self::options().poll_interval(Duration::MAX);
        options.open(self.0.path()).expect("a lock")
    }

    fn open_by_other_names(&self) -> Vec<FileLock> {
        let open = |name| Self::options().open(name).expect("the same lock");
        self.0.other_names().map(open).into()
    }

    fn open_another(&self) -> FileLock {
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

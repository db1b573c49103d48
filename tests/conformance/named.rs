//! Locks by name as subjects: in a directory, with each method that locks, and behind a URL.

use std::marker::PhantomData;
use std::path::Path;

use stanchion::{AnyLock, Handle, LockDir, Locks, Method, NamedLock, Status};

use crate::subject::Subject;
use crate::support::{Place, Polled};

/// A method as a type.
pub(crate) trait By: 'static {
    const METHOD: Method;
    const FAIR: bool;
}

pub(crate) struct ByFifo;
pub(crate) struct ByOs;

impl By for ByFifo {
    const METHOD: Method = Method::Fifo;
    const FAIR: bool = true;
}

impl By for ByOs {
    const METHOD: Method = Method::Os;
    const FAIR: bool = false;
}

/// The lock `a` of a directory.
pub(crate) struct Named<M>(Place, PhantomData<M>);

impl<M: By> Named<M> {
    fn open_in(directory: &Path, name: &str) -> NamedLock {
        let directory = LockDir::options().method(M::METHOD).open(directory);
        let lock = directory.expect("a directory").lock(None, name);
        lock.expect("a lock")
    }
}

impl<M: By> Subject for Named<M> {
    type Lock = NamedLock;

    const FAIR: bool = M::FAIR;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> NamedLock {
        Self::open_in(self.0.directory(), "a")
    }

    fn open_without_polling(&self) -> NamedLock {
        self.open()
    }

    fn open_by_other_names(&self) -> Vec<NamedLock> {
        let paths = self.0.other_names().into_iter();
        let open = |path: std::path::PathBuf| {
            let directory = path.parent().expect("a directory");
            Self::open_in(directory, "a")
        };
        paths.map(open).collect()
    }

    fn open_another(&self) -> NamedLock {
        Self::open_in(self.0.directory(), "A")
    }

    fn places(&self) -> usize {
        self.0.tickets().len()
    }

    fn footprint(&self) -> String {
        format!("{:?}", self.0.footprint())
    }

    fn resources(&self) -> usize {
        self.0.descriptors()
    }
}

/// The lock `a` behind `mem:NAME`. Each test has its own name.
pub(crate) struct Behind {
    place: Place,
    seen: AnyLock,
}

impl Behind {
    fn lock(place: &Place, name: &str) -> AnyLock {
        let world = place.directory().file_name().expect("a name");
        let url = format!("mem:{}", world.to_str().expect("a plain name"));
        let locks = Polled::new(Locks::connect(url)).finish();
        locks.expect("connected").lock(name).expect("a lock")
    }

    fn look(&self) -> Status {
        let status = Polled::new(Handle::status(&self.seen)).finish();
        status.expect("a status")
    }
}

impl Subject for Behind {
    type Lock = AnyLock;

    const FAIR: bool = true;

    fn new() -> Self {
        let place = Place::new();
        let seen = Self::lock(&place, "a");
        Self { place, seen }
    }

    fn open(&self) -> AnyLock {
        Self::lock(&self.place, "a")
    }

    fn open_without_polling(&self) -> AnyLock {
        self.open()
    }

    fn open_by_other_names(&self) -> Vec<AnyLock> {
        vec![self.open(), self.open()]
    }

    fn open_another(&self) -> AnyLock {
        Self::lock(&self.place, "A")
    }

    fn places(&self) -> usize {
        self.look().waiters.len()
    }

    fn footprint(&self) -> String {
        format!("{:?} {:?}", self.place.footprint(), self.look())
    }

    /// It has no descriptors.
    fn resources(&self) -> usize {
        self.place.descriptors()
    }
}

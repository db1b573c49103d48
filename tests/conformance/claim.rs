//! `NamedLock` with the two methods that need no lock of the operating system, as subjects.

use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use stanchion::{LockDir, LockDirOptions, Method, NamedLock};

use crate::subject::Subject;
use crate::support::Place;

/// The method.
pub(crate) trait Form: 'static {
    const METHOD: Method;
}

pub(crate) struct Directory;
pub(crate) struct File;

impl Form for Directory {
    const METHOD: Method = Method::Mkdir;
}

impl Form for File {
    const METHOD: Method = Method::CreateNew;
}

/// With an expiry, so the claim is renewed meanwhile.
pub(crate) struct Claim<F>(Place, PhantomData<F>);

impl<F: Form> Claim<F> {
    fn options() -> LockDirOptions {
        let options = LockDir::options().method(F::METHOD);
        options.expire(Duration::from_secs(60))
    }

    fn in_directory(&self, directory: &Path) -> NamedLock {
        Self::named(Self::options(), directory, "a")
    }

    fn named(options: LockDirOptions, directory: &Path, name: &str) -> NamedLock {
        let locks = options.open(directory).expect("a directory");
        locks.lock(None, name).expect("a lock")
    }
}

impl<F: Form> Subject for Claim<F> {
    type Lock = NamedLock;

    const FAIR: bool = false;
    const TOKENS: bool = true;
    const NAMES: bool = true;

    fn new() -> Self {
        Self(Place::new(), PhantomData)
    }

    fn open(&self) -> NamedLock {
        self.in_directory(self.0.directory())
    }

    fn open_without_polling(&self) -> NamedLock {
        let options = LockDir::options().method(F::METHOD);
        let options = options.poll_interval(Duration::MAX);
        Self::named(options, self.0.directory(), "a")
    }

    fn open_by_other_names(&self) -> Vec<NamedLock> {
        let directories = self.0.other_names();
        let directories = directories
            .iter()
            .map(|it| it.parent().expect("a directory"));
        directories.map(|it| self.in_directory(it)).collect()
    }

    fn open_another(&self) -> NamedLock {
        Self::named(Self::options(), self.0.directory(), "b")
    }

    fn places(&self) -> usize {
        0
    }

    /// Names are random, so only their ends are compared.
    fn footprint(&self) -> String {
        let mut names = self.0.footprint();
        let claim = self.0.directory().join("a.lock.claim/baton");
        for entry in std::fs::read_dir(claim).into_iter().flatten().flatten() {
            names.insert(entry.file_name().into_string().expect("a name"));
        }
        format!("{names:?}")
    }

    fn resources(&self) -> usize {
        self.0.descriptors()
    }
}

//! The kind of the lock at a path, and the errors if another kind is opened.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::path::{Path, PathBuf};

use stanchion::{Error, ErrorKind, FifoKind, FifoLock, FifoRwLock, FifoSemaphore, Result};

const NAME: &str = "a.lock";

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join(NAME);
    (directory, path)
}

fn kind_at(path: &Path) -> Option<FifoKind> {
    FifoKind::at(path).expect("a record that can be read")
}

fn refused<T>(result: Result<T>) -> ErrorKind {
    result.err().as_ref().map(Error::kind).expect("an error")
}

#[test]
fn a_lock_has_a_kind_from_its_first_holder_until_it_is_removed() {
    let (_directory, path) = place();
    assert_eq!(kind_at(&path), None);
    let lock = FifoLock::open(&path).expect("a lock");
    assert_eq!(kind_at(&path), None, "it was never acquired");
    drop(lock.try_acquire().expect("no error"));
    assert_eq!(kind_at(&path), Some(FifoKind::Lock));
    lock.remove().expect("it is free");
    assert_eq!(kind_at(&path), None);
}

#[test]
fn every_kind_is_reported_and_refuses_the_others() {
    let (directory, path) = place();
    let here = directory.path();
    let lock = FifoRwLock::open(&path).expect("a lock");
    drop(lock.try_read().expect("no error"));
    assert_eq!(kind_at(&path), Some(FifoKind::RwLock));
    assert_eq!(refused(FifoLock::open(&path)), ErrorKind::Incompatible);
    lock.remove().expect("it is free");
    drop(lock);

    let semaphore = FifoSemaphore::open(here, NAME, 3).expect("a semaphore");
    drop(semaphore.try_acquire().expect("no error"));
    drop(semaphore);
    let kind = kind_at(&path).expect("it is recorded");
    assert!(matches!(kind, FifoKind::Semaphore { limit: 3, .. }));
    assert_eq!(kind.to_string(), "semaphore");
    assert_eq!(refused(FifoRwLock::open(&path)), ErrorKind::Incompatible);
    let recorded = FifoSemaphore::options().open(here, NAME);
    assert_eq!(recorded.expect("as recorded").limit(), 3);
}

#[test]
fn what_is_no_answer_is_an_error() {
    let (directory, path) = place();
    let here = directory.path();
    assert_eq!(refused(FifoKind::at(here.join("missing/a"))), ErrorKind::Io);
    assert_eq!(refused(FifoKind::at("..")), ErrorKind::InvalidInput);
    let queue = here.join("a.lock.queue");
    std::fs::create_dir(&queue).expect("a directory");
    let record = |text: &str| std::fs::write(queue.join("state"), text).expect("a file");
    for rubbish in ["", "rubbish", "stanchion removed\n"] {
        record(rubbish);
        assert_eq!(kind_at(&path), None, "{rubbish:?}");
    }
    record("stanchion 2 lock 00000000000000000000\n");
    assert_eq!(refused(FifoKind::at(&path)), ErrorKind::Incompatible);
}

#[cfg(unix)]
#[test]
fn permits_lend_their_files() {
    use std::os::unix::fs::MetadataExt;

    let (directory, _) = place();
    let semaphore = FifoSemaphore::open(directory.path(), "pool", 3).expect("a semaphore");
    let permits = semaphore.try_acquire_many(2).expect("no error");
    let permits = permits.expect("permits are free");
    let open = permits.as_fds().map(|it| {
        let file = std::fs::File::from(it.try_clone_to_owned().expect("a duplicate"));
        file.metadata().expect("a file").ino()
    });
    let named = permits.slot_paths().into_iter();
    let named = named.map(|it| it.metadata().expect("a file").ino());
    assert_eq!(open.collect::<Vec<_>>(), named.collect::<Vec<_>>());
}

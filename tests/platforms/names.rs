//! Names and kinds of files that a platform treats in its own way.

use std::path::Path;

use stanchion::{ErrorKind, FifoLock, FileLock, PidLock};

use crate::crew::scratch;
use crate::skip::skip;

fn works(path: &Path) {
    let lock = FifoLock::open(path).expect("a lock");
    drop(lock.acquire().block().expect("free"));
    drop(lock.try_acquire().expect("no error").expect("free"));
    let file = path.with_extension("file");
    let file = FileLock::open(&file).expect("a lock");
    drop(file.acquire().block().expect("free"));
    let pid = PidLock::open(path.with_extension("pid")).expect("a lock");
    drop(pid.acquire().block().expect("free"));
}

#[test]
fn a_path_of_more_than_260_characters_works() {
    let scratch = scratch();
    let mut directory = scratch.path().canonicalize().expect("a directory");
    for _ in 0..4 {
        directory.push("d".repeat(80));
        std::fs::create_dir(&directory).expect("a directory");
    }
    if directory.canonicalize().is_err() {
        need!(skip::<()>("no long paths, as in Wine 8"));
    }
    works(&directory.join("a.lock"));
}

#[cfg(windows)]
#[test]
fn names_that_windows_reserves_are_refused() {
    use stanchion::AtomicFile;

    let scratch = scratch();
    let verbatim = scratch.path().canonicalize().expect("a directory");
    for directory in [scratch.path(), &verbatim] {
        for name in ["NUL", "con.lock", "a.", "a ", "ab:c", "COM1", "what?"] {
            let path = directory.join(name);
            let kind = |found: stanchion::Result<()>| found.map_err(|it| it.kind());
            let refused = Err(ErrorKind::InvalidInput);
            let opened = [
                kind(FifoLock::open(&path).map(drop)),
                kind(FileLock::open(&path).map(drop)),
                kind(PidLock::open(&path).map(drop)),
            ];
            assert_eq!(opened, [refused; 3], "{path:?}");
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let created = runtime
                .expect("a runtime")
                .block_on(async { AtomicFile::create(&path).await });
            assert_eq!(kind(created.map(drop)), refused, "{path:?}");
        }
    }
    assert_eq!(std::fs::read_dir(&verbatim).expect("it").count(), 0);
}

#[cfg(windows)]
#[test]
fn a_verbatim_path_and_another_case_are_the_same_lock() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let lock = FifoLock::open(&path).expect("a lock");
    let guard = lock.acquire().block().expect("free");
    let verbatim = path.canonicalize().expect("it is there");
    let spellings = [
        verbatim,
        scratch.path().join("A.LOCK"),
        path.to_string_lossy().to_uppercase().into(),
    ];
    for path in spellings {
        let other = FifoLock::open(&path).expect("a lock");
        assert!(other.try_acquire().expect("no error").is_none());
        assert_eq!(other.path(), lock.path(), "{path:?}");
    }
    drop(guard);
}

/// A file that cannot be written can still be locked, or the error says why not.
#[test]
fn a_read_only_file_is_locked_or_refused() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    std::fs::write(&path, "").expect("a file");
    let mut rights = path.metadata().expect("there").permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&path, rights.clone()).expect("read-only");
    let lock = FileLock::options().write(false).open(&path);
    drop(lock.expect("a lock").acquire().block().expect("free"));
    if let Err(error) = FifoLock::open(&path).expect("a lock").acquire().block() {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.path().is_some(), "{error}");
    }
    #[allow(clippy::permissions_set_readonly_false)]
    rights.set_readonly(false);
    std::fs::set_permissions(&path, rights).expect("writable");
    works(&path);
}

#[test]
fn a_directory_is_no_lock_file() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    std::fs::create_dir(&path).expect("a directory");
    let refused = |error: stanchion::Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    };
    let file = FileLock::open(&path).and_then(|it| it.acquire().block());
    refused(file.map(drop).expect_err("a directory"));
    let fifo = FifoLock::open(&path).and_then(|it| it.acquire().block());
    refused(fifo.map(drop).expect_err("a directory"));
}

/// A file that is opened to append can be locked.
#[test]
fn a_file_to_append_to_is_locked() {
    let scratch = scratch();
    let path = scratch.path().join("log");
    let options = FileLock::options().read(false).write(false).append(true);
    let lock = options.open(&path).expect("a lock");
    drop(lock.acquire().block().expect("free"));
}
